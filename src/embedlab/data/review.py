"""Human relevance judgements: export a sheet, and import the grades as qrels with a list of disagreements.

A sheet is a CSV file for spreadsheet programs: one row per query and document, an empty `grade`, and instructions in
the last column. The texts are only for reading: the import uses ids, grades and names.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat
from pathlib import Path
from typing import NamedTuple

from embedlab.data import textio
from embedlab.data.dataset import Dataset, Qrels
from embedlab.data.splits import seeded_order
from embedlab.data.textio import Row
from embedlab.errors import DataError
from embedlab.escaping import csv_cell, from_csv_cell

GRADES = {0: "does not answer the query", 1: "partly answers it", 2: "answers it", 3: "is the best possible answer"}
COLUMNS = ("query_id", "query", "document_id", "document", "grade", "judge", "comment", "instructions")
INSTRUCTIONS = (
    "Enter a number in 'grade' in every row, and your name in 'judge'.",
    *(f"{grade} = the document {meaning}." for grade, meaning in GRADES.items()),
    "If you are not sure, leave the grade empty and explain why in 'comment'.",
    "The rows are in random order. Do not change the ids. Save the file as CSV.",
)


class Judgement(NamedTuple):
    """One filled-in row, with its file and line."""

    query: str
    document: str
    grade: int
    judge: str
    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.grade} by {self.judge or 'unnamed judge'} ({self.file.name}:{self.line})"


class Conflict(NamedTuple):
    """A query and a document with different grades."""

    query: str
    document: str
    judgements: tuple[Judgement, ...]

    def __str__(self) -> str:
        return f"{self.query} / {self.document}: {', '.join(map(str, self.judgements))}"


@dataclass(frozen=True)
class Judgements:
    """Imported judgements.

    Attributes:
        grades: query id -> {document id: grade}, with grade 0 but without conflicts.
        conflicts: pairs with different grades, for you to decide.
        open: number of rows without a grade.
        agreement: share of equal grades among the pairs that were judged more than once; None if there are none.
    """

    grades: dict[str, dict[str, int]]
    conflicts: tuple[Conflict, ...]
    open: int
    agreement: float | None

    @property
    def qrels(self) -> Qrels:
        """The positives, in the form that `Dataset.qrels` uses."""
        positive = {q: {d: grade for d, grade in judged.items() if grade} for q, judged in self.grades.items()}
        return {query: grades for query, grades in positive.items() if grades}


def export_sheet(path: Path, dataset: Dataset, candidates: Mapping[str, Sequence[str]], *, seed: int = 0) -> int:
    """Write a sheet for human judges.

    The rows are shuffled and show neither rank nor system, so that these cannot influence the grades.

    Args:
        path: the CSV file to write; UTF-8 with the byte order mark that spreadsheet programs expect.
        dataset: gives the texts.
        candidates: query id -> ids of the documents to judge, ideally pooled from several systems.
        seed: for the order of the rows.

    Returns:
        The number of rows.

    Raises:
        DataError: an id is not in the dataset, or there are no candidates.
    """
    pairs = {f"{query}\n{document}": (query, document) for query, ids in candidates.items() for document in ids}
    if not pairs:
        remedy = "Pass candidates for at least one query."
        raise DataError("there is nothing to judge: no query has candidates", remedy=remedy, file=path)
    _require_ids(pairs.values(), dataset, path)
    order = [pairs[key] for key in seeded_order(pairs, seed)]
    instructions = INSTRUCTIONS if len(order) >= len(INSTRUCTIONS) else (" ".join(INSTRUCTIONS),)
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for (query, document), line in zip(order, chain(instructions, repeat("")), strict=False):
            texts = (query, dataset.queries[query], document, dataset.corpus[document])
            writer.writerow((*map(csv_cell, texts), "", "", "", line))
    return len(order)


def import_judgements(paths: Iterable[Path], dataset: Dataset) -> Judgements:
    """Read one or several filled-in sheets, of one or several judges.

    Args:
        paths: the sheets.
        dataset: the dataset that the sheets were made from.

    Raises:
        DataError: a grade is not one of `GRADES`, or an id is not in the dataset; names file and line.
    """
    judged: dict[tuple[str, str], list[Judgement]] = {}
    ungraded = 0
    for path in paths:
        for row in (textio.rename_columns(row, {}, path) for row in textio.read_rows(path)):
            query = _id(row, "query_id", dataset.queries, path)
            document = _id(row, "document_id", dataset.corpus, path)
            _require_ids([(query, document)], dataset, path, row.line)
            grade = _grade(row, path)
            if grade is None:
                ungraded += 1
            else:
                judge = "" if textio.is_empty(row.values.get("judge")) else str(row.values["judge"]).strip()
                judge = from_csv_cell(judge)
                judgement = Judgement(query, document, grade, judge, path, row.line)
                judged.setdefault((query, document), []).append(judgement)
    return _resolve(judged, ungraded)


def with_judgements(dataset: Dataset, judgements: Judgements) -> Dataset:
    """Merge human grades into the test split: they add positives, change grades, and remove positives with grade 0.

    Only queries of the test split change. A query that loses its last positive leaves the split.

    Args:
        dataset: the dataset that the sheets were made from.
        judgements: from `import_judgements`.
    """
    merged: dict[str, dict[str, int]] = {}
    for query, grades in dataset.qrels["test"].items():
        updated = {**grades, **judgements.grades.get(query, {})}
        if positive := {document: grade for document, grade in updated.items() if grade}:
            merged[query] = positive
    return replace(dataset, qrels={**dataset.qrels, "test": merged})


def _resolve(judged: Mapping[tuple[str, str], list[Judgement]], ungraded: int) -> Judgements:
    grades: dict[str, dict[str, int]] = {}
    conflicts = []
    for (query, document), judgements in judged.items():
        if len({judgement.grade for judgement in judgements}) == 1:
            grades.setdefault(query, {})[document] = judgements[0].grade
        else:
            conflicts.append(Conflict(query, document, tuple(judgements)))
    repeated = sum(len(judgements) > 1 for judgements in judged.values())
    agreement = 1 - len(conflicts) / repeated if repeated else None
    return Judgements(grades, tuple(conflicts), ungraded, agreement)


def _grade(row: Row, path: Path) -> int | None:
    """The row's grade; None if it is empty."""
    if "grade" not in row.values:
        problem = "the column 'grade' is missing"
        raise DataError(
            problem, remedy="Keep all columns of the exported sheet.", file=path, line=row.line, field="grade"
        )
    value = row.values["grade"]
    if textio.is_empty(value):
        return None
    number = None if isinstance(value, bool) else textio.number_of(value)
    is_word = isinstance(value, str) and value.strip().lower() in ("true", "false")
    if number in GRADES and not is_word:
        return int(number or 0)
    problem = f"grade must be one of {', '.join(map(str, GRADES))}, got '{value}'"
    remedy = "Enter one of these numbers or leave the cell empty."
    raise DataError(problem, remedy=remedy, file=path, line=row.line, field="grade")


def _require_ids(pairs: Iterable[tuple[str, str]], dataset: Dataset, path: Path, line: int | None = None) -> None:
    for query, document in pairs:
        for field, key, texts in (("query_id", query, dataset.queries), ("document_id", document, dataset.corpus)):
            if key not in texts:
                remedy = "Load the dataset that the sheet was made from."
                raise DataError(
                    f"'{key}' is not in the dataset {dataset.name}", remedy=remedy, file=path, line=line, field=field
                )


def _id(row: Row, field: str, texts: Mapping[str, str], path: Path) -> str:
    """An id as the dataset has it; the sheet has an apostrophe before one that starts like a formula."""
    name = textio.id_of(row, field, path)
    return name if name in texts else from_csv_cell(name)
