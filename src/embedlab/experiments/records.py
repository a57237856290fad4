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
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from embedlab.errors import RecordError

logger = logging.getLogger(__name__)

FILE = "record.json"
QUARANTINE = "record.damaged"


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
        return None if value is None or not math.isfinite(value) else float(value)


class Record(BaseModel):
    """What a finished run was, and what it found."""

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
        return hashlib.sha256(_canonical(self.model_dump(mode="json")).encode()).hexdigest()


def _canonical(content: dict[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


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
        content = {**record.model_dump(mode="json"), "sha256": record.digest()}
        _write_through(scratch, json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
        os.link(scratch, folder / FILE)
    except FileExistsError:
        return False
    except OSError as error:
        problem = f"the record cannot be written ({error.strerror})"
        remedy = "Make room or mend the permissions, then run the same command again"
        raise RecordError(problem, remedy=remedy, file=folder) from error
    finally:
        scratch.unlink(missing_ok=True)
    _flush_folder(folder)
    return True


def _write_through(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(folder: Path) -> Record:
    """The record of a run folder, checked against its own sha256 and the folder's name.

    Raises:
        RecordError: there is none, or it is damaged.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_bytes())
        claimed = content.pop("sha256")
        record = Record(**content)
    except FileNotFoundError:
        raise RecordError("the run has no record", remedy="It has not finished; run it again", file=folder) from None
    except (ValueError, ValidationError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, type(error).__name__) from None
    if claimed != record.digest() or _canonical(content) != _canonical(record.model_dump(mode="json")):
        raise _damaged(path, "its sha256 does not match")
    if record.run_id != folder.name:
        raise _damaged(path, f"it is the record of {record.run_id}")
    return record


def _damaged(path: Path, reason: str) -> RecordError:
    return RecordError(f"the record is damaged ({reason})", remedy="Run the same command again", file=path)


def read_or_quarantine(folder: Path) -> Record | None:
    """The record, or None when there is none; a damaged one is set aside with a message, so that a rerun can commit."""
    if not (folder / FILE).exists():
        return None
    try:
        return read(folder)
    except RecordError as error:
        aside = folder / f"{QUARANTINE}-{uuid.uuid4().hex[:8]}.json"
        (folder / FILE).rename(aside)
        logger.warning("%s It was set aside as %s", error, aside.name)
        return None
