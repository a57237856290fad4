"""A folder that `datasets.Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote, with the columns of `pairs`."""

from __future__ import annotations

from pathlib import Path

from embedlab.data import textio
from embedlab.data.dataset import split_name
from embedlab.data.formats import table
from embedlab.data.formats.base import Contents, Export, Format, Source
from embedlab.data.textio import Row
from embedlab.errors import DataError

SINGLE, SEVERAL = "state.json", "dataset_dict.json"


def _matches(source: Source) -> bool:
    is_folder = textio.path_exists(source.path) and source.path.is_dir()
    return is_folder and any((source.path / name).is_file() for name in (SINGLE, SEVERAL))


def _read(source: Source) -> Contents:
    import datasets

    _refuse_empty(source.path)
    try:
        loaded = datasets.load_from_disk(str(source.path))
        parts = {"": loaded} if isinstance(loaded, datasets.Dataset) else dict(loaded)
        tables = {str(split): section.with_format("arrow")[:] for split, section in parts.items()}
    except Exception as error:  # of the library and those that it calls
        reason = str(error).partition("\n")[0] or type(error).__name__
        problem = f"this saved dataset cannot be read: {reason}"
        raise DataError(problem, remedy="Save it again with save_to_disk.", file=source.path) from error
    rows = [
        _with_split(row, split, source.path)
        for split, content in tables.items()
        for row in textio.rows_of_table(content)
    ]
    if rows:
        return Contents(rows)
    raise DataError("the dataset has no rows", remedy="Save one with rows.", file=source.path)


def _refuse_empty(path: Path) -> None:
    """Raise an error for a dataset or a split without rows: it has no data files, and the library cannot read it."""
    states = (state for name in (SINGLE, f"*/{SINGLE}") for state in sorted(path.glob(name)))
    folder = next((state.parent for state in states if not any(state.parent.glob("*.arrow"))), None)
    if folder is not None:
        if folder == path:
            raise DataError("this dataset has no rows", remedy="Save one with rows.", file=folder)
        raise DataError("this split has no rows", remedy="Save it without this split.", file=folder)


def _with_split(row: Row, split: str, folder: Path) -> Row:
    if not split or "split" in row.values:
        return row
    return Row(row.line, {**row.values, "split": split_name(split)}, folder / split)


def _write(export: Export, path: Path) -> list[str]:
    import datasets

    similar = bool(export.similarities)
    records = table.similarity_records(export, "text") if similar else table.pair_records(export, nested=True)
    rows = table.uniform(records)
    splits = dict.fromkeys(str(row.get("split") or "") for row in rows)
    if splits.keys() == {""}:
        datasets.Dataset.from_list(rows).save_to_disk(str(path))
        return []
    parts = {
        split: datasets.Dataset.from_list(
            [{name: value for name, value in row.items() if name != "split"} for row in rows if row["split"] == split]
        )
        for split in splits
    }
    datasets.DatasetDict(parts).save_to_disk(str(path))
    return []


FORMAT = Format("datasets", "saved Hugging Face dataset", _matches, _read, _write, table.PAIRS.holds)
