"""Errors a person can act on: what is wrong, where, and what to do about it."""

from __future__ import annotations

from pathlib import Path


class EmbedlabError(Exception):
    """One clear line: the place, the problem, the remedy.

    Args:
        problem: what is wrong, in one sentence.
        remedy: what the reader should do now.
        file: the file at fault.
        line: its 1-based line.
        field: the column, key or parameter at fault.
    """

    def __init__(
        self,
        problem: str,
        *,
        remedy: str,
        file: str | Path | None = None,
        line: int | None = None,
        field: str | None = None,
    ) -> None:
        self.problem, self.remedy = problem, remedy
        self.file, self.line, self.field = file, line, field
        super().__init__(self._one_line())

    def _one_line(self) -> str:
        place = f"{self.file}" if self.file else ""
        if self.line is not None:
            place += f":{self.line}"
        if self.field is not None:
            place += f" [{self.field}]"
        return (f"{place.strip()}: " if place else "") + f"{self.problem}. {self.remedy}"


class DataError(EmbedlabError):
    """A dataset that cannot be used as it is."""


class LeakageError(DataError):
    """Training data that would give the held-out queries away."""


class ParameterError(EmbedlabError):
    """An unknown, ill-typed or impossible parameter."""


class RecordError(EmbedlabError):
    """A run record that is damaged, missing or already committed by another attempt."""


class ModelError(EmbedlabError):
    """A model that cannot be found or loaded."""
