"""Read and write a sheet of an Excel file (.xlsx) with openpyxl."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedlab.errors import DataError

if TYPE_CHECKING:
    from openpyxl.cell import Cell
    from openpyxl.worksheet.worksheet import Worksheet

MAX_CELL = 32_767  # characters that Excel can show in a cell
MAX_ROWS = 1_048_576
LONGEST_NUMBER = 1e15

logger = logging.getLogger(__name__)


def records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield row number and column -> value of every row below the header, of the first sheet that has rows.

    The first row with a value is the header. Rows without any value are skipped. Numbers become texts with at most 15
    digits: who types 4711 into a cell cannot tell whether it is a number or a text.

    Args:
        path: the file.

    Raises:
        DataError: the file is damaged, no sheet has rows, a column name is missing or repeated, or a cell holds an
            error or a number that is too long.
    """
    header: list[str] | None = None
    for number, cells in enumerate(_sheet(path).iter_rows(), start=1):
        values = [_value(cell, path) for cell in cells]
        if _is_blank(values):
            continue
        if header is None:
            header = _header(values, path, number)
            continue
        for cell in cells:
            if cell.data_type == "e":
                remedy = "Correct the formula, or write its value."
                raise DataError(f"cell {cell.coordinate} holds the error {cell.value}", remedy=remedy, file=path)
        yield number, {name: value for name, value in zip(header, values, strict=False) if name}


def _value(cell: Cell, path: Path) -> Any:
    """The value of a cell, a number as text with the 15 digits that Excel shows: 4711, 0.5, 1E-07."""
    if not isinstance(cell.value, int | float):
        return cell.value
    if isinstance(cell.value, float) and abs(cell.value) >= LONGEST_NUMBER:
        problem = f"cell {cell.coordinate} holds a number of more than 15 digits, of which Excel keeps only 15"
        raise DataError(problem, remedy="Format the column as text, then enter the numbers again.", file=path)
    text = f"{cell.value:.15G}" if isinstance(cell.value, float) else str(cell.value)
    is_padded = text.isdecimal() and set(cell.number_format) == {"0"}  # the format 00000 shows 471 as 00471
    return text.zfill(len(cell.number_format)) if is_padded else text


def _sheet(path: Path) -> Worksheet:
    """The first sheet that has rows; says which one is read if that is not obvious."""
    import openpyxl

    try:
        # Not read_only: that mode trusts the size that some programs write into the file.
        sheets = openpyxl.load_workbook(path, data_only=True).worksheets
    except Exception as error:  # a damaged file raises errors of zipfile, XML parsers and openpyxl
        raise DataError("damaged Excel file", remedy="Save it again as .xlsx.", file=path) from error
    filled = [sheet for sheet in sheets if _has_rows(sheet)]
    if not filled:
        raise DataError("no sheet has rows", remedy="Add at least one record below the column names.", file=path)
    if unread := [sheet.title for sheet in filled[1:]]:
        logger.warning("%s: only the sheet '%s' is read, not %s", path, filled[0].title, ", ".join(unread))
    elif filled[0] is not sheets[0]:
        logger.warning("%s: read the sheet '%s', the only one with rows", path, filled[0].title)
    return filled[0]


def _has_rows(sheet: Worksheet) -> bool:
    """Whether a sheet has a row with a value below its header."""
    filled = (values for values in sheet.iter_rows(values_only=True) if not _is_blank(values))
    return len(list(islice(filled, 2))) == 2


def _is_blank(values: Sequence[Any]) -> bool:
    return all(value is None or value == "" for value in values)


def _header(values: Sequence[Any], path: Path, line: int) -> list[str]:
    """The column names; the empty ones at the end belong to no column."""
    names = ["" if value is None else str(value).strip() for value in values]
    while names and not names[-1]:
        names.pop()
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        problem = f"the column '{repeated}' occurs twice" if repeated else "two columns have no name"
        raise DataError(problem, remedy="Name or remove them.", file=path, line=line, field=repeated or None)
    return names


def write(path: Path, rows: Sequence[Mapping[str, Any]], *, file: Path | None = None) -> None:
    """Write rows as the only sheet of an Excel file. Texts stay texts, also if they look like formulas.

    Args:
        path: the file.
        rows: column -> value; the columns of all rows make the header.
        file: the file that errors name, if `path` is temporary.

    Raises:
        DataError: a text or the table is too long for Excel, or a text has a character that it cannot store.
    """
    import openpyxl
    from openpyxl.utils.exceptions import IllegalCharacterError

    file = file or path
    if len(rows) >= MAX_ROWS:
        problem = f"{len(rows):,} rows are more than Excel can hold"
        raise DataError(problem, remedy="Write a .jsonl or .parquet file.", file=file)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    cells: list[Sequence[Any]] = [columns, *([row.get(column) for column in columns] for row in rows)]
    for line, values in enumerate(cells, start=1):
        for position, value in enumerate(values, start=1):
            if isinstance(value, str) and len(value) > MAX_CELL:
                problem = f"a text has {len(value):,} characters, and a cell holds {MAX_CELL:,}"
                remedy = "Write a .jsonl or .parquet file."
                raise DataError(problem, remedy=remedy, file=file, line=line, field=columns[position - 1])
            cell = sheet.cell(line, position)
            try:
                cell.value = value
            except IllegalCharacterError:
                problem, remedy = "a text has a control character", "Remove it, or write a .jsonl or .parquet file."
                raise DataError(problem, remedy=remedy, file=file, line=line, field=columns[position - 1]) from None
            if isinstance(value, str):
                cell.data_type = "s"
    book.save(path)
