"""The sheet of the pairs that are worth judging next, and the judgements of filled-in sheets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from embedlab.data.dataset import Dataset
from embedlab.data.review import Form, Judgements, import_judgements, write_sheet
from embedlab.errors import DataError
from embedlab.evaluation.human_review.agreement import Agreement, agreement
from embedlab.evaluation.labelling.priority import CUTOFF, Candidate

COLUMN = "relevant"


@dataclass(frozen=True)
class SheetAgreement:
    """Agreement of two sheets on the rows that both filled in.

    Attributes:
        sheets: the two files.
        agreement: Cohen's kappa, share of equal grades, number of rows.
    """

    sheets: tuple[Path, Path]
    agreement: Agreement

    def __str__(self) -> str:
        names = " and ".join(sheet.name for sheet in self.sheets)
        result = self.agreement
        kappa = "not defined, as all grades are equal" if result.kappa != result.kappa else f"{result.kappa:.2f}"
        return f"{names}: {result.observed:.0%} equal grades in {result.n:,} rows, Cohen's kappa {kappa}"


def form_of(dataset: Dataset) -> Form:
    """Return what judges fill in: the grades of the dataset's own judgements, from 0 to the highest that occurs."""
    grades = (grade for judged in dataset.qrels.values() for document in judged.values() for grade in document.values())
    highest = max(grades, default=1)
    scale = "1 if the document answers the query, 0 if it does not"
    if highest > 1:
        scale = f"a whole number from 0 (does not answer the query) to {highest} (the best possible answer)"
    instructions = (
        f"Enter in '{COLUMN}': {scale}. Enter your name in 'judge'.",
        "If you are not sure, leave the cell empty and explain why in 'comment'.",
        "The most useful rows come first, so you can stop anywhere.",
        "Do not change the ids and texts. Save the file as CSV.",
    )
    return Form(COLUMN, highest, instructions)


def write_label_sheet(path: Path, dataset: Dataset, candidates: Sequence[Candidate]) -> int:
    """Write candidates into a sheet, in their order.

    The sheet says how many systems list a document and what a judgement can change, and neither which systems nor at
    which rank, so that these cannot influence the grade.

    Args:
        path: a new CSV file.
        dataset: gives the texts.
        candidates: from `priority.prioritise`.

    Returns:
        The number of rows.

    Raises:
        DataError: the file exists, an id is not in the dataset, or there are no candidates.
    """
    if path.exists():
        remedy = "Choose another name: the file may hold judgements."
        raise DataError("this file exists", remedy=remedy, file=path)
    if not candidates:
        remedy = "Add another model, or add queries"
        raise DataError("everything that the systems list first is judged", remedy=remedy, file=path)
    pairs = [(candidate.query, candidate.document) for candidate in candidates]
    return write_sheet(path, dataset, pairs, form_of(dataset), reasons=[reason(candidate) for candidate in candidates])


def reason(candidate: Candidate) -> str:
    """Return in one sentence why a pair is worth a judgement."""
    ranks = candidate.ranks
    listed = sum(rank is not None for rank in ranks)
    return (
        f"in the first {CUTOFF} of {listed} of {len(ranks)} systems; if it is relevant, it changes the difference of "
        f"their nDCG@{CUTOFF} on this query by {candidate.effect:.2f}"
    )


def read_label_sheets(paths: Sequence[Path], dataset: Dataset) -> tuple[Judgements, list[SheetAgreement]]:
    """Read filled-in sheets, one per judge.

    Args:
        paths: the sheets.
        dataset: the dataset that they were written for.

    Returns:
        All judgements, and the agreement of each two sheets that have filled-in rows in common.

    Raises:
        DataError: a row is malformed (names file, line and column), a sheet is given twice, or no row is filled in.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise DataError("a sheet is given twice", remedy="Name each sheet once", file=paths[0])
    form = form_of(dataset)
    judgements = import_judgements(paths, dataset, form)
    if not judgements.grades and not judgements.conflicts:
        remedy = f"Fill in the column '{COLUMN}'."
        raise DataError("no row has a judgement", remedy=remedy, file=paths[0], field=COLUMN)
    by_sheet = [(path, import_judgements([path], dataset, form).grades) for path in paths] if len(paths) > 1 else []
    compared = [
        SheetAgreement((first, second), agreement(of_first, of_second))
        for (first, of_first), (second, of_second) in combinations(by_sheet, 2)
        if any(document in of_second.get(query, {}) for query, grades in of_first.items() for document in grades)
    ]
    return judgements, compared
