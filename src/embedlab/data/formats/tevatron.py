"""Tevatron: JSON lines with `positive_passages` and `negative_passages`, lists of `docid`, `title` and `text`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedlab.data import textio
from embedlab.data.formats.base import Contents, Export, Format, Judged, Negative, Source, text_from, write_json_lines
from embedlab.data.textio import Row

POSITIVES, NEGATIVES = "positive_passages", "negative_passages"


def _matches(source: Source) -> bool:
    return bool({POSITIVES, "positive_document_ids"} & source.columns)


def _read(source: Source) -> Contents:
    return Contents([_row(row, source.path) for row in source.rows])


def _row(row: Row, path: Path) -> Row:
    if POSITIVES not in row.values:
        problem = f"'{POSITIVES}' is missing"
        remedy = "Files with document ids alone need their corpus: write the passages into the file first."
        raise textio.error_at(row, POSITIVES, path, problem, remedy)
    for column in (POSITIVES, NEGATIVES):
        passages = row.values.get(column) or []
        if not isinstance(passages, list):
            problem = f"'{column}' must be a list, got {textio.short(passages)}"
            raise textio.error_at(row, column, path, problem, f'Write "{column}": [{{"docid": "…", "text": "…"}}].')
        for passage in passages:
            text_from(passage, "text", row, column, path)
    values = {key: value for key, value in row.values.items() if key not in (POSITIVES, NEGATIVES)}
    passages = {"positive": row.values[POSITIVES], "negatives": row.values.get(NEGATIVES) or []}
    return row._replace(values={**values, **passages})


def _passages(documents: Sequence[Judged | Negative]) -> list[dict[str, Any]]:
    return [{"docid": document.id, "title": "", "text": document.text} for document in documents]


def _write(export: Export, path: Path) -> list[str]:
    records = [
        {
            "query_id": example.id,
            "query": example.query,
            POSITIVES: _passages(example.positives),
            NEGATIVES: _passages(example.negatives),
        }
        for example in export.examples
    ]
    write_json_lines(records, path, "Tevatron")
    return []


NAMES = {"positive": POSITIVES, "negatives": NEGATIVES}
FORMAT = Format("tevatron", "Tevatron", _matches, _read, _write, frozenset({"negatives", "ids"}), NAMES)
