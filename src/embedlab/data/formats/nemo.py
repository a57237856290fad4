"""NVIDIA NeMo: `question` or `query`, `pos_doc` and `neg_doc`; texts, or ids of a corpus that the file names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embedlab.data import textio
from embedlab.data.formats.base import Contents, Export, Format, Source, write_json_lines
from embedlab.data.textio import Row
from embedlab.errors import DataError

DOCUMENTS = ("pos_doc", "neg_doc")


def is_wrapped(source: Source) -> bool:
    """Whether a file is one object with the paths of a corpus and the data."""
    return isinstance(source.json, dict) and {"corpus", "data"} <= source.json.keys()


def _matches(source: Source) -> bool:
    return is_wrapped(source) or "pos_doc" in source.columns


def _read(source: Source) -> Contents:
    if not isinstance(source.json, dict):
        return Contents([_row(row, source.path, {}) for row in source.rows])
    if not is_wrapped(source):
        problem, remedy = "this object has no 'corpus' and 'data'", "Write both, or one JSON object per line (.jsonl)."
        raise DataError(problem, remedy=remedy, file=source.path)
    corpus = _corpus(source)
    rows = textio.rows_of_json(source.json["data"], source.path)
    return Contents([_row(row, source.path, corpus) for row in rows], corpus)


def _row(row: Row, path: Path, corpus: dict[str, str]) -> Row:
    values = {key: value for key, value in row.values.items() if key not in (*DOCUMENTS, "corpus_id", "question_id")}
    if "question_id" in row.values:
        values["query_id"] = row.values["question_id"]
    positives, negatives = (_documents(row, column, path, corpus) for column in DOCUMENTS)
    if not positives:
        raise textio.error_at(row, "pos_doc", path, "'pos_doc' is missing or empty", "Add a document that answers.")
    return row._replace(values={**values, "positive": positives, "negatives": negatives})


def _documents(row: Row, column: str, path: Path, corpus: dict[str, str]) -> list[Any]:
    value = row.values.get(column)
    items = value if isinstance(value, list) else [value]
    documents: list[Any] = []
    for item in items:
        key = str(item.get("id")) if isinstance(item, dict) and "text" not in item else None
        if key is not None and key not in corpus:
            problem = f"the document '{key}' is not in the corpus" if corpus else "the documents are ids without texts"
            remedy = "Add it to the corpus." if corpus else "Write the texts, or an object with corpus and data."
            raise textio.error_at(row, column, path, problem, remedy)
        documents.append(item if key is None else {"docid": key, "text": corpus[key]})
    return [document for document in documents if not textio.is_empty(document)]


def _corpus(source: Source) -> dict[str, str]:
    """Id -> text of the documents in the tables that the file names."""
    texts: dict[str, str] = {}
    for path in files_of_corpus(source):
        for row in textio.read_rows(path):
            texts[textio.id_of(row, "id", path)] = textio.text_of(row, "text", path)
    return texts


def files_of_corpus(source: Source) -> list[Path]:
    """Return the tables that a file names as its corpus: files, or the Parquet and JSONL files of folders.

    Args:
        source: the file; relative paths start at its folder.

    Raises:
        DataError: a path is missing, or there is no table.
    """
    entries, files = source.json["corpus"], []
    for entry in entries if isinstance(entries, list) else [entries]:
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            remedy = 'Write "corpus": {"path": "FOLDER"}.'
            raise DataError("'corpus' names no path", remedy=remedy, file=source.path, field="corpus")
        path = source.path.parent / entry["path"]
        tables = [path] if path.is_file() else sorted([*path.glob("*.parquet"), *path.glob("*.jsonl")])
        if not tables:
            problem = f"the corpus {path} does not exist or holds no Parquet or JSONL file"
            raise DataError(problem, remedy="Check the path.", file=source.path, field="corpus")
        files += tables
    return files


def _write(export: Export, path: Path) -> list[str]:
    records = [
        {
            "question": example.query,
            "pos_doc": [positive.text for positive in example.positives],
            "neg_doc": [negative.text for negative in example.negatives],
        }
        for example in export.examples
    ]
    write_json_lines(records, path, "NeMo")
    return []


NAMES = {"positive": "pos_doc", "negatives": "neg_doc"}
FORMAT = Format("nemo", "NeMo", _matches, _read, _write, frozenset({"negatives"}), NAMES)
