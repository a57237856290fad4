"""What a format is: how its files are recognised, read and written.

A reader turns a file into records with the columns of `embedlab.data.pairs`, so every check of cells, grades and ids is
made in one place. A writer gets an `Export`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from embedlab.data import textio
from embedlab.data.dataset import GradedPair
from embedlab.data.textio import Row
from embedlab.errors import DataError
from embedlab.io import write_atomic


class Judged(NamedTuple):
    """A document that answers a query, and how well: a grade of 1 or more."""

    id: str
    text: str
    grade: int = 1


class Negative(NamedTuple):
    """A document that does not answer a query: a hard negative, or one judged not relevant."""

    id: str
    text: str


@dataclass(frozen=True)
class Example:
    """A query with its documents.

    Attributes:
        id: the query's id.
        query: its text.
        positives, negatives: its documents; without a positive there is no example.
        split: train, dev, test, or empty if the source names no splits.
        group: queries of the same group stay in one split; may be empty.
        fields: metadata.
    """

    id: str
    query: str
    positives: tuple[Judged, ...]
    negatives: tuple[Negative, ...] = ()
    split: str = ""
    group: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)

    def documents(self, negatives: bool = True) -> list[Judged | Negative]:
        """Return its documents, with or without those that do not answer it."""
        return [*self.positives, *(self.negatives if negatives else ())]


@dataclass(frozen=True)
class Export:
    """What a writer gets.

    Attributes:
        examples: every query with a positive.
        documents: id -> text of all documents.
        similarities: graded pairs, if the source has no queries.
    """

    examples: tuple[Example, ...] = ()
    documents: Mapping[str, str] = field(default_factory=dict)
    similarities: tuple[GradedPair, ...] = ()

    @property
    def graded(self) -> bool:
        """Whether a grade other than 1 occurs."""
        return any(positive.grade != 1 for example in self.examples for positive in example.positives)


@dataclass(frozen=True)
class Contents:
    """What a reader returns.

    Attributes:
        rows: records with the columns of `embedlab.data.pairs`.
        documents: id -> text of documents that perhaps no record names.
        notes: what was left out or interpreted, in a few words each.
    """

    rows: list[Row]
    documents: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A file or folder, read once."""

    path: Path

    @property
    def suffix(self) -> str:
        """Suffix that names the format, without `.gz`; empty for a folder."""
        return "" if self.path.is_dir() else textio.format_of(self.path)

    @cached_property
    def json(self) -> Any:
        """Content of a `.json` file; None for other files."""
        return textio.parse_json(textio.read_text(self.path), self.path) if self.suffix == ".json" else None

    @cached_property
    def rows(self) -> list[Row]:
        """The records of a table.

        Raises:
            DataError: see `textio.read_rows`.
        """
        if self.suffix != ".json":
            return textio.read_rows(self.path)
        if rows := list(textio.rows_of_json(self.json, self.path)):
            return rows
        raise DataError("the file has no rows", remedy="Add at least one record.", file=self.path)

    @cached_property
    def columns(self) -> frozenset[str]:
        """Column names of the first record; empty for a folder, or a file that is not a table."""
        is_object = self.suffix == ".json" and not isinstance(self.json, list)
        return frozenset() if self.path.is_dir() or is_object else frozenset(self.rows[0].values)

    @cached_property
    def first_line(self) -> str:
        """First line of a text file, without its end."""
        return next((text for _, text in textio.lines(textio.find_file(self.path)) if text.strip()), "").rstrip("\r\n")


def check_new(target: Path) -> None:
    """Check that a file or folder can be written under a name.

    Raises:
        DataError: it exists, or its name says that it is compressed.
    """
    if target.exists():
        raise DataError("this file or folder exists", remedy="Choose another name, or remove it.", file=target)
    if target.suffix.lower() == ".gz":
        raise DataError("compressed files are not written", remedy=f"Write {target.with_suffix('')}.", file=target)


@dataclass(frozen=True)
class Format:
    """A format that can be recognised, read and written.

    Attributes:
        name: as in `embedlab convert --to NAME`.
        title: as its users call it.
        matches: whether a file or folder has this format, by its content.
        read: reads it.
        write: writes an `Export` to a path and returns what could not be written, in a few words each.
        names: column of `pairs` -> its name in this format, for errors.
        holds: what it keeps besides queries and positives: "negatives", "grades", "splits", "groups", "fields", "ids",
            "documents" (also those that no query names), "similarities".
    """

    name: str
    title: str
    matches: Callable[[Source], bool]
    read: Callable[[Source], Contents]
    write: Callable[[Export, Path], list[str]]
    holds: frozenset[str] = frozenset()
    names: Mapping[str, str] = field(default_factory=dict)


def list_of_texts(row: Row, column: str, path: Path) -> list[str]:
    """Return a cell that must be a list of texts; empty texts are left out, and a missing cell is an empty list.

    Raises:
        DataError: it is something else.
    """
    value = row.values.get(column)
    items = [] if value is None else value
    if isinstance(items, list) and all(item is None or isinstance(item, str) for item in items):
        return [textio.checked_text(item, row, column, path) for item in items if not textio.is_empty(item)]
    problem = f"'{column}' must be a list of texts, got {textio.short(value)}"
    raise textio.error_at(row, column, path, problem, f'Write "{column}": ["…"].')


def text_from(values: Any, key: str, row: Row, field: str, path: Path) -> str:
    """Return the text under a key of a nested object.

    Args:
        values: the object, which may be something else.
        key: the key.
        row, field, path: the place that errors name.

    Raises:
        DataError: it is not an object, or the key is missing or not a text.
    """
    if not isinstance(values, dict):
        problem = f"'{field}' must hold objects with '{key}', got {textio.short(values)}"
        raise textio.error_at(row, field, path, problem, f'Write {{"{key}": "…"}}.')
    if key not in values:
        problem = f"'{key}' is missing in '{field}'"
        raise textio.error_at(row, field, path, problem, f"Add it; the object has: {', '.join(map(str, values))}.")
    return textio.checked_text(values[key], row, f"{field}.{key}", path)


def write_json_lines(records: list[dict[str, Any]], path: Path, tool: str) -> None:
    """Write records for a tool that reads JSON lines.

    Raises:
        DataError: the name of the file ends otherwise.
    """
    if textio.format_of(path) != ".jsonl":
        raise DataError(f"{tool} reads JSON lines", remedy="Name the file *.jsonl.", file=path)
    write_atomic(path, json_lines(records))


def write_json(content: Any, path: Path, tool: str) -> None:
    """Write a JSON file for a tool.

    Raises:
        DataError: the name of the file ends otherwise.
    """
    if textio.format_of(path) != ".json":
        raise DataError(f"{tool} reads a JSON file", remedy="Name the file *.json.", file=path)
    write_atomic(path, json.dumps(content, ensure_ascii=False, indent=1))


def json_lines(records: list[dict[str, Any]]) -> str:
    """Return records as JSONL."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
