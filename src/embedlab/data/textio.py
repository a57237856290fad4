"""Read JSONL, CSV, TSV and Parquet files, with errors that name file, line and field."""

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
    """One record of a file: its line, from 1 (in Parquet its record number), and its values by column."""

    line: int
    values: dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Read every record of a JSONL, CSV, TSV or Parquet file. Text files may be gzipped and may start with a BOM.

    Args:
        path: the file; its suffix determines the format.

    Raises:
        DataError: the file is missing, empty, of another format, not UTF-8, or malformed.
    """
    readers: dict[str, Callable[[Path], Iterator[Row]]] = {
        ".jsonl": _jsonl_rows,
        ".csv": lambda file: _delimited_rows(file, ","),
        ".tsv": lambda file: _delimited_rows(file, "\t"),
        ".parquet": _parquet_rows,
    }
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix not in readers:
        remedy = f"Save it as one of {', '.join(readers)}."
        raise DataError(f"unsupported file type '{suffix}'", remedy=remedy, file=path)
    if rows := list(readers[suffix](find_file(path))):
        return rows
    raise DataError("the file has no rows", remedy="Add at least one record.", file=path)


def find_file(path: Path) -> Path:
    """Return `path`, or `path` + ".gz" if only that file exists.

    Raises:
        DataError: neither exists.
    """
    for candidate in (path, path.with_name(path.name + ".gz")):
        if candidate.is_file():
            return candidate
    remedy = f"Check the path. Relative paths start at {Path.cwd()}."
    raise DataError("this file does not exist", remedy=remedy, file=path)


def text_of(row: Row, field: str, file: Path) -> str:
    """Return the text in a field, without surrounding white space.

    Args:
        row: the record.
        field: the column.
        file: the file that the error names.

    Raises:
        DataError: the field is missing, not a string, empty, or not valid Unicode.
    """
    if field not in row.values:
        columns = ", ".join(map(str, row.values))
        raise _at(row, field, file, f"'{field}' is missing", f"Add it to the record, which has: {columns}.")
    text = row.values[field]
    if text is None or not str(text).strip():
        raise _at(row, field, file, f"'{field}' is empty", "Fill it in or remove the record.")
    if not isinstance(text, str):
        raise _at(row, field, file, f"'{field}' must be a string, got {text!r}", "Write it as a string.")
    if any("\ud800" <= character <= "\udfff" for character in text):
        problem = f"'{field}' contains half of a surrogate pair"
        raise _at(row, field, file, problem, "Save the text as valid Unicode.")
    return text.strip()


def id_of(row: Row, field: str, file: Path) -> str:
    """Return the identifier in a field: a string or a whole number.

    Raises:
        DataError: as for `text_of`.
    """
    if isinstance(row.values.get(field), int):
        return str(row.values[field])
    return text_of(row, field, file)


def metadata_of(row: Row, reserved: Iterable[str]) -> dict[str, str]:
    """Return the scalar values of a record as text, including those of a nested `metadata` object.

    Args:
        row: the record.
        reserved: fields to leave out.
    """
    nested = row.values.get("metadata")
    values = {**(nested if isinstance(nested, dict) else {}), **row.values}
    scalars = (str, int, float, bool)
    return {k: str(v) for k, v in values.items() if k not in reserved and isinstance(v, scalars) and str(v)}


def fingerprint(files: Iterable[Path]) -> str:
    """Hash the bytes of `files`, in this order: the first 16 hex digits of a SHA-256."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:FINGERPRINT_LENGTH]


def _at(row: Row, field: str, file: Path, problem: str, remedy: str) -> DataError:
    return DataError(problem, remedy=remedy, file=file, line=row.line, field=field)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line number and text, decoded line by line so that an encoding error names its line."""
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError("this line is not UTF-8", remedy="Save the file as UTF-8.", file=path, line=number) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"damaged gzip file: {error}", remedy="Compress it again.", file=path, line=number + 1
        ) from error


def _jsonl_rows(path: Path) -> Iterator[Row]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            problem, remedy = f"invalid JSON: {error.msg}", "Write one JSON object per line."
            raise DataError(problem, remedy=remedy, file=path, line=number) from error
        if not isinstance(values, dict):
            remedy = 'Write one JSON object per line, for example {"query": "…", "positive": "…"}.'
            raise DataError("this line is not a JSON object", remedy=remedy, file=path, line=number)
        yield Row(number, values)


def _delimited_rows(path: Path, delimiter: str) -> Iterator[Row]:
    reader = csv.reader((line for _, line in _lines(path)), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            # A quoted cell may contain line breaks, so a record starts on the line after the end of the previous one.
            start, line = line, reader.line_num + 1
            if header is None:
                header = _header(cells, path)
            elif len(cells) == len(header):
                yield Row(start, dict(zip(header, cells, strict=True)))
            elif cells:
                problem = f"expected {len(header)} cells as in the header, got {len(cells)}"
                raise DataError(problem, remedy="Quote cells that contain the delimiter.", file=path, line=start)
    except csv.Error as error:
        raise DataError(f"invalid CSV: {error}", remedy="Check the quotes.", file=path, line=line) from error


def _header(cells: list[str], path: Path) -> list[str]:
    names = [cell.strip() for cell in cells]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        problem = f"the column '{repeated}' occurs twice"
        raise DataError(problem, remedy="Rename one of them.", file=path, line=1, field=repeated)
    return names


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        records = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError("damaged Parquet file", remedy="Write the file again.", file=path) from error
    yield from (Row(number, record) for number, record in enumerate(records, start=1))
