"""`pairs:FILE`: pairs, triplets or graded pairs in a table (JSONL, JSON, CSV, TSV, Parquet, Excel), or in the format of
another tool (see `formats`).

| columns | meaning |
|---|---|
| query, positive | a query and its relevant document, or a list of them |
| … negative, negative_1, hard_negatives, … | hard negatives, one or a list: documents and, in training, triplets |
| … score, all 0 or 1 | 0: the document is not relevant; in training, a hard negative |
| … score, whole numbers from 0 to 10 | grades: 1 or more means relevant |
| … score, other numbers from 0 to 1 | a graded pair for training |
| text1, text2, score from 0 to 1, 5, 10 or 100 | a graded pair for training |
| … group | queries of the same group stay in the same split |
| … split | train, dev or test; without this column, splits are made by groups |

Upper and lower case do not matter in column names, `pair_rows.ALIASES` lists other accepted names, and a column such as
`label` (see `pair_rows.SCORE_NAMES`) is the score if it holds numbers or means relevance. Other columns become `fields`
of the query. A text that occurs several times is one query or one document. `pairs:FILE?query=COLUMN&positive=COLUMN`
names the two columns of a table that has other names.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from embedlab.data import beir, pair_rows, textio
from embedlab.data.collection import Collection
from embedlab.data.dataset import Dataset
from embedlab.data.formats import registry, table
from embedlab.data.textio import Row
from embedlab.errors import DataError


def load(
    location: str,
    *,
    name: str,
    split_by: str = "document",
    repair: bool = False,
    divide: bool = True,
    format: str = "",
    query: str = "",
    positive: str = "",
) -> Dataset:
    """Read a file of pairs as a dataset.

    Args:
        location: the file, or a folder in one of the formats.
        name: the dataset's name.
        split_by: see `Dataset`.
        divide: see `complete_splits`.
        repair: see `Collection`.
        format: name of the format; empty for the one that the content shows.
        query, positive: the columns of a table that hold queries and positives; empty for the usual names.

    Raises:
        DataError: the file is missing or malformed; names file, line and field.
    """
    path = textio.location_path(location)
    columns = {column: name for column, name in ((query, "query"), (positive, "positive")) if column}
    if query and query.strip().lower() == positive.strip().lower():
        remedy = "Name the column of the documents that answer as positive=COLUMN."
        raise DataError(f"'{query}' is named as query and as positive", remedy=remedy, file=path, field=query)
    if registry.is_beir(path):
        if columns:
            raise DataError("a BEIR folder has no columns to name", remedy=f"Write beir:{location}.", field="dataset")
        return beir.load(location, name=name, split_by=split_by, repair=repair, divide=divide)
    if columns:
        rows = pair_rows.with_columns(textio.read_rows(path), columns, path)
        collection = Collection.from_rows(rows, path, repair=repair, more_queries=table.MORE_QUERIES)
    else:
        collection = registry.collect(path, format, repair=repair)
    return collection.dataset(name, split_by=split_by, divide=divide)


def source_fingerprint(location: str) -> str:
    """Hash the file, or the files of the folder.

    Args:
        location: the file or folder.

    Returns:
        16 hex digits.
    """
    path = textio.location_path(location)
    if registry.is_beir(path):
        return beir.source_fingerprint(location)
    return textio.fingerprint(registry.files_of(path))


def from_rows(
    rows: Iterable[Row],
    file: Path,
    *,
    name: str,
    split_by: str = "document",
    repair: bool = False,
    divide: bool = True,
) -> Dataset:
    """Make a dataset from records with the columns described above.

    Args:
        rows: the records.
        file: the file that error messages name.
        name: the dataset's name.
        split_by: see `Dataset`.
        divide: see `complete_splits`.
        repair: see `Collection`.

    Raises:
        DataError: a record is malformed.
    """
    return Collection.from_rows(rows, file, repair=repair).dataset(name, split_by=split_by, divide=divide)
