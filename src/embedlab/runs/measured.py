"""What a run has measured so far: a file that grows with every number and survives the end of its process.

A finished run has a record instead. Of a run that was stopped, for example by its time limit, this file is kept with
the attempt, and `embedlab table --incomplete` shows its numbers, marked with the cause.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from embedlab.runs.records import MetricRow, Record

FILE = "measured.jsonl"  # in an attempt's folder: a record without rows, then one row per line


class Log:
    """Appends what an attempt measures to its file.

    Args:
        attempt_folder: the attempt's folder.
    """

    def __init__(self, attempt_folder: Path) -> None:
        self._path = attempt_folder / FILE
        self.is_open = False

    def open(self, head: Record) -> None:
        """Begin the file with everything about the run except its rows."""
        self.is_open = True
        content = head.model_copy(update={"metrics": []}).content()
        self._path.write_text(json.dumps(content) + "\n", encoding="utf-8")

    def add(self, row: MetricRow) -> None:
        """Append a row; it is in the file when this returns, whatever happens to this process afterwards."""
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row.model_dump(mode="json")) + "\n")

    def remove(self) -> None:
        """Delete the file: the record has all of it."""
        self._path.unlink(missing_ok=True)


def read(attempt_folder: Path) -> Record | None:
    """What an attempt measured, as an incomplete record without a half-written last line; None if that is nothing."""
    try:
        head, *lines = (attempt_folder / FILE).read_text(encoding="utf-8").splitlines()
        content = json.loads(head)
        rows = [row for line in lines if (row := _row(line))]
        return Record.model_validate({**content, "metrics": rows}) if rows else None
    except (OSError, ValueError, TypeError):  # pydantic's errors are ValueErrors
        return None


def _row(line: str) -> MetricRow | None:
    try:
        return MetricRow.model_validate_json(line)
    except ValidationError:
        return None
