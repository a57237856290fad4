"""Human relevance judgements: export a sheet, and import the grades as qrels with a list of disagreements.

A sheet is a CSV file for spreadsheet programs: one row per query and document, an empty column for the grade, and
instructions in the last column. The import uses ids, grades and names. It compares the texts with the dataset, so that
no grade gets to another document because the data has changed.
"""

from __future__ import annotations

import csv
import io
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
from embedlab.io import write_atomic

GRADES = {0: "does not answer the query", 1: "partly answers it", 2: "answers it", 3: "is the best possible answer"}
BYTE_ORDER_MARK = "\ufeff"  # tells spreadsheet programs that the file is UTF-8
LONG_CELL = 32_000  # characters of a cell that may be the beginning of a text; Excel cuts texts after 32,767
INSTRUCTIONS = (
    "Enter a number in 'grade' in every row, and your name in 'judge'.",
    *(f"{grade} = the document {meaning}." for grade, meaning in GRADES.items()),
    "If you are not sure, leave the grade empty and explain why in 'comment'.",
    "The rows are in random order. Do not change the ids. Save the file as CSV.",
)


@dataclass(frozen=True)
class Form:
    """What judges fill in.

    Attributes:
        column: name of the column for the grade.
        highest: the highest grade; the lowest is 0, "does not answer the query".
        instructions: one line each.
    """

    column: str = "grade"
    highest: int = max(GRADES)
    instructions: tuple[str, ...] = INSTRUCTIONS

    def columns(self, *, reasons: bool = False) -> tuple[str, ...]:
        """Return the header of a sheet; with `reasons`, it says why each row is worth a judgement."""
        texts = ("query_id", "query", "document_id", "document")
        return (*texts, self.column, "judge", "comment", *(("why",) if reasons else ()), "instructions")


GRADED = Form()
COLUMNS = GRADED.columns()


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
    order = [pairs[key] for key in seeded_order(pairs, seed)]
    return write_sheet(path, dataset, order)


def write_sheet(
    path: Path,
    dataset: Dataset,
    pairs: Sequence[tuple[str, str]],
    form: Form = GRADED,
    *,
    reasons: Sequence[str] = (),
) -> int:
    """Write pairs into a sheet in the given order.

    Args:
        path: as for `export_sheet`.
        dataset: gives the texts.
        pairs: (query id, document id) of every row.
        form: what judges fill in.
        reasons: why each pair is worth a judgement, one text per pair; without them, the sheet has no such column.

    Returns:
        The number of rows.

    Raises:
        DataError: an id is not in the dataset.
    """
    _require_ids(pairs, dataset, path)
    lines = form.instructions if len(pairs) >= len(form.instructions) else (" ".join(form.instructions),)
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(form.columns(reasons=bool(reasons)))
    for row, ((query, document), line) in enumerate(zip(pairs, chain(lines, repeat("")), strict=False)):
        texts = (query, dataset.queries[query], document, dataset.corpus[document])
        reason = (csv_cell(reasons[row]),) if reasons else ()
        writer.writerow((*map(csv_cell, texts), "", "", "", *reason, line))
    write_atomic(path, BYTE_ORDER_MARK + buffer.getvalue())
    return len(pairs)


def import_judgements(paths: Iterable[Path], dataset: Dataset, form: Form = GRADED) -> Judgements:
    """Read one or several filled-in sheets, of one or several judges.

    Args:
        paths: the sheets.
        dataset: the dataset that the sheets were made from.
        form: what the judges filled in.

    Raises:
        DataError: a grade is not a whole number up to the highest, an id is not in the dataset, or its text is another
            one there; names file, line and column.
    """
    judged: dict[tuple[str, str], list[Judgement]] = {}
    ungraded = 0
    for path in paths:
        for row in (textio.rename_columns(row, {}, path) for row in textio.read_rows(path)):
            query = _id(row, "query_id", dataset.queries, path)
            document = _id(row, "document_id", dataset.corpus, path)
            _require_ids([(query, document)], dataset, path, row.line)
            _require_text(row, "query", dataset.queries[query], path)
            _require_text(row, "document", dataset.corpus[document], path)
            grade = _grade(row, form, path)
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


def _grade(row: Row, form: Form, path: Path) -> int | None:
    """The row's grade; None if it is empty."""
    if form.column not in row.values:
        problem, remedy = f"the column '{form.column}' is missing", "Keep all columns of the exported sheet."
        raise textio.error_at(row, form.column, path, problem, remedy)
    value = row.values[form.column]
    if textio.is_empty(value):
        return None
    number = None if isinstance(value, bool) else textio.number_of(value)
    is_word = isinstance(value, str) and value.strip().lower() in ("true", "false")
    if number is not None and number.is_integer() and 0 <= number <= form.highest and not is_word:
        return int(number)
    problem = f"{form.column} must be a whole number from 0 to {form.highest}, got {textio.short(value)}"
    remedy = "Enter such a number or leave the cell empty."
    raise textio.error_at(row, form.column, path, problem, remedy)


def _require_text(row: Row, field: str, text: str, path: Path) -> None:
    """Check that a cell, if it is filled in, has the text that the dataset has under the row's id."""
    value = row.values.get(field)
    if not isinstance(value, str) or textio.is_empty(value) or _is_same(from_csv_cell(value), text):
        return
    problem = f"the {field} is not the one that the dataset has under the row's id, {textio.short(text)}"
    remedy = "Use the data that the sheet was written for, or restore this cell."
    raise textio.error_at(row, field, path, problem, remedy)


def _is_same(cell: str, text: str) -> bool:
    """Whether a cell shows a text; spreadsheet programs change white space and cut long texts."""
    shown, full = "".join(cell.split()), "".join(text.split())
    return full.startswith(shown) if len(cell) >= LONG_CELL else full == shown


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
