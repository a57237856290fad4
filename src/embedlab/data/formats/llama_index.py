"""LlamaIndex `EmbeddingQAFinetuneDataset`: one JSON object with `queries`, `corpus` and `relevant_docs`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedlab.data import textio
from embedlab.data.formats.base import Contents, Export, Format, Source, write_json
from embedlab.data.textio import Row
from embedlab.errors import DataError

PARTS = ("queries", "corpus", "relevant_docs")


def _matches(source: Source) -> bool:
    return isinstance(source.json, dict) and set(PARTS) <= source.json.keys()


def _read(source: Source) -> Contents:
    queries, corpus, relevant = (_mapping(source, section) for section in PARTS)
    texts = {
        key: _text(source.path, "corpus", key, number, text) for number, (key, text) in enumerate(corpus.items(), 1)
    }
    questions = {
        key: _text(source.path, "queries", key, number, text) for number, (key, text) in enumerate(queries.items(), 1)
    }
    rows = []
    for number, (query, documents) in enumerate(relevant.items(), start=1):
        if query not in queries:
            raise _error(source.path, number, "relevant_docs", f"the query '{query}' is not in 'queries'")
        if not isinstance(documents, list):
            problem = f"'{query}' must have a list of document ids, got {textio.short(documents)}"
            raise _error(source.path, number, "relevant_docs", problem)
        if unknown := [key for key in documents if not isinstance(key, str) or key not in texts]:
            problem = f"the document {unknown[0]!r} of '{query}' is not in 'corpus'"
            raise _error(source.path, number, "relevant_docs", problem)
        passages = [{"docid": key, "text": texts[key]} for key in documents]
        if passages:
            rows.append(Row(number, {"query_id": query, "query": questions[query], "positive": passages}))
    if not rows:
        problem, remedy = "no query has a relevant document", "Add their ids to 'relevant_docs'."
        raise DataError(problem, remedy=remedy, file=source.path, field="relevant_docs")
    without = len(questions) - len(rows)
    return Contents(rows, texts, (f"{without:,} queries without a relevant document left out",) if without else ())


def _mapping(source: Source, section: str) -> Mapping[str, Any]:
    value = source.json.get(section) if isinstance(source.json, dict) else None
    if isinstance(value, dict) and value:
        return value
    remedy = f'Write a .json file, one object, with "{section}": {{"id": …}}.'
    raise DataError(f"'{section}' must be an object that is not empty", remedy=remedy, file=source.path, field=section)


def _text(path: Path, section: str, key: str, number: int, value: Any) -> str:
    return textio.checked_text(value, Row(number, {section: key}), f"{section}.{key}", path)


def _error(path: Path, number: int, section: str, problem: str) -> DataError:
    return DataError(problem, remedy="Add it, or remove the entry.", file=path, line=number, field=section)


def _write(export: Export, path: Path) -> list[str]:
    content = {
        "queries": {example.id: example.query for example in export.examples},
        "corpus": dict(export.documents),
        "relevant_docs": {e.id: [positive.id for positive in e.positives] for e in export.examples},
        "mode": "text",
    }
    write_json(content, path, "LlamaIndex")
    return []


NAMES = {"positive": "relevant_docs"}
FORMAT = Format("llamaindex", "LlamaIndex", _matches, _read, _write, frozenset({"ids", "documents"}), NAMES)
