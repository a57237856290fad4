"""The record that a run leaves: one JSON file, committed once, with its own checksum.

A run has a record exactly when it has a `record.json`. The file is written under a temporary name, flushed to disk, and
gets its name by a hard link, which fails when the name is taken: of many attempts at a run exactly one commits.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from embedlab.errors import RecordError
from embedlab.io import commit_once

Status = Literal["ok", "incomplete"]
Statistic = Literal["value", "difference", "relative_difference", "p_value"]

logger = logging.getLogger(__name__)

FILE = "record.json"
SCHEMA: Final = 2
QUARANTINE = "record.damaged"
OLD = ".old-"  # in the name of a run folder that a forced rerun renamed


class DamagedRecord(RecordError):
    """A record whose content differs from what was written."""


class OtherSchema(RecordError):
    """An intact record in a format that this version does not read: an older or a newer one."""


class MetricRow(BaseModel):
    """One number and what it measures; nothing has to be parsed out of a text.

    Attributes:
        system: what was measured, a declared name; see `embedlab.runs.systems`.
        technique: the family of the system, from its declaration.
        stage: the part of the run that measured it: retrieval, search, quantised, footprint, probe, tasks, ...
        metric: e.g. "ndcg@10" or "perplexity".
        statistic: whether `value` is a value, or a difference, relative difference or p-value against another system.
        against: the system that a difference is taken from; "" for a value.
        split: e.g. "test"; "" where there are no queries.
        task: the dataset or the task, e.g. "retrieval", "banking77".
        condition: what else was varied, for people to read, e.g. "3 layers"; "" when nothing was.
        dim: dimensions of the vectors; None where there are no vectors.
        n: the number of queries (or whatever the interval is over).
        value: None when it is missing, never 0.
        ci_low, ci_high: the ends of the 95 % interval; None when there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str
    technique: str
    stage: str = "retrieval"
    metric: str
    statistic: Statistic = "value"
    against: str = ""
    split: str = ""
    task: str = "retrieval"
    condition: str = ""
    dim: int | None = None
    n: int | None = None
    value: float | None
    ci_low: float | None = None
    ci_high: float | None = None

    @field_validator("value", "ci_low", "ci_high", mode="before")
    @classmethod
    def _missing_is_null(cls, value: float | None) -> float | None:
        """NaN and infinity are stored as null."""
        return None if value is None or not math.isfinite(value := float(value)) else value

    @model_validator(mode="after")
    def _differences_name_the_other_system(self) -> MetricRow:
        if (self.statistic == "value") != (self.against == ""):
            raise ValueError(f"statistic {self.statistic!r} does not go with against={self.against!r}")
        return self


# A part of a path: no slashes, not `.` or `..`, no control characters.
Name = Annotated[str, StringConstraints(pattern=r"^[^./\\\x00-\x1f][^/\\\x00-\x1f]*$")]


class Record(BaseModel):
    """What a finished run was and what it measured; NaN and infinity are stored as null everywhere in it.

    Attributes:
        schema_version: of this format; `schema` in the file.
        status: "ok", or "incomplete" for what a run measured before it was stopped; the latter is never committed.
        inputs: path in a parameter -> hash of the file or folder; see `runs.inputs`.
        systems: name -> description of every system in `metrics`.
        migrated: how the record was converted from an older format; empty when it was not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    schema_version: Literal[2] = Field(default=SCHEMA, alias="schema")
    run_id: Name
    status: Status = "ok"
    notebook: Name
    parameters: dict[str, Any]
    inputs: dict[str, str] = Field(default_factory=dict)
    systems: dict[str, str] = Field(default_factory=dict)
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
    attempt: Name | Literal[""] = ""
    started: str = ""
    finished: str = ""
    migrated: dict[str, Any] = Field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """What stands in the file, apart from the sha256."""
        content = self.model_dump(mode="json", by_alias=True)
        if not self.inputs:  # as in every record from before there were inputs
            del content["inputs"]
        return content

    def digest(self) -> str:
        """sha256 of the canonical JSON of everything in the record."""
        return digest_of(self.content())


KNOWN_FIELDS = {field.alias or name for name, field in Record.model_fields.items()}


def digest_of(content: dict[str, Any]) -> str:
    """sha256 of the canonical JSON of a record's content; the same rule in every schema."""
    text = json.dumps(content, sort_keys=True, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def file_text(content: dict[str, Any]) -> str:
    """The one way to write `content`: a field per line, a metric row per line.

    Reading compares the file with this text, because 1E-05 and 1e-05 mean the same to every parser.
    """
    fields = {**content, "sha256": digest_of(content)}
    texts = {name: _rows(value) if name == "metrics" else _field(value) for name, value in fields.items()}
    lines = [f" {_json(name)}: {text}" for name, text in texts.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False)


def _field(value: object) -> str:
    return _json(value, indent=1).replace("\n", "\n ")  # no JSON text has a raw line break


def _rows(rows: list[dict[str, Any]]) -> str:
    return "[\n" + ",\n".join(f"  {_json(row)}" for row in rows) + "\n ]" if rows else "[]"


def commit(record: Record, folder: Path) -> bool:
    """Write the record of a run folder, unless the folder has one already.

    Returns:
        Whether this call wrote it; False means that another attempt committed first.

    Raises:
        RecordError: the record is incomplete, or the folder cannot be written to; files that were there before are
            untouched.
    """
    if record.status != "ok":
        raise RecordError("the record is incomplete", remedy="Commit it when the run has finished", file=folder)
    try:
        return commit_once(folder / FILE, file_text(record.content()).encode())
    except OSError as error:
        problem = f"the record cannot be written ({error.strerror})"
        remedy = "Free disk space or fix the permissions, then run the same command again"
        raise RecordError(problem, remedy=remedy, file=folder) from error


def read(folder: Path) -> Record:
    """The record of a run folder, checked against its own sha256 and the folder's name.

    Raises:
        DamagedRecord: the file is not what was written.
        OtherSchema: the file is intact, and of an older or a newer format.
        RecordError: there is no record, or it cannot be read.
    """
    path = folder / FILE
    try:
        text = path.read_bytes().decode()
        content = json.loads(text)
        sha256 = content.pop("sha256")
        if (schema := content.get("schema", 1)) != SCHEMA and digest_of(content) == sha256:
            raise _other_schema(schema, path)
        if (unknown := set(content) - KNOWN_FIELDS) and digest_of(content) == sha256:
            raise _other_schema(f"{SCHEMA} with the new field {min(unknown)!r}", path)
        record, intact = Record(**content), text == file_text(content)
        if record.status != "ok":
            raise ValueError("incomplete")
    except FileNotFoundError:
        raise RecordError("the run has no record", remedy="It has not finished. Run it again", file=folder) from None
    except OSError as error:
        remedy = "Check its permissions and the disk"
        raise RecordError(f"the record cannot be read ({error.strerror})", remedy=remedy, file=path) from None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError) as error:
        raise _damaged(path, type(error).__name__) from None
    if not intact:
        raise _damaged(path, "its sha256 does not match")
    if record.run_id != folder.name:
        raise _damaged(path, f"it is the record of {record.run_id}")
    return record


def _damaged(path: Path, reason: str) -> DamagedRecord:
    return DamagedRecord(f"the record is damaged ({reason})", remedy="Run the same command again", file=path)


def _other_schema(schema: object, path: Path) -> OtherSchema:
    if isinstance(schema, int) and schema < SCHEMA:
        problem = f"the record has the older schema {schema}, and this version reads schema {SCHEMA}"
        remedy = f"Convert it with: embedlab migrate {path.parent.parent}"
    else:
        problem = f"a newer version of embedlab wrote this record (schema {schema}, this version reads {SCHEMA})"
        remedy = "Update embedlab: pip install --upgrade embedlab"
    return OtherSchema(problem, remedy=remedy, file=path)


def read_or_quarantine(folder: Path) -> Record | None:
    """The record, or None when there is none; a damaged one is renamed with a warning, and a rerun can commit.

    Raises:
        OtherSchema: it is of an older or a newer format; it stays as it is.
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
    """Rename a run's folder to make room for a new run; the old files are kept and no longer count."""
    return folder.rename(folder.with_name(f"{folder.name}{OLD}{uuid.uuid4().hex[:6]}"))
