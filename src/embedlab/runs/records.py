"""The record a run leaves: one JSON file, committed once, that proves its own integrity.

A record exists when, and only when, `record.json` does. It is written to a temporary file, flushed to disk, and given
its name by a hard link, which fails when the name is taken: of many attempts at the same run exactly one commits.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from embedlab.errors import RecordError
from embedlab.io import flush, write_through

logger = logging.getLogger(__name__)

FILE = "record.json"
QUARANTINE = "record.damaged"
OLD = ".old-"  # stands in the name of a run folder that a forced rerun moved aside


class DamagedRecord(RecordError):
    """A record that was read and is not what was once written."""


class MetricRow(BaseModel):
    """One number: which model scored what, on which task and split, with its interval over queries."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    split: str
    model: str
    metric: str
    dim: int | None = None
    value: float | None
    n: int | None = None
    ci_low: float | None = None
    ci_high: float | None = None

    @field_validator("value", "ci_low", "ci_high", mode="before")
    @classmethod
    def _missing_is_null(cls, value: float | None) -> float | None:
        """NaN and infinity are no results; a missing metric is null, never 0."""
        return None if value is None or not math.isfinite(value := float(value)) else value


class Record(BaseModel):
    """What a finished run was, and what it found; NaN and infinity are stored as null everywhere in it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    run_id: str
    status: Literal["ok"] = "ok"
    notebook: str
    parameters: dict[str, Any]
    metrics: list[MetricRow]
    timings: dict[str, float] = Field(default_factory=dict)
    data_fingerprint: str = ""
    model_fingerprints: dict[str, str] = Field(default_factory=dict)
    notes: dict[str, Any] = Field(default_factory=dict)
    source_hash: str = ""
    commit: str = ""
    dirty: bool | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    hardware: dict[str, Any] = Field(default_factory=dict)
    attempt: str = ""
    started: str = ""
    finished: str = ""

    def digest(self) -> str:
        """sha256 of the canonical JSON of everything in the record."""
        return _digest(self.model_dump(mode="json"))


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _file_text(content: dict[str, Any]) -> str:
    """The one way to write `content`; reading compares with it, for 1E-05 and 1e-05 are the same to every parser."""
    return json.dumps({**content, "sha256": _digest(content)}, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def commit(record: Record, folder: Path) -> bool:
    """Give `folder` this record, unless it has one already.

    Returns:
        Whether this call won; False means another attempt's record stands.

    Raises:
        RecordError: the folder cannot be written to; what stood there before is untouched.
    """
    scratch = folder / f".{FILE}.{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_through(scratch, _file_text(record.model_dump(mode="json")).encode())
        won = _link(scratch, folder / FILE)
        scratch.unlink()
        flush(folder)
    except OSError as error:
        with suppress(OSError):
            scratch.unlink()
        problem = f"the record cannot be written ({error.strerror})"
        remedy = "Make room or mend the permissions, then run the same command again"
        raise RecordError(problem, remedy=remedy, file=folder) from error
    return won


def _link(source: Path, name: Path) -> bool:
    """Whether `source` got this name too; False when the name is taken."""
    try:
        os.link(source, name)
    except FileExistsError:
        return False
    return True


def read(folder: Path) -> Record:
    """The record of a run folder, checked against its own sha256 and the folder's name.

    Raises:
        DamagedRecord: it is not what was written.
        RecordError: there is none, or it cannot be read.
    """
    path = folder / FILE
    try:
        text = path.read_bytes().decode()
        content = json.loads(text)
        del content["sha256"]
        record, intact = Record(**content), text == _file_text(content)
    except FileNotFoundError:
        raise RecordError("the run has no record", remedy="It has not finished; run it again", file=folder) from None
    except OSError as error:
        raise RecordError(f"the record cannot be read ({error.strerror})", remedy="Mend it", file=path) from None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError) as error:
        raise _damaged(path, type(error).__name__) from None
    if not intact:
        raise _damaged(path, "its sha256 does not match")
    if record.run_id != folder.name:
        raise _damaged(path, f"it is the record of {record.run_id}")
    return record


def _damaged(path: Path, reason: str) -> DamagedRecord:
    return DamagedRecord(f"the record is damaged ({reason})", remedy="Run the same command again", file=path)


def read_or_quarantine(folder: Path) -> Record | None:
    """The record, or None when there is none; a damaged one is set aside with a message, so that a rerun can commit.

    Raises:
        RecordError: it cannot be read, which says nothing about its content.
    """
    if not (folder / FILE).is_file():
        return None
    try:
        return read(folder)
    except DamagedRecord as error:
        aside = folder / f"{QUARANTINE}-{uuid.uuid4().hex[:8]}.json"
        with suppress(FileNotFoundError):  # another reader was faster
            (folder / FILE).rename(aside)
            logger.warning("%s It was set aside as %s", error, aside.name)
        return None


def set_aside(folder: Path) -> Path:
    """Rename a run's folder, so that the run can be made again; what it held is kept and no longer counts."""
    return folder.rename(folder.with_name(f"{folder.name}{OLD}{uuid.uuid4().hex[:6]}"))
