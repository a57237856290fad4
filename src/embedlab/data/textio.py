"""Read JSONL, JSON, CSV, TSV, Parquet and Excel files, with errors that name file, line and field.

The same table gives the same records in every format. Numbers, dates and truth values of typed formats are read as the
text that pandas writes into a CSV file (3.0, 2024-01-31, True), and NaN is an empty cell. In Excel, every number is
read as text (3), because a column may hold both. In JSON and Parquet, a number where a text belongs is an error.
"""

from __future__ import annotations

import ast
import csv
import gzip
import hashlib
import json
import logging
import math
import re
import sys
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from embedlab.data import spreadsheet
from embedlab.errors import DataError
from embedlab.io import sha256_of

if TYPE_CHECKING:
    import pyarrow

FINGERPRINT_LENGTH = 16  # hex characters
INDEX_COLUMNS = ("", "unnamed: 0", "__index_level_0__")  # pandas writes its row numbers into columns of these names
ROWS_PER_BLOCK = 1 << 14  # records of an Arrow table that are made at a time
# First bytes of files that often have the suffix of a text file -> what they are, and what to do.
SIGNATURES = {
    b"\x1f\x8b": ("a gzip file", "Add .gz to its name."),
    b"PK\x03\x04": ("an Excel or ZIP file", "Give an Excel file the suffix .xlsx, or unpack it."),
    b"\xd0\xcf\x11\xe0": ("an old Excel or Word file", "Save it as .xlsx."),
    b"PAR1\x15": ("a Parquet file", "Give it the suffix .parquet."),
    b"%PDF-": ("a PDF file", "Give it the suffix .pdf, and write docs:FILE."),
}
DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars", " ": "spaces"}

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_BLANK_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"  # shown as blanks, although their category is a letter or a symbol
_BLANK_CATEGORIES = ("Cc", "Cf", "Zs", "Zl", "Zp")

csv.field_size_limit(sys.maxsize)  # a cell may be a whole manual

logger = logging.getLogger(__name__)


class Row(NamedTuple):
    """One record of a file.

    Attributes:
        line: its line, from 1; in JSON and Parquet its record number, in Excel its row.
        values: column -> value.
        file: the file, if the records of a dataset come from several.
        names: column -> its name in the file, where that differs; errors use it.
    """

    line: int
    values: dict[str, Any]
    file: Path | None = None
    names: Mapping[str, str] | None = None


def read_rows(path: Path, *, columns: Sequence[str] = ()) -> list[Row]:
    """Read every record of a JSONL, JSON, CSV, TSV, Parquet or Excel file.

    Text files may be gzipped and may start with a BOM. A JSON file is a list of objects.

    Args:
        path: the file; its suffix determines the format.
        columns: names for a CSV or TSV file without a header. It has none if its first record has as many cells as
            these names, and the last cell is a number.

    Raises:
        DataError: the file is missing, empty, of another format, not UTF-8, or malformed.
    """
    readers: dict[str, Callable[[Path], Iterator[Row]]] = {
        ".jsonl": _jsonl_rows,
        ".json": _json_rows,
        ".csv": lambda file: _delimited_rows(file, ",", columns),
        ".tsv": lambda file: _delimited_rows(file, "\t", columns),
        ".parquet": _parquet_rows,
        ".xlsx": lambda file: (Row(line, plain(values)) for line, values in spreadsheet.records(file)),
    }
    file = find_file(path)
    suffix = format_of(path)
    if suffix in (".parquet", ".xlsx") and file.suffix.lower() == ".gz":
        raise DataError(f"a compressed {suffix} file is not read", remedy="Unpack it first: gunzip FILE.", file=file)
    if suffix not in readers:
        problem = f"unsupported file type '{suffix}'" if suffix else "the file name does not say what format it has"
        raise DataError(problem, remedy=f"Save it as one of {', '.join(readers)}.", file=path)
    if rows := list(readers[suffix](file)):
        return rows
    raise DataError("the file has no rows", remedy="Add at least one record.", file=path)


def format_of(path: Path) -> str:
    """Return the suffix that names a file's format, in lower case and without `.gz`."""
    return (Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix).lower()


def location_path(location: str) -> Path:
    """Return the path of a spec's location; `~` is the home folder.

    Raises:
        DataError: it names the home folder of an unknown user.
    """
    try:
        return Path(location).expanduser()
    except RuntimeError as error:
        raise DataError(f"{error}", remedy="Check the path.", file=location) from error


def path_exists(path: Path) -> bool:
    """Whether there is a file or folder at this path; False for what cannot be a path."""
    try:
        return path.expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # too long, an unknown user's home, NUL
        return False


def find_file(path: Path) -> Path:
    """Return `path`, or `path` + ".gz" if only that file exists.

    Raises:
        DataError: neither exists.
    """
    try:
        for candidate in (path, path.with_name(path.name + ".gz")):
            if candidate.is_file():
                return candidate
        is_folder = path.is_dir()
    except (OSError, ValueError) as error:  # names that are too long, or contain NUL
        raise DataError(f"this file cannot be read: {error}", remedy="Check the path.", file=path) from error
    if is_folder:
        remedy = "Name a file in it, or write beir:FOLDER, docs:FOLDER or hf:FOLDER."
        raise DataError("this is a folder", remedy=remedy, file=path)
    remedy = "Check the path." if path.is_absolute() else f"Check the path. It was searched at {path.absolute()}."
    raise DataError("this file does not exist", remedy=remedy, file=path)


def rename_columns(row: Row, aliases: Mapping[str, str], file: Path) -> Row:
    """Return the record with column names in lower case, without surrounding white space, and without aliases.

    Columns with the row numbers that pandas writes are left out.

    Args:
        row: the record.
        aliases: other name -> name.
        file: the file that the error names.

    Raises:
        DataError: two columns get the same name.
    """
    values: dict[str, Any] = {}
    for column, value in row.values.items():
        key = column_name(column, aliases)
        if key in INDEX_COLUMNS:
            continue
        if key in values:
            raise error_at(row, str(column), file, f"two columns are read as '{key}'", "Remove or rename one of them.")
        values[key] = value
    return row._replace(values=values)


def column_name(column: object, aliases: Mapping[str, str]) -> str:
    """Return a column's name in lower case, without surrounding white space; for an alias the name that it stands for.

    Args:
        column: its name in the file.
        aliases: other name -> name.
    """
    key = str(column).strip().lower()
    return aliases.get(key, key)


def is_empty(value: object) -> bool:
    """Whether a cell holds nothing: None, no visible character, or an empty list."""
    return value is None or (isinstance(value, str) and not is_visible(value)) or value == []


def is_visible(text: str) -> bool:
    """Whether a text has a character that can be seen."""
    return any(
        unicodedata.category(character) not in _BLANK_CATEGORIES and character not in _BLANK_LETTERS
        for character in text
    )


def text_of(row: Row, field: str, file: Path) -> str:
    """Return the text in a field, without surrounding white space.

    Args:
        row: the record.
        field: the column.
        file: the file that the error names.

    Raises:
        DataError: the field is missing, not a string, empty, not valid Unicode, or a list written as a string.
    """
    if field not in row.values:
        columns = ", ".join(map(str, row.values))
        raise error_at(row, field, file, f"'{field}' is missing", f"Add it to the record, which has: {columns}.")
    return checked_text(row.values[field], row, field, file)


def checked_text(value: object, row: Row, field: str, file: Path) -> str:
    """Return a value that must be a text, without surrounding white space.

    Args:
        value: the value.
        row, field, file: the place that errors name.

    Raises:
        DataError: as for `text_of`.
    """
    if is_empty(value) or isinstance(value, float) and math.isnan(value):
        raise error_at(row, field, file, f"'{field}' is empty", "Fill it in or remove the record.")
    if not isinstance(value, str):
        problem = f"'{field}' must be a string, got {short(value)}"
        raise error_at(row, field, file, problem, _text_remedy(value, row.file or file))
    if "\0" in value or _HALF_PAIR.search(value):
        problem = "a NUL character" if "\0" in value else "half of a surrogate pair"
        raise error_at(row, field, file, f"'{field}' contains {problem}", "Save the text as valid Unicode.")
    text = value.strip()
    if text[0] == "[" and text[-1] == "]" and _is_list(text):
        problem = f"'{field}' is a list that was written as a text: {short(text)}"
        remedy = "Save the file as JSONL or Parquet, or write one text per column."
        raise error_at(row, field, file, problem, remedy)
    return text


def _text_remedy(value: object, file: Path) -> str:
    """How to write a value as a text in the format of a file."""
    if not isinstance(value, int | float):
        return "Write it as a string."
    if format_of(file) in (".json", ".jsonl"):
        return f'Write it in quotes: "{json.dumps(value)}".'
    return "Store the column as text, in pandas with astype(str)."


def _is_list(text: str) -> bool:
    """Whether a text is a Python or JSON list of strings, as pandas writes it into a CSV file."""
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)
    return False


def id_of(row: Row, field: str, file: Path) -> str:
    """Return the identifier in a field: a string or a whole number.

    Raises:
        DataError: as for `text_of`, or the identifier is a decimal number.
    """
    value = row.values.get(field)
    if isinstance(value, float) and not math.isnan(value):
        problem = f"'{field}' must be a string or a whole number, got {value!r}"
        remedy = "pandas writes whole numbers as decimals if some cells are empty: fill them in, or use strings."
        raise error_at(row, field, file, problem, remedy)
    return str(value) if isinstance(value, int) else text_of(row, field, file)


def name_of(row: Row, field: str, file: Path) -> str:
    """Return the name of a group or class: a string, a number or a truth value, as in a CSV file.

    Raises:
        DataError: as for `text_of`.
    """
    value = row.values.get(field)
    if isinstance(value, int | float) and not (isinstance(value, float) and math.isnan(value)):
        return str(value)
    return text_of(row, field, file)


def number_of(value: object) -> float | None:
    """Return a cell as a number; true and false are 1 and 0. None if it is not a finite number."""
    if isinstance(value, str):
        text = value.strip().lower()
        text = {"true": "1", "false": "0"}.get(text, text)
        value = float(text) if _NUMBER.fullmatch(text) else None
    try:
        number = float(value) if isinstance(value, int | float | Decimal) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def number_remedy(value: object, remedy: str) -> str:
    """Return how to write a number that could not be read.

    Args:
        value: the value that is not a number.
        remedy: what to say if nothing more is known.
    """
    if isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value.strip()):
        return f"Write it with a decimal point: {value.strip().replace(',', '.')}."
    return remedy


def metadata_of(row: Row, reserved: Iterable[str]) -> dict[str, str]:
    """Return the scalar values of a record as text, including those of a nested `metadata` object.

    Args:
        row: the record.
        reserved: fields to leave out.
    """
    nested = row.values.get("metadata")
    values = {**(nested if isinstance(nested, dict) else {}), **row.values}
    reserved = {*reserved, *INDEX_COLUMNS} - ({"metadata"} if isinstance(nested, str) else set())
    return {
        str(key): str(value)
        for key, value in values.items()
        if key not in reserved and isinstance(value, str | int | float) and not _is_nan(value) and str(value)
    }


def report_unused(rows: Iterable[Row], reserved: Iterable[str], file: Path) -> None:
    """Warn of columns whose lists or objects cannot become metadata.

    Args:
        rows: the records.
        reserved: fields that are read in another way.
        file: the file that the warning names.
    """
    unused: dict[str, None] = {}
    for row in rows:
        nested = row.values.get("metadata")
        for key, value in {**(nested if isinstance(nested, dict) else {}), **row.values}.items():
            if key not in reserved and not isinstance(value, str | int | float | None) and value:
                unused[str(key)] = None
    if unused:
        logger.warning("%s: these columns hold lists or objects and are not read: %s", file, ", ".join(unused))


def fingerprint(files: Iterable[Path]) -> str:
    """Hash the bytes of `files`, in this order: the first 16 hex digits of a SHA-256."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(bytes.fromhex(sha256_of(path)))  # in blocks: a corpus may be larger than the memory
    return digest.hexdigest()[:FINGERPRINT_LENGTH]


def parse_json(text: str, file: Path, line: int | None = None) -> Any:
    """Parse JSON; NaN, which is not JSON but is often written, becomes None.

    Args:
        text: the JSON text.
        file, line: the place that errors name.

    Raises:
        DataError: it is malformed, too deeply nested, has a number that is too long, or an object names a key twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in pairs:
            if key in values:
                problem = f"the key '{key}' occurs twice in one object"
                raise DataError(problem, remedy="Remove or rename one of them.", file=file, line=line, field=key)
            values[key] = value
        return values

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=lambda name: _plain(float(name)))
    except json.JSONDecodeError as error:
        problem, remedy = f"invalid JSON: {error.msg}", "Check the quotes, commas and brackets."
        if line is None and error.msg == "Extra data":
            remedy = "If every line is an object, name the file *.jsonl."
        raise DataError(problem, remedy=remedy, file=file, line=line or error.lineno) from error
    except RecursionError:
        raise _too_deep(file, line) from None
    except ValueError as error:
        raise DataError("a number has too many digits", remedy="Write it as a string.", file=file, line=line) from error


def _too_deep(file: Path, line: int | None) -> DataError:
    remedy = "Write one flat object per record."
    return DataError("the JSON is nested too deeply", remedy=remedy, file=file, line=line)


def read_text(path: Path) -> str:
    """Read a text file as UTF-8; it may be gzipped and may start with a BOM.

    Raises:
        DataError: the file is missing, damaged or not UTF-8.
    """
    return "".join(line for _, line in lines(find_file(path)))


def plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record of a typed format with the values that the other formats give.

    Args:
        record: column -> value. Times at midnight become dates.
    """
    return {str(column): _plain(value) for column, value in record.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return plain(value)
    if isinstance(value, bytes):  # some writers do not mark texts as such
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value
    if isinstance(value, datetime):
        at_midnight = value.time() == time.min and value.tzinfo is None
        return str(value.date()) if at_midnight else str(value)
    if isinstance(value, timedelta):
        import pandas as pd

        return str(pd.Timedelta(value))
    return str(value) if isinstance(value, date | time | Decimal | UUID) else value


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def short(value: object) -> str:
    """Return a value as a message shows it: at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Give the errors of the block a file, if they name none."""
    try:
        yield
    except DataError as error:
        if error.file is not None:
            raise
        raise type(error)(error.problem, remedy=error.remedy, file=file, line=error.line, field=error.field) from error


def error_at(row: Row, field: str, file: Path, problem: str, remedy: str) -> DataError:
    """Return an error that names the place of a cell, and its column as the file does.

    Args:
        row, field: the cell.
        file: the file, unless the record names its own.
        problem, remedy: see `EmbedlabError`.
    """
    name = (row.names or {}).get(field, field)
    problem = problem.replace(f"'{field}'", f"'{name}'")
    return DataError(problem, remedy=remedy, file=row.file or file, line=row.line, field=name)


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line number and text, decoded line by line so that an encoding error names its line.

    Args:
        path: an existing text file; it may be gzipped and may start with a BOM.

    Raises:
        DataError: the file is damaged or not UTF-8.
    """
    number = 0
    raw = b""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if number == 1:
                    _refuse_other_formats(path, raw)
                if b"\r" in raw.rstrip(b"\r\n") and number == 1:
                    _refuse_bare_returns(path, raw)
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        encoding = " but UTF-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else ""
        problem, remedy = f"this line is not UTF-8{encoding}", "Save the file as UTF-8."
        if format_of(path) == ".csv":
            remedy = "Save the file as UTF-8 (in Excel: CSV UTF-8), or as .xlsx."
        raise DataError(problem, remedy=remedy, file=path, line=number) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"damaged gzip file: {error}", remedy="Compress it again.", file=path, line=number + 1
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"this file cannot be read: {reason}", remedy="Check its permissions.", file=path) from error


def _refuse_other_formats(path: Path, start: bytes) -> None:
    """Raise an error for a file that is not a text file, although its suffix says so."""
    for mark, (kind, remedy) in SIGNATURES.items():
        if start.startswith(mark):
            raise DataError(f"this is not a text file but {kind}", remedy=remedy, file=path)


def _refuse_bare_returns(path: Path, first_line: bytes) -> None:
    """Raise an error for the line ends of old Mac programs, which would make one line of the whole file."""
    if not first_line.endswith(b"\n") and b'"' not in first_line.partition(b"\r")[0]:
        problem, remedy = "the lines end with CR alone", "Save the file with the line ends LF or CRLF."
        raise DataError(problem, remedy=remedy, file=path, line=1)


def _jsonl_rows(path: Path) -> Iterator[Row]:
    for number, line in lines(path):
        if not line.strip():
            continue
        values = parse_json(line, path, number)
        if not isinstance(values, dict):
            remedy = 'Write one JSON object per line, for example {"query": "…", "positive": "…"}.'
            if isinstance(values, list) and all(isinstance(item, dict) for item in values):
                remedy = "A list of all records is a .json file: rename it."
            raise DataError("this line is not a JSON object", remedy=remedy, file=path, line=number)
        if "\\u" in line:
            _refuse_half_pairs(Row(number, values), path)
        yield Row(number, values)


def _refuse_half_pairs(row: Row, path: Path) -> None:
    """Raise an error for text that no file can store; JSON can write it as an escape."""
    for key, value in row.values.items():
        try:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        except RecursionError:
            raise _too_deep(path, row.line) from None
        if _HALF_PAIR.search(key) or _HALF_PAIR.search(text):
            field = key.encode(errors="replace").decode()
            problem = f"'{field}' contains half of a surrogate pair"
            raise error_at(row, field, path, problem, "Save the text as valid Unicode.")


def _json_rows(path: Path) -> Iterator[Row]:
    yield from rows_of_json(parse_json(read_text(path), path), path)


def rows_of_json(records: Any, path: Path) -> Iterator[Row]:
    """Yield the records of a parsed JSON file.

    Args:
        records: the content.
        path: the file that errors name.

    Raises:
        DataError: it is not a list of objects, or a text is not valid Unicode.
    """
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        remedy = 'Write [{"query": "…", "positive": "…"}, …], or one object per line in a .jsonl file.'
        raise DataError("the file is not a JSON list of objects", remedy=remedy, file=path)
    for number, record in enumerate(records, start=1):
        row = Row(number, record)
        _refuse_half_pairs(row, path)
        yield row


def _delimited_rows(path: Path, delimiter: str, columns: Sequence[str]) -> Iterator[Row]:
    reader = csv.reader((line for _, line in lines(path)), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            # A quoted cell may contain line breaks, so a record starts on the line after the end of the previous one.
            start, line = line, reader.line_num + 1
            if not cells or (start == 1 and cells == ["sep=", ""]):  # Excel can write the delimiter into line 1
                continue
            if header is None:
                header = _header(cells, path, start, delimiter, columns)
                if header != [cell.strip() for cell in cells]:
                    yield Row(start, dict(zip(header, cells, strict=True)))
            elif not any(map(str.strip, cells)):  # spreadsheet programs write empty rows
                continue
            elif len(cells) == len(header):
                yield Row(start, dict(zip(header, cells, strict=True)))
            else:
                problem = f"expected {len(header)} cells as in the header, got {len(cells)}"
                raise DataError(problem, remedy="Quote cells that contain the delimiter.", file=path, line=start)
    except csv.Error as error:
        remedy = 'Check the quotes: write a quote inside a quoted cell twice, as "".'
        raise DataError(f"invalid CSV: {error}", remedy=remedy, file=path, line=line) from error


def _header(cells: list[str], path: Path, line: int, delimiter: str, columns: Sequence[str]) -> list[str]:
    """The column names; `columns` if this first record is data."""
    if columns and len(cells) == len(columns) and number_of(cells[-1]) is not None:
        return list(columns)
    names = [cell.strip() for cell in cells]
    other = next((mark for mark in DELIMITERS if mark in names[0] and mark != delimiter), None)
    if len(names) == 1 and other and (other != " " or delimiter == "\t"):
        problem = f"the cells are separated by {DELIMITERS[other]}: the header is {short(names[0])}"
        remedy = f"Save the file with {DELIMITERS[delimiter]} between the cells"
        remedy += ", or as .xlsx." if delimiter == "," else "."
        raise DataError(problem, remedy=remedy, file=path, line=line)
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        problem = f"the column '{repeated}' occurs twice" if repeated else "two columns have no name"
        raise DataError(problem, remedy="Name or remove them.", file=path, line=line, field=repeated or None)
    return names


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow.parquet

    repeated: set[str] = set()
    try:
        # Not `read_table`, which takes folder names such as `year=2024` for columns.
        table = pyarrow.parquet.ParquetFile(path, page_checksum_verification=True).read()
        repeated = {name for name in table.column_names if table.column_names.count(name) > 1}
        yield from () if repeated else rows_of_table(table)
    except Exception as error:  # a damaged file can raise errors of many classes
        raise DataError("damaged Parquet file", remedy="Write the file again.", file=path) from error
    if repeated:
        name = min(repeated)
        raise DataError(f"the column '{name}' occurs twice", remedy="Rename one of them.", file=path, field=name)


def rows_of_table(table: pyarrow.Table) -> Iterator[Row]:
    """Yield the records of an Arrow table with the values that the other formats give.

    The table stays as it is, and the strings of a few records exist at a time.

    Args:
        table: its column names differ.
    """
    names = table.column_names
    times_of = {name: _times(table.column(name)) for name in names}
    for start in range(0, table.num_rows, ROWS_PER_BLOCK):
        block = table.slice(start, ROWS_PER_BLOCK)
        columns = [_column_values(block.column(name), times_of[name], start) for name in names]
        for number, values in enumerate(zip(*columns, strict=True), start + 1):
            yield Row(number, {name: _plain(value) for name, value in zip(names, values, strict=True)})


def _times(column: pyarrow.ChunkedArray) -> list[str | None] | None:
    """The times of a column as pandas writes them, which depends on all of it; None for other values."""
    import pyarrow.types

    if not (pyarrow.types.is_timestamp(column.type) or pyarrow.types.is_duration(column.type)):
        return None
    text = column.to_pandas().to_csv(index=False, header=False, na_rep="")
    return [value.strip('"') or None for value in text.splitlines()]


def _column_values(block: pyarrow.ChunkedArray, times: list[str | None] | None, start: int) -> Sequence[Any]:
    """The values of a block of a column that starts at a row; short decimals stay short."""
    import pyarrow.types

    if times is not None:
        return times[start : start + len(block)]
    if pyarrow.types.is_float32(block.type) or pyarrow.types.is_float16(block.type):
        return [None if value != value else float(str(value)) for value in block.to_numpy()]
    values: list[Any] = block.to_pylist()
    return values
