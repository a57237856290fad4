"""The columns of a file of pairs: other names, scores and grades, splits, lists of texts.

Every cell is checked where it is read, so errors name file, line and field.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from embedlab.data import textio
from embedlab.data.dataset import SPLITS, GradedPair, split_name
from embedlab.data.text_analysis import unseparated_parts
from embedlab.data.textio import Row
from embedlab.errors import DataError

ALIASES = {
    "anchor": "query",
    "question": "query",
    "answer": "positive",
    "document": "positive",
    "positives": "positive",
    "pos": "positive",
    "positive_passages": "positive",
    "sentence1": "text1",
    "sentence2": "text2",
    "scores": "score",
}
SCORE_NAMES = (
    *("label", "labels", "relevance", "relevant", "is_relevant", "relevance_score", "relevance_label", "grade"),
    *("judgement", "judgment", "similarity", "similarity_score", "is_duplicate", "duplicate"),
)
CLASS_NAMES = ("label", "labels", "grade")  # these can also hold the name of a class
RELEVANCE_WORDS = frozenset(
    ("relevant", "irrelevant", "not relevant", "yes", "no", "positive", "negative", "pos", "neg")
)
RESERVED = ("query", "positive", "text1", "text2", "score", "group", "split", "metadata")

PASSAGE_IDS = ("docid", "id", "_id", "doc_id", "document_id")

# negative, negatives, negative_2, hard_negative, neg, neg_doc, negative_passages, hard_negative_ctxs, …
_NEGATIVE = re.compile(
    r"((hard|bm25|mined|random|easy|soft|in_?batch)_?)?neg(ative)?s?"
    r"(_?(doc|document|passage|text|ctx|context|answer|sentence|sample|example|candidate)s?)?(_?\d+)?"
)
_LIKE_DOCUMENTS = re.compile(r"(.*_)?(?P<kind>(neg|pos)(ative|itive)?s?)(_?\d+)?(_.*)?")

REMEMBERED = 1 << 10  # column names whose meaning is remembered
PROSE_CHARACTERS = 6  # of a script without spaces; a name or a category has fewer
MAX_GRADE = 10  # of a query and a document; higher numbers are another scale
SCALES = (1, 5, 10, 100)  # highest scores of the usual scales of similarity
MAX_CLASS = 3  # whole numbers up to here in a column of labels may be classes, as in natural language inference

logger = logging.getLogger(__name__)


class Passage(NamedTuple):
    """The text of a document, after its title if it has one, and the document's id in its file, perhaps empty."""

    text: str
    id: str = ""


def canonical(rows: Iterable[Row], file: Path) -> list[Row]:
    """Return records with the column names of this project.

    Args:
        rows: the records.
        file: the file that errors name.

    Raises:
        DataError: two columns get the same name, or a column seems to hold documents under an unknown name.
    """
    columns_of: dict[tuple[str, ...], dict[str, str]] = {}  # names in a record -> name here -> name in the record
    canonical_rows: list[Row] = []
    for row in rows:
        names = tuple(row.values)
        if names not in columns_of:
            columns_of[names] = _canonical_columns(row, file)
        columns = columns_of[names]
        if tuple(columns) != names:  # the usual record stays as it is
            cells = {name: row.values[column] for name, column in columns.items()}
            row = row._replace(values=cells, names={**columns, **row.names} if row.names else columns)
        for column in row.values:
            if kind := _kind_of_unknown(column):
                _refuse_unknown_texts(row, column, kind, file)
        canonical_rows.append(row)
    return canonical_rows


def with_columns(rows: Iterable[Row], names: Mapping[str, str], file: Path) -> list[Row]:
    """Return records with the columns that somebody named under the names of this project.

    Args:
        rows: the records.
        names: column in the file, in upper or lower case -> name here.
        file: the file that errors name.

    Raises:
        DataError: a record lacks one of the columns, or has a second column of the same meaning.
    """
    new_names = {_plain_name(column): name for column, name in names.items()}
    renamed = []
    for row in rows:
        present = set(map(_plain_name, row.values))
        if missing := [column for column in names if _plain_name(column) not in present]:
            remedy = f"The columns are: {', '.join(map(str, row.values))}."
            raise textio.error_at(row, missing[0], file, f"there is no column '{missing[0]}'", remedy)
        columns = [new_names.get(_plain_name(column), column) for column in row.values]
        if twice := [column for column in columns if columns.count(column) > 1]:
            problem = f"two columns are read as '{twice[0]}'"
            raise textio.error_at(row, twice[0], file, problem, "Remove or rename one of them.")
        originals = dict(zip(columns, map(str, row.values), strict=True))
        renamed.append(row._replace(values=dict(zip(columns, row.values.values(), strict=True)), names=originals))
    return renamed


def _plain_name(column: object) -> str:
    return str(column).strip().lower()


def _canonical_columns(row: Row, file: Path) -> dict[str, str]:
    """Name here -> name in the record."""
    names = {column: re.sub(r"[\s-]+", "_", str(column).strip()) for column in row.values}
    renamed: dict[str, str] = {}
    for column in row.values:
        # A name with blanks or hyphens is normalised only where it means hard negatives or scores.
        name = names[column].lower()
        special = _NEGATIVE.fullmatch(name) or name in SCORE_NAMES
        renamed[name if special and name not in row.values | renamed else column] = column
    return textio.rename_columns(row._replace(values=renamed), ALIASES, file).values


@lru_cache(REMEMBERED)
def _is_negative(column: str) -> bool:
    return _NEGATIVE.fullmatch(column) is not None


@lru_cache(REMEMBERED)
def _kind_of_unknown(column: str) -> str | None:
    """What a column is named like, "negative" or "positive", although its name is not known; None for others."""
    like = _LIKE_DOCUMENTS.fullmatch(re.sub(r"[\s-]+", "_", column))
    if like is None or column == "positive" or _is_negative(column):
        return None
    return "negative" if like["kind"].startswith("neg") else "positive"


def _refuse_unknown_texts(row: Row, column: str, name: str, file: Path) -> None:
    """Raise an error for a column that is named like documents and holds texts; scores and ids are metadata."""
    value = row.values[column]
    texts = [_passage(item) for item in (value if isinstance(value, list) else [value])]
    if any(isinstance(text, str) and _is_prose(text) for text in texts):
        problem = f"the column '{column}' seems to hold {name}s, but its name is not known"
        remedy = f"Rename it to '{name}' (a list can hold several), or remove it."
        raise textio.error_at(row, column, file, problem, remedy)


def _is_prose(text: str) -> bool:
    """Whether a text has several words, or many characters without spaces, as an id, a score or a name has not."""
    return len(text.split()) > 1 or any(
        unseparated and len(segment) >= PROSE_CHARACTERS for segment, unseparated in unseparated_parts(text)
    )


def _warn_of_flags(rows: list[Row], file: Path) -> None:
    """Name columns of zeros and ones that might be the relevance under an unknown name."""
    columns = dict.fromkeys(column for row in rows for column in row.values if column not in RESERVED)
    scored = any("score" in row.values for row in rows)
    if not scored and (flags := [name for name in columns if _is_flag(row.values.get(name, "") for row in rows)]):
        message = "%s: %s holds only 0 and 1 and is metadata. Rename it to 'score' if 0 means not relevant"
        logger.warning(message, file, ", ".join(map(repr, flags)))


def _is_flag(cells: Iterable[object]) -> bool:
    """Whether cells hold 0 and 1, and nothing else."""
    values: set[str] = set()
    for cell in cells:
        values.add(str(cell).strip())
        if not values <= {"0", "1"}:
            return False
    return len(values) == 2


def with_scores(rows: list[Row], file: Path) -> list[Row]:
    """Return the rows with a column such as `label` renamed to `score`, if there is no score and it holds numbers."""
    named = dict.fromkeys(column for row in rows for column in row.values if column in SCORE_NAMES)
    numeric = [column for column in named if _is_relevance(rows, column)]
    if not numeric:
        _warn_of_flags(rows, file)
        return rows
    if any("score" in row.values for row in rows):
        logger.warning("%s: 'score' is the relevance; %s is metadata", file, ", ".join(map(repr, numeric)))
        return rows
    if len(numeric) > 1:
        problem = f"{' and '.join(map(repr, numeric))} could each be the relevance"
        remedy = "Rename the right one to 'score', and the others so that they do not look like it."
        raise DataError(problem, remedy=remedy, file=file, field=numeric[0])
    column = numeric[0]
    logger.warning("%s: '%s' is read as the score: 0 means not relevant", file, column)
    highest = _highest_allowed(rows, column)
    for row in rows:
        _check_scale(row, column, highest, file)
    renamed = ({"score" if key == column else key: cell for key, cell in row.values.items()} for row in rows)
    return [
        row._replace(values=values, names={**(row.names or {}), "score": (row.names or {}).get(column, column)})
        for row, values in zip(rows, renamed, strict=True)
    ]


def _is_relevance(rows: list[Row], column: str) -> bool:
    """Whether a column holds numbers or words for "relevant". A `label` of other texts is a class: metadata."""
    cells = [row.values.get(column) for row in rows]
    filled = [value for value in cells if not textio.is_empty(value)]
    words = {str(value).strip().lower() for value in filled}
    is_number = any(textio.number_of(value) is not None for value in filled)
    return bool(filled) and (column not in CLASS_NAMES or is_number or not words.isdisjoint(RELEVANCE_WORDS))


def _highest_allowed(rows: list[Row], column: str) -> int:
    """The highest number that a column with another name than `score` may hold."""
    if "text1" in rows[0].values:
        numbers = [textio.number_of(row.values.get(column)) for row in rows]
        highest = max((number for number in numbers if number is not None), default=0)
        classes = column in CLASS_NAMES and highest <= MAX_CLASS and all(n is None or n.is_integer() for n in numbers)
        return 1 if classes else SCALES[-1]
    return 1 if column in CLASS_NAMES and column != "grade" else MAX_GRADE


def _check_scale(row: Row, column: str, highest: int, file: Path) -> None:
    value = row.values.get(column)
    number = textio.number_of(value)
    if number is not None and 0 <= number <= highest:
        return
    problem = f"'{column}' must be a number from 0 (not relevant) to {highest}, got {value!r}"
    remedy = f"Write numbers from 0 to {highest}; if it is not the relevance, rename it to 'class', for example."
    if highest == 1 and number is not None and number > 1:
        remedy = "Rename it to 'score' if it is a scale, or to 'class' if it is the name of a class."
    if textio.is_empty(value):
        problem, remedy = f"'{column}' is empty, but other records have one", "Fill it in or remove the record."
    raise textio.error_at(row, column, file, problem, remedy)


def highest_score(rows: list[Row]) -> int:
    """Return the highest score of the scale that the records use.

    Two sentences have a similarity on one of the usual `SCALES`; the highest score that occurs decides which. A query
    and a document have grades from 0 to `MAX_GRADE` if all scores are whole numbers, otherwise scores from 0 to 1.

    Args:
        rows: records with canonical columns.
    """
    numbers = [textio.number_of(row.values.get("score", 1)) for row in rows]
    filled = [number for number in numbers if number is not None]
    most = max(filled, default=1)
    if "text1" in rows[0].values:
        return next((scale for scale in SCALES if most <= scale), SCALES[-1])
    return MAX_GRADE if 1 < most <= MAX_GRADE and all(number.is_integer() for number in filled) else 1


def report_scale(rows: list[Row], highest: int, file: Path) -> None:
    """Warn if scores are divided by the highest score of their scale."""
    if highest > 1:
        most = max(textio.number_of(row.values.get("score")) or 0 for row in rows)
        logger.warning("%s: the scores go up to %g and are divided by %d", file, most, highest)


def one_positive_each(row: Row, file: Path) -> Iterator[Row]:
    """Yield the row, once for each of its positives."""
    value = row.values.get("positive")
    if not isinstance(value, list):
        yield row
        return
    passages = [item for item in value if not textio.is_empty(_passage(item))]
    if not passages:
        raise textio.error_at(row, "positive", file, "'positive' is an empty list", "Fill it in or remove the record.")
    yield from (row._replace(values={**row.values, "positive": passage}) for passage in passages)


def _passage(value: object) -> object:
    """The text of a passage that is written as an object with a title and a text."""
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        return value
    title = value.get("title")
    return f"{title} {value['text']}".strip() if isinstance(title, str) else value["text"]


def _passage_id(value: object) -> str:
    """The id of a passage that is written as an object; empty if it has none."""
    ids = [value.get(name) for name in PASSAGE_IDS] if isinstance(value, dict) else []
    return next((str(key) for key in ids if isinstance(key, str | int) and not textio.is_empty(key)), "")


def _checked(value: object, row: Row, column: str, file: Path) -> Passage:
    return Passage(textio.checked_text(_passage(value), row, column, file), _passage_id(value))


def require_column(row: Row, column: str, file: Path) -> None:
    """Raise an error if a record has no such column; it says how to name another one.

    Raises:
        DataError: it has none.
    """
    if column not in row.values:
        remedy = f"Rename a column to '{column}', or name it in the spec: pairs:FILE?{column}=COLUMN. "
        remedy += f"The columns are: {', '.join(map(str, row.values))}."
        raise textio.error_at(row, column, file, f"'{column}' is missing", remedy)


def passage_of(row: Row, column: str, file: Path) -> Passage:
    """Return the passage in a cell: a text, or an object with a text and perhaps a title and an id.

    Raises:
        DataError: as for `textio.text_of`.
    """
    require_column(row, column, file)
    return _checked(row.values[column], row, column, file)


def negative_columns(row: Row) -> list[str]:
    """Return the names of the columns with hard negatives."""
    return [column for column in row.values if _is_negative(column)]


def texts_of(row: Row, column: str, file: Path) -> list[Passage]:
    """Return the passages of a cell that holds a text, a list, or nothing."""
    value = row.values[column]
    items = value if isinstance(value, list) else [value]
    return [_checked(item, row, column, file) for item in items if not textio.is_empty(_passage(item))]


def graded_pairs(rows: list[Row], left: str, right: str, highest: int, file: Path) -> tuple[GradedPair, ...]:
    """Return the rows of the training split as graded pairs; those of other splits are not used.

    Args:
        rows: the records.
        left, right: the columns of the two texts.
        highest: the highest score of the scale.
        file: the file that errors name.
    """
    unused: dict[str, None] = {}
    for row in rows:
        for column, value in row.values.items():
            if column not in (left, right, "score", "split") and not textio.is_empty(value):
                _refuse_other_texts(row, column, file)
                unused[column] = None
    if unused:
        logger.warning(
            "%s: graded pairs have no metadata or groups, so these are not read: %s", file, ", ".join(unused)
        )
    training = [row for row in rows if split_of(row, file) in ("", "train")]
    if len(training) < len(rows):
        count = len(rows) - len(training)
        logger.warning("%s: graded pairs are for training only: left out %d rows of other splits", file, count)
    return tuple(
        GradedPair(
            textio.text_of(row, left, file),
            passage_of(row, right, file).text,
            score_of(row, file, required=True, highest=highest) / highest,
        )
        for row in training
    )


def _refuse_other_texts(row: Row, column: str, file: Path) -> None:
    if _NEGATIVE.fullmatch(column):
        problem, remedy = "a graded pair takes no hard negatives", "Remove them, or write only the scores 0 and 1."
    elif column in ("query", "positive", "text1", "text2"):
        problem, remedy = "the record has both text1, text2 and query, positive", "Keep one of the two pairs."
    else:
        return
    raise textio.error_at(row, column, file, problem, remedy)


def score_of(row: Row, file: Path, *, required: bool = False, highest: int = 1) -> float:
    """Return the score of a record; 1 in a file without scores.

    Args:
        row, file: the record and its file.
        required: whether other records have a score.
        highest: the highest score that is allowed; the lowest is 0.

    Raises:
        DataError: the score is missing, not a number, or out of range.
    """
    value = row.values.get("score")
    if "score" not in row.values and not required:
        return 1.0
    if textio.is_empty(value):
        problem = "this record has no score, but others have one" if "score" not in row.values else "the score is empty"
        remedy = f"Give every record a score from 0 to {highest}, or remove the record."
        raise textio.error_at(row, "score", file, problem, remedy)
    score = textio.number_of(value)
    if score is not None and 0 <= score <= highest:
        return score
    problem = f"score must be a number from 0 to {highest}, got {value!r}"
    remedy = f"Write a number from 0 to {highest}."
    if score is not None and highest == 1:
        signed = "Scores from -1 to 1: add 1 and divide by 2."
        remedy = signed if -1 <= score < 0 else "Divide the scores by the maximum of their scale."
    remedy = textio.number_remedy(value, remedy)
    raise textio.error_at(row, "score", file, problem, remedy)


def split_of(row: Row, file: Path) -> str:
    """Return the record's split as train, dev or test; empty if the row has none."""
    value = row.values.get("split")
    text = split_name("" if textio.is_empty(value) else str(value).strip().lower())
    if text in ("", *SPLITS):
        return text
    remedy = f"Use one of {', '.join(SPLITS)}."
    raise textio.error_at(row, "split", file, f"unknown split '{text}'", remedy)


def is_free_name(name: str) -> bool:
    """Whether a column of this name is read as metadata, under this very name."""
    plain = re.sub(r"[\s-]+", "_", name.strip())
    reserved = (*RESERVED, *ALIASES, *SCORE_NAMES, *textio.INDEX_COLUMNS, "query_id")
    special = _NEGATIVE.fullmatch(plain) or _LIKE_DOCUMENTS.fullmatch(plain)
    return name == name.strip().lower() and plain not in reserved and not special
