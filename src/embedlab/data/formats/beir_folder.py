"""BEIR folders as a format: corpus.jsonl, queries.jsonl and qrels, the latter as TSV or in TREC's format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embedlab.data import beir
from embedlab.data.formats import trec
from embedlab.data.formats.base import Contents, Export, Format, Source, json_lines
from embedlab.data.textio import Row
from embedlab.io import write_atomic

HOLDS = frozenset({"negatives", "grades", "splits", "fields", "ids", "documents"})


def is_beir(path: Path) -> bool:
    """Whether a path is a folder with a corpus and queries."""
    names = ("corpus.jsonl", "queries.jsonl")
    return path.is_dir() and all((path / n).is_file() or (path / f"{n}.gz").is_file() for n in names)


def _read(source: Source) -> Contents:
    folder = beir.Folder.read(source.path, unknown="Add it to {file}, or remove this row.")
    rows = []
    for split, judged in folder.judged.items():
        for number, (query, document, grade) in enumerate(judged, start=1):
            if document not in folder.corpus.texts:  # judged not relevant, and without a text
                continue
            passage = {"docid": document, "text": folder.corpus.texts[document]}
            values: dict[str, Any] = {
                "query_id": query,
                "query": folder.queries.texts[query],
                "positive": passage,
                "split": split,
            }
            values |= {"score": max(grade, 0), "metadata": folder.queries.fields.get(query, {})}
            rows.append(Row(number, values, folder.files[split]))
    without = len(folder.queries.texts.keys() - {row.values["query_id"] for row in rows})
    notes = (f"{without:,} queries without a judgement left out",) if without else ()
    return Contents(rows, folder.corpus.texts, notes)


def _write_texts(export: Export, folder: Path) -> None:
    corpus = [{"_id": key, "title": "", "text": text} for key, text in export.documents.items()]
    queries = [
        {"_id": e.id, "text": e.query, **({"metadata": dict(e.fields)} if e.fields else {})} for e in export.examples
    ]
    write_atomic(folder / "corpus.jsonl", json_lines(corpus))
    write_atomic(folder / "queries.jsonl", json_lines(queries))


def _judgements(export: Export) -> dict[str, list[dict[str, Any]]]:
    """Split -> rows; judgements without a split are train, from which loaders take dev and test."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for example in export.examples:
        grades = {positive.id: positive.grade for positive in example.positives}
        for document, grade in {**dict.fromkeys((n.id for n in example.negatives), 0), **grades}.items():
            row = dict(zip(trec.QRELS, (example.id, document, grade), strict=True))
            rows.setdefault(example.split or "train", []).append(row)
    return rows


def _write(export: Export, folder: Path) -> list[str]:
    _write_texts(export, folder)
    for split, rows in _judgements(export).items():
        lines = ["\t".join(trec.QRELS), *("\t".join(str(row[column]) for column in trec.QRELS) for row in rows)]
        write_atomic(folder / "qrels" / f"{split}.tsv", "".join(f"{line}\n" for line in lines))
    return []


def _write_trec(export: Export, path: Path) -> list[str]:
    """A folder with texts, or, if the path has a suffix, only the judgements."""
    judged = _judgements(export)
    if path.suffix:
        trec.write([row for rows in judged.values() for row in rows], "qrels", path)
        return ["texts, as TREC judgements are ids"]
    _write_texts(export, path)
    for split, rows in judged.items():
        trec.write(rows, "qrels", path / "qrels" / f"{split}.qrels")
    return []


def _matches(source: Source) -> bool:
    return is_beir(source.path)


def _has_trec(source: Source) -> bool:
    return is_beir(source.path) and any((source.path / "qrels").glob("*.qrels"))


FORMAT = Format("beir", "BEIR", _matches, _read, _write, HOLDS)
TREC = Format("trec", "BEIR with TREC judgements", _has_trec, _read, _write_trec, HOLDS)
