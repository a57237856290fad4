"""Answers of annotators about a query and a document, as annotation tools export them, become grades.

A word such as "relevant" or "no" is 1 or 0. Numbers are ratings: if no rating is 0, the scale starts at 1, and 1 means
not relevant. A pair on whose relevance its annotators disagree is left out and counted.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from embedlab.data import textio
from embedlab.data.formats.base import Contents, Export
from embedlab.data.pair_rows import ALIASES
from embedlab.data.textio import Row
from embedlab.errors import DataError

GRADES = {
    **dict.fromkeys(("relevant", "yes", "true", "positive", "correct", "good", "match", "similar"), 1),
    **dict.fromkeys(("irrelevant", "not relevant", "not_relevant", "no", "false", "negative", "incorrect", "bad"), 0),
}
QUESTIONS = ("relevan", "grade", "rating", "label", "score", "judg", "similar", "match")  # parts of usual names
QUERY_NAMES = ("query", "question", "anchor", "prompt", "input")
DOCUMENT_NAMES = ("positive", "document", "answer", "passage", "text", "context", "response", "chunk")


class Answers(NamedTuple):
    """A record: what annotators saw, and question -> their answers; the answers may be none."""

    row: Row
    texts: Mapping[str, Any]
    answers: Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class _Rating:
    """An answer as a number, and whether it was a word."""

    number: float
    word: bool


def contents(records: Sequence[Answers], path: Path) -> Contents:
    """Turn annotated records into judged pairs.

    Args:
        records: all records of the file.
        path: the file that errors name.

    Raises:
        DataError: a record has no query or document, no question could be the relevance, or an answer is not a grade.
    """
    question = _question(records, path)
    ratings = [[_rating(answer, a.row, question, path) for answer in a.answers.get(question, ())] for a in records]
    numbers = [rating.number for answers in ratings for rating in answers if not rating.word]
    shift = 0 if not numbers or min(numbers) <= 0 else 1
    rows, open_records, conflicts = [], 0, 0
    for record, answers in zip(records, ratings, strict=True):
        grades = [rating.number - (0 if rating.word else shift) for rating in answers]
        if not grades:
            open_records += 1
        elif len({grade > 0 for grade in grades}) > 1:
            conflicts += 1
        else:
            rows.append(_judged(record, statistics.median_low(grades), path))
    if not rows:
        problem = f"no pair is left: {open_records:,} have no answer, and on {conflicts:,} the annotators disagree"
        raise DataError(problem, remedy="Add answers, or settle the disagreements.", file=path)
    counts = {f"{open_records:,} records without an answer left out": open_records}
    counts[f"{conflicts:,} pairs left out because their annotators disagree"] = conflicts
    notes = [f"ratings of 1 mean not relevant (question '{question}')"] if shift else []
    return Contents(rows, notes=(*notes, *(note for note, count in counts.items() if count)))


def _question(records: Sequence[Answers], path: Path) -> str:
    """The question whose answers are grades."""
    names = Counter(name for record in records for name, answers in record.answers.items() if answers)
    likely = [name for name in names if any(usual in name.lower() for usual in QUESTIONS)]
    for candidates in (likely, list(names)):
        if len(candidates) == 1:
            return candidates[0]
    if not names:
        raise DataError("no record has an answer", remedy="Export the annotations too.", file=path)
    problem = f"{', '.join(map(repr, sorted(likely or names)))} could each be the relevance"
    raise DataError(problem, remedy="Export one question, or rename it to 'relevance'.", file=path)


def _rating(answer: Any, row: Row, question: str, path: Path) -> _Rating:
    number = textio.number_of(answer) if not isinstance(answer, bool) else None
    if number is not None and number.is_integer() and 0 <= number <= 10:
        return _Rating(number, word=False)
    word = str(answer).strip().lower()
    if word in GRADES:
        return _Rating(GRADES[word], word=True)
    problem = f"{textio.short(answer)} is not a grade"
    remedy = "Use whole numbers up to 10, or answers such as relevant and irrelevant, yes and no."
    raise textio.error_at(row, question, path, problem, remedy)


def _judged(record: Answers, grade: float, path: Path) -> Row:
    names = {str(name).strip().lower(): name for name in record.texts}
    query, document = (_first(names, usual_names) for usual_names in (QUERY_NAMES, DOCUMENT_NAMES))
    if query is None or document is None or query == document:
        problem = f"no field for the {'query' if query is None else 'document'}; there are {', '.join(names) or 'none'}"
        remedy = "Name the fields of the annotated records 'query' and 'document'."
        raise textio.error_at(record.row, "fields", path, problem, remedy)
    metadata = {
        name: record.texts[name]
        for key, name in names.items()
        if key not in (query, document) and ALIASES.get(key) not in ("query", "positive")
    }
    pair = {"query": record.texts[names[query]], "positive": record.texts[names[document]]}
    return record.row._replace(values={**metadata, **pair, "score": int(grade)})


def _first(names: Mapping[str, Any], usual_names: Iterable[str]) -> str | None:
    return next((name for name in usual_names if name in names), None)


def judged_records(export: Export) -> list[tuple[dict[str, str], int]]:
    """Return what an annotator would see, and the grade, of every judged pair of an export."""
    records: list[tuple[dict[str, str], int]] = []
    for example in export.examples:
        placed = {name: value for name, value in (("split", example.split), ("group", example.group)) if value}
        judged = [(positive.text, positive.grade) for positive in example.positives]
        for text, grade in [*judged, *((negative.text, 0) for negative in example.negatives)]:
            records.append(({"query": example.query, "document": text, **placed}, grade))
    return records
