"""Tables with the columns of `embedlab.data.pairs` (JSONL, JSON, CSV, TSV, Parquet, Excel), and sentence pairs."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from embedlab.data import pair_rows, splits, spreadsheet, textio
from embedlab.data.formats.base import Contents, Example, Export, Format, Source, json_lines
from embedlab.errors import DataError
from embedlab.io import atomic_path, write_atomic

NESTED = (".jsonl", ".json", ".parquet")  # cells may be lists
FLAT = (".csv", ".tsv", ".xlsx")
MORE_QUERIES = f"{splits.MORE_QUERIES} A column 'split' lets you choose the splits yourself."
SENTENCES = ("sentence1", "text1")


def write(export: Export, path: Path) -> list[str]:
    """Write a table; its suffix names the format."""
    if export.similarities:
        write_records(similarity_records(export, "text"), path)
        return []
    nested = textio.format_of(path) in NESTED
    unused = {name for example in export.examples for name in example.fields if not pair_rows.is_free_name(name)}
    records = pair_records(export, nested=nested)
    write_records(records, path)
    return [f"metadata {name!r}, which would be read as another column" for name in sorted(unused)]


def similarity_records(export: Export, name: str) -> list[dict[str, Any]]:
    """Return the records of graded pairs; the columns are the name with 1 and 2, and `score`."""
    return [{f"{name}1": pair.text1, f"{name}2": pair.text2, "score": pair.score} for pair in export.similarities]


def pair_records(export: Export, *, nested: bool) -> list[dict[str, Any]]:
    """Return the records of a file of pairs.

    Args:
        export: its examples.
        nested: write several documents as a list; otherwise one record per positive, with hard negatives as columns of
            the query's first record. Grades need one record per positive, too.
    """
    records: list[dict[str, Any]] = []
    for example in export.examples:
        common = _common(example)
        if nested and not export.graded:
            positives, negatives = (
                [document.text for document in texts] for texts in (example.positives, example.negatives)
            )
            record = {"query": example.query, "positive": positives if len(positives) > 1 else positives[0]}
            records.append({**record, **({"negatives": negatives} if negatives else {}), **common})
            continue
        first = _negative_cells(example, nested)
        for positive in example.positives:
            grade = {"score": positive.grade} if export.graded else {}
            records.append({"query": example.query, "positive": positive.text, **grade, **first, **common})
            first = {}
    return records


def _common(example: Example) -> dict[str, str]:
    fields = {name: value for name, value in example.fields.items() if pair_rows.is_free_name(name)}
    placed = {name: value for name, value in (("split", example.split), ("group", example.group)) if value}
    return {**placed, **fields}


def _negative_cells(example: Example, nested: bool) -> dict[str, Any]:
    texts = [negative.text for negative in example.negatives]
    if nested:
        return {"negatives": texts} if texts else {}
    return {f"negative_{number}": text for number, text in enumerate(texts, start=1)}


def write_records(records: list[dict[str, Any]], path: Path) -> None:
    """Write records in the format that the file's suffix names.

    Raises:
        DataError: there is no such format.
    """
    suffix = textio.format_of(path)
    if suffix == ".jsonl":
        write_atomic(path, json_lines(records))
    elif suffix == ".json":
        write_atomic(path, json.dumps(records, ensure_ascii=False, indent=1))
    elif suffix in (".csv", ".tsv"):
        write_atomic(path, _delimited(records, "," if suffix == ".csv" else "\t"))
    elif suffix == ".parquet":
        _write_parquet(records, path)
    elif suffix == ".xlsx":
        with atomic_path(path) as temporary:
            spreadsheet.write(temporary, records, file=path)
    else:
        raise DataError(
            f"unsupported file type '{suffix}'", remedy=f"Use one of {', '.join(NESTED + FLAT)}.", file=path
        )


def _delimited(records: list[dict[str, Any]], delimiter: str) -> str:
    columns = list(dict.fromkeys(column for record in records for column in record))
    target = io.StringIO()
    writer = csv.DictWriter(target, columns, delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return target.getvalue()


def _write_parquet(records: list[dict[str, Any]], path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = uniform(records)
    columns = {column: [row[column] for row in rows] for column in (rows[0] if rows else ())}
    with atomic_path(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.table(columns), temporary)


def uniform(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return records that all have all columns; where some cells of a column are lists, all cells are lists or None."""
    columns = list(dict.fromkeys(column for record in records for column in record))
    lists = {column for record in records for column, value in record.items() if isinstance(value, list)}
    return [{column: _cell(record.get(column), column in lists) for column in columns} for record in records]


def _cell(value: Any, in_list: bool) -> Any:
    return [value] if in_list and value is not None and not isinstance(value, list) else value


def _write_sentences(export: Export, path: Path) -> list[str]:
    write_records(similarity_records(export, "sentence"), path)
    return []


def _is_table(source: Source) -> bool:
    return bool(source.columns)


def _has_sentences(source: Source) -> bool:
    return any(str(column).strip().lower() in SENTENCES for column in source.columns)


def _read(source: Source) -> Contents:
    return Contents(source.rows)


SENTENCE_PAIRS = Format("sts", "sentence pairs", _has_sentences, _read, _write_sentences, frozenset({"similarities"}))
PAIRS = Format(
    "pairs",
    "pairs",
    _is_table,
    _read,
    write,
    frozenset({"negatives", "grades", "splits", "groups", "fields", "similarities"}),
)
