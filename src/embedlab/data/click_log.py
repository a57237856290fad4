"""Click logs: who was shown what, where on the page, and what was clicked.

| column | meaning |
|---|---|
| query | the text that was searched for |
| document_id, document | what was shown, by id, by text, or both; without an id the text is the id |
| position | place on the page, from 1; without this column clicks cannot be corrected for it |
| impressions | how often it was shown there; without this column every row is one showing |
| clicks | how many of those showings were clicked, at most once each |

Rows that agree in query, document and position are added up, so that a row may be one event or a day's total. A log
that names documents by id alone takes their texts from a `corpus.jsonl` in BEIR's format that lies beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from embedlab.data import textio
from embedlab.data.beir import read_texts
from embedlab.data.textio import Row
from embedlab.errors import DataError

KEYS = ["query", "document", "position"]
CORPUS = "corpus.jsonl"


@dataclass(frozen=True, eq=False)
class ClickLog:
    """A click log, added up.

    Attributes:
        queries: query id -> text.
        documents: document id -> text, shown or not.
        counts: one row for every query (id), document (id) and position (from 1), with its impressions and clicks.
    """

    queries: Mapping[str, str]
    documents: Mapping[str, str]
    counts: pd.DataFrame

    @classmethod
    def from_events(cls, queries: Mapping[str, str], documents: Mapping[str, str], events: pd.DataFrame) -> ClickLog:
        """Add up rows of query, document, position, impressions and clicks."""
        counts = events.groupby(KEYS, sort=False, as_index=False)[["impressions", "clicks"]].sum()
        return cls(queries, documents, counts)


def read_log(path: Path) -> ClickLog:
    """The log in a CSV, TSV, JSONL or Parquet file.

    Raises:
        DataError: with file, line and field of whatever is malformed.
    """
    rows = textio.read_rows(path)
    texts = _document_texts(rows, path)
    queries: dict[str, str] = {}
    events = []
    for row in rows:
        query = queries.setdefault(textio.text_of(row, "query", path), f"q{len(queries)}")
        document = _known_document(row, texts, path)
        events.append((query, document, _position(row, path), *_clicked(row, path)))
    frame = pd.DataFrame(events, columns=[*KEYS, "impressions", "clicks"])
    return ClickLog.from_events({query: text for text, query in queries.items()}, texts, frame)


def _document_texts(rows: list[Row], path: Path) -> dict[str, str]:
    """Document id -> text, from the log itself or the corpus beside it."""
    beside = path.parent / CORPUS
    texts = read_texts(beside, titled=True)[0] if beside.is_file() else {}
    for row in rows:
        if row.values.get("document") in (None, ""):
            continue
        text = textio.text_of(row, "document", path)
        document = _document_id(row, path)
        if texts.setdefault(document, text) != text:
            problem, remedy = f"document '{document}' has two texts", "Give every text an id of its own."
            raise DataError(problem, remedy=remedy, file=path, line=row.line, field="document")
    return texts


def _document_id(row: Row, path: Path) -> str:
    field = "document" if row.values.get("document_id") in (None, "") else "document_id"
    return textio.id_of(row, field, path)


def _known_document(row: Row, texts: Mapping[str, str], path: Path) -> str:
    document = _document_id(row, path)
    if document in texts:
        return document
    remedy = f"Add a column 'document' or put a {CORPUS} with _id and text beside the log."
    problem = f"document '{document}' has no text"
    raise DataError(problem, remedy=remedy, file=path, line=row.line, field="document_id")


def _position(row: Row, path: Path) -> int:
    """The row's place; everything is in one place where the log has none."""
    if "position" not in row.values:
        return 1
    if position := _count(row, "position", path):
        return position
    remedy = "Count the first place as 1."
    raise DataError("there is no position 0", remedy=remedy, file=path, line=row.line, field="position")


def _clicked(row: Row, path: Path) -> tuple[int, int]:
    """Impressions and clicks of a row."""
    shown = _count(row, "impressions", path) if "impressions" in row.values else 1
    clicks = _count(row, "clicks", path)
    if clicks <= shown:
        return shown, clicks
    problem, remedy = f"{clicks} clicks in {shown} impressions", "Count at most one click per impression."
    raise DataError(problem, remedy=remedy, file=path, line=row.line, field="clicks")


def _count(row: Row, field: str, path: Path) -> int:
    """A whole number from 0; true and false count as 1 and 0."""
    value = row.values.get(field)
    spelled = {"true": 1, "false": 0}.get(str(value).strip().lower(), value)
    try:
        number = float(spelled)
    except (TypeError, ValueError):
        number = -1.0
    if number >= 0 and number.is_integer():
        return int(number)
    remedy = "Write a whole number, 0 or more."
    problem = f"{value!r} is no count" if field in row.values else f"'{field}' is missing"
    raise DataError(problem, remedy=remedy, file=path, line=row.line, field=field)
