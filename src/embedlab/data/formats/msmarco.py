"""MS MARCO triples: query, positive and negative, separated by tabs, without quotes; with or without a header."""

from __future__ import annotations

import re
from pathlib import Path

from embedlab.data import textio
from embedlab.data.formats.base import Contents, Example, Export, Format, Source
from embedlab.data.text_analysis import words
from embedlab.data.textio import Row
from embedlab.errors import DataError
from embedlab.io import write_atomic

COLUMNS = ("query", "positive", "negative")
HEADERS = (
    COLUMNS,
    ("query", "pos", "neg"),
    ("anchor", "positive", "negative"),
    ("query", "passage_pos", "passage_neg"),
)
SUFFIXES = (".tsv", ".txt")
MIN_WORDS = 5  # of a passage; a name of a column has fewer

_IDS = re.compile(r"\d+\t\d+\t\d+")


def _matches(source: Source) -> bool:
    """A header, or a first line of a query and two passages. The name of a column has fewer than five words."""
    if source.suffix not in SUFFIXES or source.path.is_dir():
        return False
    cells = source.first_line.split("\t")
    if len(cells) != len(COLUMNS):
        return False
    has_passages = all(len(words(cell)) >= MIN_WORDS for cell in cells[1:])
    return _is_header(cells) or has_passages or bool(_IDS.fullmatch(source.first_line))


def _is_header(cells: list[str]) -> bool:
    return tuple(cell.strip().lower() for cell in cells) in HEADERS


def _read(source: Source) -> Contents:
    rows: list[Row] = []
    start = True
    for number, line in textio.lines(textio.find_file(source.path)):
        cells = line.rstrip("\r\n").split("\t")
        first, start = start, False
        if not line.strip() or (first and _is_header(cells)):
            continue
        if len(cells) != len(COLUMNS):
            problem = f"expected query, positive and negative, got {len(cells)} cells"
            raise DataError(problem, remedy="Separate the three by tabs.", file=source.path, line=number)
        if _IDS.fullmatch("\t".join(cells)):
            problem, remedy = "this line has ids instead of texts", "Join it with the queries and the collection first."
            raise DataError(problem, remedy=remedy, file=source.path, line=number)
        rows.append(Row(number, dict(zip(COLUMNS, cells, strict=True))))
    if rows:
        return Contents(rows)
    raise DataError("the file has no rows", remedy="Add at least one triple.", file=source.path)


def _write(export: Export, path: Path) -> list[str]:
    """One line per positive and negative; the shorter list is repeated."""
    if textio.format_of(path) not in SUFFIXES:
        raise DataError("MS MARCO triples are separated by tabs", remedy="Name the file *.tsv.", file=path)
    lines = [line for example in export.examples for line in _triples(example)]
    if not lines:
        remedy = "Add some with --run, or choose another format."
        raise DataError("no query has a hard negative, and a triple needs one", remedy=remedy, file=path)
    clean = ["\t".join(" ".join(cell.split()) for cell in line) for line in lines]
    write_atomic(path, "".join(f"{line}\n" for line in clean))
    without = sum(not example.negatives for example in export.examples)
    changed = sum(cell != " ".join(cell.split()) for line in lines for cell in line)
    losses = [f"{without:,} queries without a hard negative"] if without else []
    return losses + ([f"tabs and line breaks in {changed:,} texts"] if changed else [])


def _triples(example: Example) -> list[tuple[str, str, str]]:
    positives, negatives = example.positives, example.negatives
    count = max(len(positives), len(negatives)) if negatives else 0
    return [
        (example.query, positives[n % len(positives)].text, negatives[n % len(negatives)].text) for n in range(count)
    ]


FORMAT = Format("msmarco", "MS MARCO triples", _matches, _read, _write, frozenset({"negatives"}))
