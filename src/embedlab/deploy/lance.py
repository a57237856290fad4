"""Export a version to LanceDB, an embedded vector database whose searches can be filtered by metadata.

The table is named after the space, so a search with another model's vectors fails instead of returning nonsense.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab.deploy.exported import columns_of, name_of, no_vectors, rows_of
from embedlab.deploy.serve import Served
from embedlab.deploy.space import Space
from embedlab.errors import EmbedlabError, ParameterError, StorageError
from embedlab.io import confined, sha256_of, write_atomic

if TYPE_CHECKING:
    import pyarrow

CHECKSUMS = ".sha256.json"


def export_lance(
    served: Served,
    folder: Path,
    texts: Mapping[str, str],
    fields: Mapping[str, Mapping[str, str]] | None = None,
) -> int:
    """Write every document of a version into a LanceDB table, replacing one of the same space.

    Args:
        served: the version.
        folder: of the database.
        texts: document id -> text.
        fields: document id -> metadata; every name becomes a column, empty (null) where a document lacks it.

    Returns:
        How many rows the table has.

    Raises:
        DataError: a document has no text, or a metadata name is taken.
        EmbedlabError: LanceDB is not installed.
    """
    fields = fields or {}
    columns = columns_of(served, texts, fields)
    schema = _schema(served.space.dimension, columns)
    database = _lancedb().connect(str(folder))
    rows = _batches(served, texts, fields, columns, schema)
    checksums = folder / f"{name_of(served.space)}{CHECKSUMS}"
    checksums.unlink(missing_ok=True)  # an export that is killed leaves none
    table = database.create_table(name_of(served.space), data=rows, schema=schema, mode="overwrite")
    count = table.count_rows()
    write_atomic(checksums, json.dumps(_digests(folder / f"{name_of(served.space)}.lance"), indent=1))
    return count


def verify_lance(folder: Path, space: Space) -> None:
    """Check every file of an export against the checksums that were written with it; later files are not checked.

    Args:
        folder: of the database.
        space: of the table.

    Raises:
        StorageError: a file is missing or changed.
    """
    checksums, table = folder / f"{name_of(space)}{CHECKSUMS}", folder / f"{name_of(space)}.lance"
    remedy = "Export it again: embedlab deploy export"
    try:
        stated = json.loads(checksums.read_bytes())
        files = {confined(table, name, single=False): digest for name, digest in stated.items()}
    except FileNotFoundError:
        return  # an export of older code
    except (ValueError, TypeError, AttributeError, RecursionError, ParameterError):
        raise StorageError("the checksums are damaged", remedy=remedy, file=checksums) from None
    for path, digest in files.items():
        if not path.is_file():
            raise StorageError("a file of the export is missing", remedy=remedy, file=path)
        if sha256_of(path) != digest:
            raise StorageError("the checksum of the exported file does not match", remedy=remedy, file=path)


def _digests(table: Path) -> dict[str, str]:
    files = sorted(path for path in table.rglob("*") if path.is_file())
    return {path.relative_to(table).as_posix(): sha256_of(path) for path in files}


def search_lance(
    folder: Path | str, queries: np.ndarray, space: Space, k: int, *, where: str | None = None
) -> list[list[tuple[str, float]]]:
    """The k nearest documents of every query vector (Q, d), exactly, among those that the filter lets through.

    Args:
        folder: of the database.
        queries: unit vectors.
        space: that they lie in.
        k: documents per query.
        where: an SQL condition on the columns, e.g. `chapter = 'Neoplasms'`; applied before the search, so that k
            documents come back as long as k pass.

    Returns:
        Per query (document id, cosine), best first.

    Raises:
        ParameterError: `where` is not a condition on the columns.
        SpaceMismatch: the database holds no vectors of this space.
        StorageError: there is no database, or it is damaged.
    """
    table = _open(Path(folder), space)
    return [_search_one(table, query, k, where) for query in queries]


def _search_one(table: Any, query: np.ndarray, k: int, where: str | None) -> list[tuple[str, float]]:
    search = table.search(query, vector_column_name="vector").distance_type("cosine").limit(k)
    try:
        rows = (search.where(where, prefilter=True) if where else search).select(["id", "_distance"]).to_list()
    except ValueError as error:
        if not where:
            raise
        columns = ", ".join(name for name in table.schema.names if name != "vector")
        problem = f"{where!r} is not a condition that LanceDB understands ({str(error).splitlines()[0]})"
        raise ParameterError(problem, remedy=f"Write SQL on the columns {columns}", field="where") from None
    return [(row["id"], 1 - row["_distance"]) for row in rows]


def _open(folder: Path, space: Space) -> Any:
    if not folder.is_dir():
        raise StorageError("there is no database", remedy="Export one: embedlab deploy export", file=folder)
    database = _lancedb().connect(str(folder))
    tables = [path.stem for path in folder.glob("*.lance")]
    if name_of(space) not in tables:
        raise no_vectors(space, tables, str(folder))
    verify_lance(folder, space)
    return database.open_table(name_of(space))


def _schema(dimension: int, columns: list[str]) -> pyarrow.Schema:
    import pyarrow as pa

    metadata = [pa.field(column, pa.string()) for column in columns]
    vector = pa.field("vector", pa.list_(pa.float32(), dimension))
    return pa.schema([pa.field("id", pa.string()), pa.field("text", pa.string()), vector, *metadata])


def _batches(
    served: Served,
    texts: Mapping[str, str],
    fields: Mapping[str, Mapping[str, str]],
    columns: list[str],
    schema: pyarrow.Schema,
) -> Iterator[pyarrow.RecordBatch]:
    """The documents as Arrow batches, vectors read from the memory map."""
    import pyarrow as pa

    for ids, block in rows_of(served):
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), block.shape[1])
        metadata = [pa.array([fields.get(name, {}).get(column) for name in ids], pa.string()) for column in columns]
        arrays = [pa.array(ids, pa.string()), pa.array([texts[name] for name in ids], pa.string()), vectors, *metadata]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _lancedb() -> ModuleType:
    os.environ.setdefault("LANCE_LOG", "error")  # it warns about every table that is new
    try:
        import lancedb
    except ImportError:
        remedy = "Install it: pip install 'embedlab[deploy]'"
        raise EmbedlabError("LanceDB is not installed", remedy=remedy) from None
    return lancedb
