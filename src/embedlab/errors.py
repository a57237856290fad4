"""Errors that say what is wrong, where, and how to fix it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any


class EmbedlabError(Exception):
    """An expected error. It prints as one line: `FILE:LINE [FIELD]: Problem. Remedy.`

    Args:
        problem: what is wrong, in one sentence.
        remedy: how to fix it, in one sentence.
        file: the file with the problem.
        line: the line in that file, counted from 1.
        field: the column, key or parameter with the problem.
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
        super().__init__(self._message())

    def __reduce__(self) -> tuple[Callable[..., EmbedlabError], tuple[str], dict[str, Any]]:
        """Let an error travel between processes."""
        rebuild = partial(type(self), remedy=self.remedy, file=self.file, line=self.line, field=self.field)
        return rebuild, (self.problem,), vars(self)

    def _message(self) -> str:
        location = f"{self.file}" if self.file else ""
        if self.line is not None:
            location += f":{self.line}"
        if self.field is not None:
            location += f" [{self.field}]"
        return (f"{location.strip()}: " if location else "") + f"{_sentence(self.problem)} {_sentence(self.remedy)}"


def _sentence(text: str) -> str:
    """End a text with a full stop, unless it ends a sentence already."""
    text = text.strip()
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


class DataError(EmbedlabError):
    """A dataset that cannot be used as it is."""


class LeakageError(DataError):
    """Training data that overlaps with the held-out queries."""


class ParameterError(EmbedlabError):
    """A parameter that is unknown, has the wrong type, or an impossible value."""


class RecordError(EmbedlabError):
    """A run record that is damaged, missing, or already committed by another attempt."""


class ModelError(EmbedlabError):
    """A model that cannot be found or loaded."""


class RecipeError(EmbedlabError):
    """A recipe of the arena that ended with an error, or without a model."""


class StoppedAtCheckpoint(EmbedlabError):
    """A training that a time limit ended after it wrote a checkpoint."""


class StorageError(EmbedlabError):
    """A file that is damaged, missing, locked by another process, or cannot be written."""
