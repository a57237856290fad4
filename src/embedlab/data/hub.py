"""`hf:NAME` or `hf:NAME:CONFIG`: a dataset of the Hugging Face hub with the columns that `pairs` describes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedlab.data import pairs, textio
from embedlab.data.dataset import SPLITS, Dataset, split_name
from embedlab.data.formats import saved_dataset
from embedlab.data.formats.base import Source
from embedlab.data.textio import Row
from embedlab.errors import DataError

if TYPE_CHECKING:
    import pyarrow

FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


def load(location: str, *, name: str, split_by: str = "document", repair: bool = False, divide: bool = True) -> Dataset:
    """Download a dataset from the hub (or read a local folder of data files) and read it as pairs.

    If the dataset has several splits, they are kept. A single split is divided by groups, whatever its name.

    Args:
        location: `NAME` or `NAME:CONFIG`, or a folder.
        name: the dataset's name.
        split_by: see `Dataset`.
        divide: see `complete_splits`.
        repair: see `pairs.from_rows`.

    Raises:
        DataError: the dataset does not exist, cannot be downloaded, or lacks the columns. Line numbers count from 1
            within each split.
    """
    source = Path(f"hf:{location}")
    saved = Source(textio.location_path(location))
    if saved_dataset.FORMAT.matches(saved):  # the library reads it with another function than folders of files
        contents = saved_dataset.FORMAT.read(saved)
        return pairs.from_rows(contents.rows, source, name=name, split_by=split_by, repair=repair, divide=divide)
    rows = _local_rows(location) if _local_files(location) else _hub_rows(location, source)
    if not rows:
        raise DataError("the dataset has no rows", remedy="Choose another dataset or configuration.", file=source)
    return pairs.from_rows(rows, source, name=name, split_by=split_by, repair=repair, divide=divide)


def source_fingerprint(location: str) -> str:
    """Hash the name and the revision that it resolves to, without downloading the data; of a folder, its files.

    Args:
        location: `NAME` or `NAME:CONFIG`, or a folder.

    Returns:
        16 hex digits.
    """
    if files := _local_files(location):
        return textio.fingerprint(files.values())
    if saved_dataset.FORMAT.matches(Source(textio.location_path(location))):
        return pairs.source_fingerprint(location)
    builder = _call("load_dataset_builder", location)
    return hashlib.sha256(f"{location}@{builder.hash}".encode()).hexdigest()[: textio.FINGERPRINT_LENGTH]


def _local_files(location: str) -> dict[str, Path]:
    """Split -> file, of a folder with one plain file per split; empty for anything else.

    The library would guess types: of texts such as 007, NA and 2024-01-31 it makes numbers, gaps and times.
    """
    folder = textio.location_path(location)
    if not textio.path_exists(folder) or not folder.is_dir():
        return {}
    files = [path for path in sorted(folder.iterdir()) if not path.name.startswith((".", "_")) and path.suffix != ".md"]
    splits = {path.name.partition(".")[0]: path for path in files}
    plain = all(path.is_file() and textio.format_of(path) in FORMATS for path in files)
    named = all(split_name(split) in SPLITS for split in splits)
    return splits if plain and named and len(splits) == len(files) else {}


def _local_rows(location: str) -> list[Row]:
    files = _local_files(location)
    rows = []
    for split, path in files.items():
        for row in textio.read_rows(path):
            rows.append(_with_split(row, split if len(files) > 1 else "", path))
    return rows


def _hub_rows(location: str, source: Path) -> list[Row]:
    splits = _call("load_dataset", location)
    tables = {str(split): _table(records, location) for split, records in splits.items()}
    return [
        _with_split(row, split if len(tables) > 1 else "", Path(f"{source} ({split})"))
        for split, table in tables.items()
        for row in textio.rows_of_table(table)
    ]


def _with_split(row: Row, split: str, file: Path) -> Row:
    """The row with the name of its split, which a column of the same name must not contradict."""
    if not split:
        return row._replace(file=file)
    for column, value in row.values.items():
        named = str(value).strip().lower()
        if str(column).strip().lower() == "split" and split_name(named) != split_name(split):
            problem, remedy = (
                f"the column says '{value}', but the record is in the split '{split}'",
                "Remove the column.",
            )
            raise textio.error_at(row, str(column), file, problem, remedy)
    values = {column: value for column, value in row.values.items() if str(column).strip().lower() != "split"}
    return Row(row.line, {**values, "split": split}, file)


def _table(records: Any, location: str) -> pyarrow.Table:
    try:
        table: pyarrow.Table = records.with_format("arrow")[:]
        return table
    except Exception as error:  # of the library that decodes the column
        raise _cannot_load(location, error) from error


def _call(function: str, location: str) -> Any:
    import datasets

    name, _, config = location.partition(":")
    try:
        return getattr(datasets, function)(name, config or None)
    except Exception as error:  # the library and those that it calls have no common class
        raise _cannot_load(location, error) from error


def _cannot_load(location: str, error: Exception) -> DataError:
    reason = str(error).partition("\n")[0] or type(error).__name__
    problem = f"the dataset cannot be loaded: {reason}"
    remedy = "Check the name and your internet connection, or save the pairs to a file and use pairs:FILE."
    return DataError(problem, remedy=remedy, file=f"hf:{location}")
