"""Export a version to Qdrant, search it there, and take vectors back: a server, or a folder without one.

The collection is named after the vector space and has the space as metadata. Vectors of another model raise an error.
Qdrant's folders hold pickled points, which could run code when they are opened. Every point is checked first.
"""

from __future__ import annotations

import io
import os
import pickle
import sqlite3
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from embedlab.deploy.exported import Imported, Points, columns_of, import_points, name_of, no_vectors, rows_of
from embedlab.deploy.serve import Served
from embedlab.deploy.space import Encoder, Space, require_same
from embedlab.deploy.store import VectorStore
from embedlab.errors import EmbedlabError, StorageError
from embedlab.http import checked_url

KEY_VARIABLE = "QDRANT_API_KEY"
BATCH = 256  # points per request
TIMEOUT_S = 60
POINT = ("qdrant_client.http.models.models", "PointStruct")
REMEDY = "Export it again: embedlab deploy export"


def is_address(target: str) -> bool:
    """Return whether a target is a server and not a folder."""
    return target.startswith(("http://", "https://"))


def export_qdrant(
    served: Served, target: str, texts: Mapping[str, str], fields: Mapping[str, Mapping[str, str]] | None = None
) -> int:
    """Write every document of a version into a collection, replacing one of the same space.

    Args:
        served: the version.
        target: a folder, or the address of a server; its key is read from `QDRANT_API_KEY`.
        texts: document id -> text.
        fields: document id -> metadata; every name becomes a field of the payload.

    Returns:
        How many points the collection has.

    Raises:
        DataError: a document has no text, or a metadata name is taken.
        StorageError: the database cannot be written.
        EmbedlabError: qdrant-client is not installed.
    """
    fields = fields or {}
    columns_of(served, texts, fields)
    name, row = name_of(served.space), 0
    with _client(target) as (client, models):
        client.delete_collection(name)
        size = models.VectorParams(size=served.space.dimension, distance=models.Distance.COSINE)
        client.create_collection(name, vectors_config=size)
        for ids, vectors in rows_of(served, BATCH):
            payloads = [{**fields.get(document, {}), "id": document, "text": texts[document]} for document in ids]
            numbers = list(range(row, row + len(ids)))
            client.upsert(name, models.Batch(ids=numbers, vectors=vectors.tolist(), payloads=payloads), wait=True)
            row += len(ids)
        # Last: an export that is killed has no space and cannot be searched.
        client.update_collection(name, metadata={"space": asdict(served.space), "version": served.manifest.version})
        return int(client.count(name).count)


def search_qdrant(
    target: str, queries: np.ndarray, space: Space, k: int, *, where: Mapping[str, str | None] | None = None
) -> list[list[tuple[str, float]]]:
    """The k nearest documents of every query vector (Q, d), exactly, among those with the given metadata.

    Args:
        target: a folder, or the address of a server.
        queries: unit vectors.
        space: that they lie in.
        k: documents per query.
        where: metadata name -> value; None for documents without that metadata.

    Returns:
        Per query (document id, cosine), best first.

    Raises:
        SpaceMismatch: the database holds no vectors of this space.
        StorageError: there is no database, or it is damaged.
    """
    with _client(target, existing=True) as (client, models):
        name = _checked_name(client, space, target)
        exact = models.SearchParams(exact=True) if is_address(target) else None  # a folder is always searched exactly
        options = {"limit": k, "query_filter": _filter(models, where or {}), "search_params": exact}
        options["with_payload"] = ["id"]
        answers = [client.query_points(name, query=query.tolist(), **options).points for query in queries]
        return [[(point.payload["id"], float(point.score)) for point in points] for points in answers]


def import_qdrant(target: str, encoder: Encoder, store: VectorStore) -> Imported:
    """Take the vectors of a collection into a store; see `exported.import_points`.

    Args:
        target: a folder, or the address of a server.
        encoder: the model of the space.
        store: of the same space.

    Raises:
        SpaceMismatch: the database holds no vectors of this space, or vectors that this model does not give.
        StorageError: there is no database, or it is damaged.
    """
    with _client(target, existing=True) as (client, _):
        name = _checked_name(client, encoder.space, target)
        return import_points(partial(_points, client, name), BATCH, encoder, store, target)


def _points(client: Any, name: str, batch: int) -> Generator[Points, None, None]:
    """Yield the texts and vectors of all points."""
    offset = None
    while True:
        options = {"limit": batch, "offset": offset, "with_payload": ["text"], "with_vectors": True}
        points, offset = client.scroll(name, **options)
        if points:
            vectors = np.array([point.vector for point in points], dtype=np.float32)
            yield Points([point.payload["text"] for point in points], vectors)
        if offset is None:
            return


def _checked_name(client: Any, space: Space, target: str) -> str:
    """Return the name of the collection of a space after a comparison with the space that it states."""
    name = name_of(space)
    if not client.collection_exists(name):
        raise no_vectors(space, [collection.name for collection in client.get_collections().collections], target)
    metadata = client.get_collection(name).config.metadata
    if not metadata or "space" not in metadata:
        raise StorageError("the export is not complete", remedy=REMEDY, file=target)
    require_same(Space(**metadata["space"]), space, action="using this collection")
    return name


def _filter(models: ModuleType, where: Mapping[str, str | None]) -> Any:
    """Return the conditions as Qdrant's filter. Quotes keep a dot in a name from meaning a nested field."""
    conditions = []
    for name, value in where.items():
        key = f'"{name}"'
        if value is None:
            conditions.append(models.IsEmptyCondition(is_empty=models.PayloadField(key=key)))
        else:
            conditions.append(models.FieldCondition(key=key, match=models.MatchValue(value=value)))
    return models.Filter(must=conditions) if conditions else None


@contextmanager
def _client(target: str, *, existing: bool = False) -> Iterator[tuple[Any, ModuleType]]:
    """Open a folder or a server; gives the client and qdrant-client's models. Every failure is a StorageError."""
    qdrant = _qdrant()
    if is_address(target):
        options: dict[str, Any] = {
            "url": checked_url(target, "target"),
            "api_key": os.environ.get(KEY_VARIABLE) or None,
        }
        options |= {"timeout": TIMEOUT_S, "check_compatibility": False}
    else:
        if existing and not Path(target).is_dir():
            raise StorageError("there is no database", remedy="Export one: embedlab deploy export", file=target)
        _check_points(Path(target))
        options = {"path": target}
    client = None
    try:
        client = qdrant.QdrantClient(**options)
        yield client, qdrant.models
    except EmbedlabError:
        raise
    except Exception as error:  # of a server, of sqlite, or of what was read
        problem = f"Qdrant failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        raise StorageError(problem, remedy="Check the address or the folder", file=target) from None
    finally:
        if client is not None:
            with suppress(Exception):
                client.close()


class _PointsOnly(pickle.Unpickler):
    """Reads a point, and raises for everything that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the class of a point."""
        if (module, name) != POINT:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return super().find_class(module, name)


def _check_points(folder: Path) -> None:
    """Check the points of a folder before Qdrant unpickles them.

    Raises:
        StorageError: one holds something else than numbers and texts.
    """
    for path in sorted(folder.glob("collection/*/storage.sqlite")):
        try:
            connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
            if connection.execute("SELECT type FROM sqlite_master WHERE name = 'points'").fetchall() != [("table",)]:
                raise sqlite3.DatabaseError("points is not a table")  # a view could show Qdrant other points than us
            for (content,) in connection.execute("SELECT point FROM points"):
                _PointsOnly(io.BytesIO(content)).load()
            connection.close()
        except Exception as error:  # a damaged pickle can raise anything
            problem = f"the file is damaged or not safe to open ({type(error).__name__})"
            raise StorageError(problem, remedy=REMEDY, file=path) from None


def _qdrant() -> ModuleType:
    try:
        import qdrant_client
    except ImportError:
        remedy = "Install it: pip install 'embedlab[deploy]'"
        raise EmbedlabError("qdrant-client is not installed", remedy=remedy) from None
    return qdrant_client
