"""`hf:NAME` or `hf:NAME:CONFIG`: a dataset of the Hugging Face hub with the columns that `pairs` describes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embedlab.data import pairs, textio
from embedlab.data.dataset import Dataset
from embedlab.data.textio import Row
from embedlab.errors import DataError


def load(location: str, *, name: str, split_by: str = "document") -> Dataset:
    """Download a dataset from the hub (or read a local folder of data files) and read it as pairs.

    If the dataset has several splits, they are kept. A single split is divided by groups, whatever its name.

    Args:
        location: `NAME` or `NAME:CONFIG`.
        name: the dataset's name.
        split_by: see `Dataset`.

    Raises:
        DataError: the dataset does not exist, cannot be downloaded, or lacks the columns. Line numbers count from 1
            within each split.
    """
    import datasets

    splits = _call(datasets.load_dataset, location)
    rows = [
        Row(line, {**record, **({"split": str(split)} if len(splits) > 1 else {})})
        for split, records in splits.items()
        for line, record in enumerate(records, start=1)
    ]
    if not rows:
        raise DataError(
            "the dataset has no rows", remedy="Choose another dataset or configuration.", file=f"hf:{location}"
        )
    return pairs.from_rows(rows, Path(f"hf:{location}"), name=name, split_by=split_by)


def source_fingerprint(location: str) -> str:
    """Hash the name and the revision that it resolves to, without downloading the data.

    Args:
        location: `NAME` or `NAME:CONFIG`.

    Returns:
        16 hex digits.
    """
    import datasets

    builder = _call(datasets.load_dataset_builder, location)
    return hashlib.sha256(f"{location}@{builder.hash}".encode()).hexdigest()[: textio.FINGERPRINT_LENGTH]


def _call(call: Callable[..., Any], location: str) -> Any:
    import datasets

    name, _, config = location.partition(":")
    try:
        return call(name, config or None)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        problem = f"the dataset cannot be loaded: {reason}"
        remedy = "Check the name and your internet connection, or save the pairs to a file and use pairs:FILE."
        raise DataError(problem, remedy=remedy, file=f"hf:{location}") from error
