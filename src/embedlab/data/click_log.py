"""Click logs: which documents a search engine showed for a query, at which position, and which were clicked.

| column | meaning |
|---|---|
| query | the text that was searched for |
| document_id, document | the document that was shown: its id, its text, or both; without an id, the text is the id |
| position | rank on the result page, from 1; without this column, position bias cannot be corrected |
| impressions | how often the document was shown there; without this column, every row is one impression |
| clicks | how many of these impressions were clicked, at most one click each |

Rows with the same query, document and position are added up, so a row can be one event or the total of a day. Queries
are the same if they differ only in case, width, punctuation or Unicode form, see `text_analysis`. If the log contains
only document ids, put a `corpus.jsonl` in BEIR format with their texts into the same folder.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from embedlab.data import textio
from embedlab.data.beir import read_texts
from embedlab.data.text_analysis import normalise
from embedlab.data.textio import Row
from embedlab.errors import DataError

COLUMNS = ("query", "document_id", "document", "position", "impressions", "clicks")
ALIASES = {"rank": "position", "doc_id": "document_id"}
MAX_COUNT = 10**12  # more than that is an error of the log, and sums of it would not fit
KEYS = ["query", "document", "position"]
CORPUS = "corpus.jsonl"

_THOUSANDS = re.compile(r"[1-9]\d{0,2}([.,]\d{3})+", re.ASCII)  # 1.000 and 1,000: one or a thousand

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ClickLog:
    """A click log, summed per query, document and position.

    Attributes:
        queries: query id -> text.
        documents: document id -> text, including documents that were never shown.
        counts: columns query (id), document (id), position (from 1), impressions and clicks.
    """

    queries: Mapping[str, str]
    documents: Mapping[str, str]
    counts: pd.DataFrame

    @classmethod
    def from_events(cls, queries: Mapping[str, str], documents: Mapping[str, str], events: pd.DataFrame) -> ClickLog:
        """Sum the rows of a table of events.

        Args:
            queries: query id -> text.
            documents: document id -> text.
            events: columns query (id), document (id), position, impressions and clicks.
        """
        counts = events.groupby(KEYS, sort=False, as_index=False)[["impressions", "clicks"]].sum()
        return cls(queries, documents, counts)


def read_log(path: Path) -> ClickLog:
    """Read a click log.

    Args:
        path: a CSV, TSV, JSONL, JSON or Parquet file with the columns described above.

    Raises:
        DataError: the file is missing or malformed; names file, line and field.
    """
    rows = [textio.rename_columns(row, ALIASES, path) for row in textio.read_rows(path)]
    _warn_of_other_columns(rows, path)
    texts = _document_texts(rows, path)
    ids: dict[str, str] = {}  # normal form of a query -> its id
    queries: dict[str, str] = {}  # id -> the first spelling
    events = []
    for row in rows:
        text = textio.text_of(row, "query", path)
        query = ids.setdefault(normalise(text), f"q{len(ids)}")
        queries.setdefault(query, text)
        document = _document_with_text(row, texts, path)
        events.append((query, document, _position(row, path), *_impressions_and_clicks(row, path)))
    frame = pd.DataFrame(events, columns=[*KEYS, "impressions", "clicks"])
    return ClickLog.from_events(queries, texts, frame)


def _warn_of_other_columns(rows: list[Row], path: Path) -> None:
    if unread := dict.fromkeys(column for row in rows for column in row.values if column not in COLUMNS):
        logger.warning("%s: these columns are not read: %s", path, ", ".join(unread))


def _document_texts(rows: list[Row], path: Path) -> dict[str, str]:
    """Document id -> text, from the log itself or from `corpus.jsonl` in the same folder."""
    corpus = path.parent / CORPUS
    texts = read_texts(corpus, titled=True)[0] if corpus.is_file() else {}
    for row in rows:
        if textio.is_empty(row.values.get("document")):
            continue
        text = textio.text_of(row, "document", path)
        document = _document_id(row, path)
        if texts.setdefault(document, text) != text:
            problem, remedy = f"document '{document}' has two different texts", "Give each text its own id."
            raise DataError(problem, remedy=remedy, file=path, line=row.line, field="document")
    return texts


def _document_id(row: Row, path: Path) -> str:
    field = "document" if textio.is_empty(row.values.get("document_id")) else "document_id"
    return textio.id_of(row, field, path)


def _document_with_text(row: Row, texts: Mapping[str, str], path: Path) -> str:
    document = _document_id(row, path)
    if document in texts:
        return document
    remedy = f"Add a column 'document', or a file {CORPUS} with _id and text in the same folder."
    problem = f"document '{document}' has no text"
    raise DataError(problem, remedy=remedy, file=path, line=row.line, field="document_id")


def _position(row: Row, path: Path) -> int:
    """The row's position; 1 for a log without positions."""
    if "position" not in row.values:
        return 1
    if position := _count(row, "position", path):
        return position
    remedy = "Count positions from 1."
    raise DataError("position must be 1 or more, got 0", remedy=remedy, file=path, line=row.line, field="position")


def _impressions_and_clicks(row: Row, path: Path) -> tuple[int, int]:
    """Impressions and clicks of a row."""
    impressions = _count(row, "impressions", path) if "impressions" in row.values else 1
    clicks = _count(row, "clicks", path)
    if clicks <= impressions:
        return impressions, clicks
    problem = f"{clicks} clicks are more than the {impressions} impressions"
    remedy = "Count at most one click per impression."
    raise DataError(problem, remedy=remedy, file=path, line=row.line, field="clicks")


def _count(row: Row, field: str, path: Path) -> int:
    """A whole number from 0; true and false count as 1 and 0."""
    value = row.values.get(field)
    number = textio.number_of(value)
    if isinstance(value, str) and _THOUSANDS.fullmatch(value.strip()):
        problem, remedy = f"{field} {value!r} can be read in two ways", "Write it without a point or comma."
        raise DataError(problem, remedy=remedy, file=path, line=row.line, field=field)
    if number is not None and number.is_integer() and 0 <= number <= MAX_COUNT:
        return int(number)
    if number is not None and number > MAX_COUNT:
        problem, remedy = f"{field} is too large: {value!r}", f"Write a number up to {MAX_COUNT:,}."
        raise DataError(problem, remedy=remedy, file=path, line=row.line, field=field)
    remedy = f"Fill in how many {field} there were, for example 1." if field != "position" else "Count from 1."
    problem = (
        f"{field} must be a whole number, 0 or more, got {value!r}" if field in row.values else f"'{field}' is missing"
    )
    raise DataError(problem, remedy=remedy, file=path, line=row.line, field=field)
