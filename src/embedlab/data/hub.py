"""Datasets of the Hugging Face hub with the columns of `pairs`: `hf:NAME` or `hf:NAME:CONFIG`."""

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
    """The hub dataset (or a local folder of data files) read as pairs.

    Its own splits are kept when it has several; a single one is split by groups, whatever it is called.

    Raises:
        DataError: it cannot be reached, does not exist, or has other columns; lines count from 1 in each split.
    """
    import datasets

    parts = _reach(datasets.load_dataset, location)
    rows = [
        Row(line, {**record, **({"split": str(split)} if len(parts) > 1 else {})})
        for split, part in parts.items()
        for line, record in enumerate(part, start=1)
    ]
    if not rows:
        raise DataError("the dataset has no rows", remedy="Choose another one.", file=f"hf:{location}")
    return pairs.from_rows(rows, Path(f"hf:{location}"), name=name, split_by=split_by)


def source_fingerprint(location: str) -> str:
    """Hash of the name and of the revision it resolves to, without loading the data."""
    import datasets

    builder = _reach(datasets.load_dataset_builder, location)
    return hashlib.sha256(f"{location}@{builder.hash}".encode()).hexdigest()[: textio.FINGERPRINT_LENGTH]


def _reach(call: Callable[..., Any], location: str) -> Any:  # noqa: ANN401 - whatever `call` returns
    import datasets

    name, _, config = location.partition(":")
    try:
        return call(name, config or None)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        problem = f"the dataset cannot be loaded: {reason}"
        remedy = "Check the name and the connection, or save the pairs to a file and use pairs:FILE."
        raise DataError(problem, remedy=remedy, file=f"hf:{location}") from error
