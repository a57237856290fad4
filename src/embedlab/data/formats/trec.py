"""TREC judgements (`query 0 document grade`) and runs (`query Q0 document rank score tag`): ids without texts.

Judgements next to the texts they name are a folder for `beir:FOLDER`, whose qrels may have this format too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from embedlab.data import textio
from embedlab.data.textio import Row
from embedlab.errors import DataError
from embedlab.io import write_atomic

SUFFIXES = (".qrels", ".trec", ".run", ".txt", ".res")
QRELS, RUN = ("query-id", "corpus-id", "score"), ("query-id", "corpus-id", "rank", "score", "tag")

_WHOLE = re.compile(r"[+-]?\d+")


class Lines(NamedTuple):
    """The lines of a file: records with the columns `QRELS` or `RUN`."""

    kind: str
    rows: list[Row]


def kind_of(path: Path) -> str:
    """Return "qrels" or "run" if the first line of a text file has that form, otherwise an empty text.

    Args:
        path: an existing file; a file in which tabs make three columns is not a TREC file.
    """
    line = next((line for _, line in textio.lines(path) if line.strip()), "")
    first = [] if line.count("\t") == 2 else line.split()
    if len(first) == 4 and _WHOLE.fullmatch(first[3]) and first[1] in ("0", "Q0", "1"):
        return "qrels"
    if len(first) == 6 and _WHOLE.fullmatch(first[3]) and textio.number_of(first[4]) is not None:
        return "run"
    return ""


def read(path: Path) -> Lines:
    """Read a file of judgements or a run.

    Raises:
        DataError: a line has another form, or the file has neither.
    """
    kind = kind_of(path)
    if not kind:
        problem = "this file has neither TREC judgements (4 columns) nor a TREC run (6 columns)"
        remedy = "Write 'query 0 document grade', or 'query Q0 document rank score tag', on each line."
        raise DataError(problem, remedy=remedy, file=path, line=1)
    return Lines(kind, list(_rows(path, kind)))


def _rows(path: Path, kind: str) -> Iterator[Row]:
    count = 4 if kind == "qrels" else 6
    for number, line in textio.lines(path):
        cells = line.split()
        if not cells:
            continue
        if len(cells) != count:
            problem = f"expected {count} columns separated by spaces or tabs, got {len(cells)}"
            raise DataError(problem, remedy="An id must not contain a space.", file=path, line=number)
        yield Row(number, _values(cells, kind, path, number))


def _values(cells: Sequence[str], kind: str, path: Path, line: int) -> dict[str, Any]:
    if not _WHOLE.fullmatch(cells[3]):
        field = "grade" if kind == "qrels" else "rank"
        problem = f"the {field} must be a whole number, got '{cells[3]}'"
        raise DataError(problem, remedy="Correct the fourth column.", file=path, line=line, field=field)
    if kind == "qrels":
        return dict(zip(QRELS, (cells[0], cells[2], cells[3]), strict=True))
    if textio.number_of(cells[4]) is None:
        problem = f"the score must be a number, got '{cells[4]}'"
        raise DataError(problem, remedy="Correct the fifth column.", file=path, line=line, field="score")
    return dict(zip(RUN, (cells[0], cells[2], int(cells[3]), float(cells[4]), cells[5]), strict=True))


def text_of(rows: Iterable[Mapping[str, Any]], kind: str, path: Path) -> str:
    """Return the text of a TREC file.

    Args:
        rows: records with the columns `QRELS` or `RUN`.
        kind: "qrels" or "run".
        path: the file that errors name.

    Raises:
        DataError: an id contains a space.
    """
    lines = []
    for row in rows:
        query, document = str(row["query-id"]), str(row["corpus-id"])
        if spaced := next((key for key in (query, document) if len(key.split()) != 1), None):
            problem, remedy = f"the id '{spaced}' contains a space", "TREC files separate columns by spaces: rename it."
            raise DataError(problem, remedy=remedy, file=path)
        tail = f"{row['score']}" if kind == "qrels" else f"{row['rank']} {row['score']} {row.get('tag') or 'embedlab'}"
        lines.append(f"{query} {'0' if kind == 'qrels' else 'Q0'} {document} {tail}\n")
    return "".join(lines)


def write(rows: Iterable[Mapping[str, Any]], kind: str, path: Path) -> None:
    """Write a TREC file; see `text_of`."""
    write_atomic(path, text_of(rows, kind, path))
