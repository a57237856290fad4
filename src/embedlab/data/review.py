"""People's judgements: a sheet to fill in, and back as qrels with every disagreement named.

A sheet is a CSV that spreadsheet programs open: one row per query and document, an empty `grade`, and instructions in
the last column. Texts are there to be read; on the way back only ids, grades and names count.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from embedlab.data import textio
from embedlab.data.dataset import Dataset, Qrels
from embedlab.data.splits import seeded_order
from embedlab.data.textio import Row
from embedlab.errors import DataError

GRADES = {0: "does not answer the query", 1: "answers it in part", 2: "answers it", 3: "is the best answer possible"}
COLUMNS = ("query_id", "query", "document_id", "document", "grade", "judge", "comment", "instructions")
INSTRUCTIONS = (
    "Write one number into 'grade' in every row, and your name into 'judge'.",
    *(f"{grade} = the document {meaning}." for grade, meaning in GRADES.items()),
    "Not sure? Leave the grade empty and say why in 'comment'.",
    "Rows are in random order. Do not change ids; save as CSV.",
)
FORMULA = ("=", "+", "-", "@")  # a spreadsheet would run a text that begins like this


class Judgement(NamedTuple):
    """One filled-in row and where it stands."""

    query: str
    document: str
    grade: int
    judge: str
    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.grade} by {self.judge or 'nobody named'} ({self.file.name}:{self.line})"


class Conflict(NamedTuple):
    """A query and document that people judged differently."""

    query: str
    document: str
    judgements: tuple[Judgement, ...]

    def __str__(self) -> str:
        return f"{self.query} / {self.document}: {', '.join(map(str, self.judgements))}"


@dataclass(frozen=True)
class Judgements:
    """What came back.

    Attributes:
        grades: query id -> {document id: grade}, grade 0 included, conflicts left out.
        conflicts: pairs with different grades; they wait for a decision.
        open: rows without a grade.
        agreement: share of the pairs judged more than once that got equal grades; None where there are none.
    """

    grades: dict[str, dict[str, int]]
    conflicts: tuple[Conflict, ...]
    open: int
    agreement: float | None

    @property
    def qrels(self) -> Qrels:
        """Positives alone, as a dataset keeps them."""
        positive = {q: {d: grade for d, grade in judged.items() if grade} for q, judged in self.grades.items()}
        return {query: grades for query, grades in positive.items() if grades}


def export_sheet(
    path: Path, dataset: Dataset, candidates: Mapping[str, Sequence[str]], *, judge: str = "", seed: int = 0
) -> int:
    """Write a review sheet.

    Rows are shuffled and carry neither rank nor system, so that nobody judges by them.

    Args:
        path: the CSV file; UTF-8 with the mark that spreadsheet programs want.
        dataset: gives the texts.
        candidates: query id -> document ids to judge, best pooled from several systems.
        judge: whose sheet it is.
        seed: of the order.

    Returns:
        The number of rows.

    Raises:
        DataError: an unknown id, or nothing to judge.
    """
    pairs = {f"{query}\n{document}": (query, document) for query, found in candidates.items() for document in found}
    if not pairs:
        raise DataError("there is nothing to judge", remedy="Give candidates for at least one query.", file=path)
    _check_known(pairs.values(), dataset, path)
    order = [pairs[key] for key in seeded_order(pairs, seed)]
    instructions = INSTRUCTIONS if len(order) >= len(INSTRUCTIONS) else (" ".join(INSTRUCTIONS),)
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for (query, document), line in zip_longest(order, instructions, fillvalue=""):
            texts = (query, _safe(dataset.queries[query]), document, _safe(dataset.corpus[document]))
            writer.writerow((*texts, "", judge, "", line))
    return len(order)


def import_judgements(paths: Iterable[Path], dataset: Dataset) -> Judgements:
    """Read filled-in sheets, one or several, by one judge or several.

    Raises:
        DataError: a grade that is none of `GRADES` or an id the dataset does not have, with file and line.
    """
    judged: dict[tuple[str, str], list[Judgement]] = {}
    left_open = 0
    for path in paths:
        for row in textio.read_rows(path):
            query, document = (textio.id_of(row, field, path) for field in ("query_id", "document_id"))
            _check_known([(query, document)], dataset, path, row.line)
            grade = _grade(row, path)
            if grade is None:
                left_open += 1
            else:
                judge = str(row.values.get("judge") or "").strip()
                judgement = Judgement(query, document, grade, judge, path, row.line)
                judged.setdefault((query, document), []).append(judgement)
    return _settle(judged, left_open)


def with_judgements(dataset: Dataset, judgements: Judgements, split: str = "test") -> Dataset:
    """`dataset` with people's grades in `split`: they add positives, change grades and, with 0, take positives out.

    Queries of other splits are left alone, and a query that loses its last positive leaves the split.
    """
    merged: dict[str, dict[str, int]] = {}
    for query, grades in dataset.qrels[split].items():
        both = {**grades, **judgements.grades.get(query, {})}
        if positive := {document: grade for document, grade in both.items() if grade}:
            merged[query] = positive
    return replace(dataset, qrels={**dataset.qrels, split: merged})


def _settle(judged: Mapping[tuple[str, str], list[Judgement]], left_open: int) -> Judgements:
    grades: dict[str, dict[str, int]] = {}
    conflicts = []
    for (query, document), given in judged.items():
        if len({judgement.grade for judgement in given}) == 1:
            grades.setdefault(query, {})[document] = given[0].grade
        else:
            conflicts.append(Conflict(query, document, tuple(given)))
    repeated = sum(len(given) > 1 for given in judged.values())
    agreement = 1 - len(conflicts) / repeated if repeated else None
    return Judgements(grades, tuple(conflicts), left_open, agreement)


def _grade(row: Row, path: Path) -> int | None:
    """The row's grade; None where it is empty."""
    if "grade" not in row.values:
        problem = "'grade' is missing"
        raise DataError(problem, remedy="Do not remove columns.", file=path, line=row.line, field="grade")
    value = row.values["grade"]
    text = "" if value is None else str(value).strip().removesuffix(".0")  # as pandas writes a column with gaps
    if not text:
        return None
    if text in map(str, GRADES):
        return int(text)
    problem = f"grade '{text}' is none of {', '.join(map(str, GRADES))}"
    remedy = "Write one of these numbers or leave the cell empty."
    raise DataError(problem, remedy=remedy, file=path, line=row.line, field="grade")


def _check_known(pairs: Iterable[tuple[str, str]], dataset: Dataset, path: Path, line: int | None = None) -> None:
    for query, document in pairs:
        for field, key, known in (("query_id", query, dataset.queries), ("document_id", document, dataset.corpus)):
            if key not in known:
                remedy = f"Use the dataset the sheet was made from; this one is {dataset.name}."
                raise DataError(f"'{key}' is not in the dataset", remedy=remedy, file=path, line=line, field=field)


def _safe(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text
