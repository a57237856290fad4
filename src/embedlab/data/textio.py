"""Rows out of files people make by hand, and errors that point at the row."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from embedlab.errors import DataError

FINGERPRINT_LENGTH = 16  # hex characters


class Row(NamedTuple):
    """One record of a file: its 1-based line (its record number in Parquet) and its named values."""

    line: int
    values: dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Every record of a JSONL, CSV, TSV or Parquet file; the text formats may be gzipped and carry a BOM.

    Raises:
        DataError: the file is missing, empty, of another format, not UTF-8, or broken at the line it names.
    """
    readers: dict[str, Callable[[Path], Iterator[Row]]] = {
        ".jsonl": _jsonl_rows,
        ".csv": lambda file: _delimited_rows(file, ","),
        ".tsv": lambda file: _delimited_rows(file, "\t"),
        ".parquet": _parquet_rows,
    }
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix not in readers:
        raise DataError(f"'{suffix}' files are not read", remedy=f"Use one of {', '.join(readers)}.", file=path)
    if rows := list(readers[suffix](existing(path))):
        return rows
    raise DataError("the file has no rows", remedy="Give it at least one record.", file=path)


def existing(path: Path) -> Path:
    """`path` if it is a file, else `path` + ".gz" if that is one."""
    for candidate in (path, path.with_name(path.name + ".gz")):
        if candidate.is_file():
            return candidate
    raise DataError("there is no such file", remedy="Check the path; a relative one starts here.", file=path)


def text_of(row: Row, field: str, file: Path) -> str:
    """The text in `field`, stripped.

    Raises:
        DataError: the field is missing, not a text, empty, or not valid Unicode.
    """
    if field not in row.values:
        found = ", ".join(map(str, row.values))
        raise _at(row, field, file, f"'{field}' is missing", f"Add it; the record has: {found}.")
    text = row.values[field]
    if text is None or not str(text).strip():
        raise _at(row, field, file, f"'{field}' is empty", "Fill it in or remove the record.")
    if not isinstance(text, str):
        raise _at(row, field, file, f"'{field}' is not a text: {text!r}", "Write it as a string.")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _at(row, field, file, f"'{field}' holds half a surrogate pair", "Save the text as valid Unicode.")
    return text.strip()


def id_of(row: Row, field: str, file: Path) -> str:
    """The identifier in `field`; whole numbers count as identifiers."""
    if isinstance(row.values.get(field), int):
        return str(row.values[field])
    return text_of(row, field, file)


def metadata_of(row: Row, reserved: Iterable[str]) -> dict[str, str]:
    """The scalar values outside the `reserved` fields as text; those of a nested `metadata` object count too."""
    nested = row.values.get("metadata")
    values = {**(nested if isinstance(nested, dict) else {}), **row.values}
    scalars = (str, int, float, bool)
    return {k: str(v) for k, v in values.items() if k not in reserved and isinstance(v, scalars) and str(v)}


def fingerprint(files: Iterable[Path]) -> str:
    """First 16 hex characters of the SHA-256 over the bytes of `files`, in the order given."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:FINGERPRINT_LENGTH]


def _at(row: Row, field: str, file: Path, problem: str, remedy: str) -> DataError:
    return DataError(problem, remedy=remedy, file=file, line=row.line, field=field)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line number and text, decoded line by line so that an encoding error has a place."""
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8", remedy="Save the file as UTF-8.", file=path, line=number) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"broken gzip: {error}", remedy="Compress it again.", file=path, line=number + 1) from error


def _jsonl_rows(path: Path) -> Iterator[Row]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            problem, remedy = f"bad JSON: {error.msg}", "Write one JSON object per line."
            raise DataError(problem, remedy=remedy, file=path, line=number) from error
        if not isinstance(values, dict):
            raise DataError("not a JSON object", remedy="Write one JSON object per line.", file=path, line=number)
        yield Row(number, values)


def _delimited_rows(path: Path, delimiter: str) -> Iterator[Row]:
    reader = csv.reader((line for _, line in _lines(path)), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            # A quoted cell may hold line breaks: the record starts on the line after the last record's end.
            start, line = line, reader.line_num + 1
            if header is None:
                header = _header(cells, path)
            elif len(cells) == len(header):
                yield Row(start, dict(zip(header, cells, strict=True)))
            elif cells:
                problem = f"{len(cells)} cells where the header has {len(header)}"
                raise DataError(problem, remedy="Quote cells that hold the delimiter.", file=path, line=start)
    except csv.Error as error:
        raise DataError(f"bad CSV: {error}", remedy="Check the quotes.", file=path, line=line) from error


def _header(cells: list[str], path: Path) -> list[str]:
    names = [cell.strip() for cell in cells]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"two columns '{twice}'", remedy="Rename one of them.", file=path, line=1, field=twice)
    return names


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        records = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError("broken Parquet file", remedy="Write the file again.", file=path) from error
    yield from (Row(number, record) for number, record in enumerate(records, start=1))
