"""What exports to vector databases have in common: one row per document, named after the vector space."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from typing import NamedTuple

import numpy as np

from embedlab.deploy.serve import Served
from embedlab.deploy.space import Encoder, Space, SpaceMismatch
from embedlab.deploy.store import VectorStore, content_key
from embedlab.errors import DataError

BATCH = 4096  # rows written at a time
SAMPLE = 32  # texts that an import encodes to compare
TOLERANCE = 1e-3  # largest difference of a vector that was stored and encoded again, by the cosine
RESERVED = ("id", "text", "vector")

Fields = Mapping[str, Mapping[str, str]]


class Rows(NamedTuple):
    """Some documents of a version.

    Attributes:
        ids: N document ids.
        vectors: float32 (N, d).
    """

    ids: tuple[str, ...]
    vectors: np.ndarray


class Points(NamedTuple):
    """Some points of a database.

    Attributes:
        texts: of N documents.
        vectors: float32 (N, d), of any length.
    """

    texts: list[str]
    vectors: np.ndarray


class Imported(NamedTuple):
    """What an import did.

    Attributes:
        points: in the database.
        added: texts that had no vector in the store.
    """

    points: int
    added: int


def name_of(space: Space) -> str:
    """Return the name of a table or collection with vectors of a space."""
    return f"space_{space.fingerprint}"


def columns_of(served: Served, texts: Mapping[str, str], fields: Fields) -> list[str]:
    """Return the names of all metadata, sorted, after a check of the documents.

    Args:
        served: the version.
        texts: document id -> text.
        fields: document id -> metadata.

    Raises:
        DataError: a document has no text, or a metadata name is taken.
    """
    if missing := next((name for name in served.ids if name not in texts), None):
        raise DataError(f"document {missing!r} has no text", remedy="Give the data that the version was built from")
    columns = sorted({column for name in served.ids for column in fields.get(name, ())})
    if reserved := [column for column in columns if column in RESERVED]:
        raise DataError(f"metadata may not be called {reserved[0]!r}", remedy="Rename it", field=reserved[0])
    return columns


def rows_of(served: Served, batch: int = BATCH) -> Iterator[Rows]:
    """Yield all documents, `batch` at a time, with vectors read from the memory map."""
    for start in range(0, len(served.ids), batch):
        block = np.asarray(served.index.vectors[start : start + batch], dtype=np.float32)
        yield Rows(served.ids[start : start + batch], block)


def no_vectors(space: Space, names: Iterable[str], target: str) -> SpaceMismatch:
    """Return the error for a database without vectors of a space.

    Args:
        space: that was asked for.
        names: of what the database holds instead.
        target: the database, for the message.
    """
    problem = f"the database holds {', '.join(sorted(names)) or 'nothing'}, and no vectors of space {space.fingerprint}"
    return SpaceMismatch(problem, remedy="Use the model that it was exported with, or export again", file=target)


def import_points(
    read: Callable[[int], Generator[Points, None, None]], batch: int, encoder: Encoder, store: VectorStore, target: str
) -> Imported:
    """Take vectors into a store, so that their texts are not encoded again.

    Nobody vouches for the vectors of a database. So some texts are encoded again and compared before anything is added.

    Args:
        read: a generator over all points, from the number of points at a time.
        batch: points at a time.
        encoder: the model of the space.
        store: of the same space.
        target: the database, for messages.

    Raises:
        SpaceMismatch: the model does not give these vectors.
        ValueError: a vector is not finite or zero.
    """
    with closing(read(SAMPLE)) as start:
        _compare(next(start, None), encoder, target)
    points = added = 0
    for texts, vectors in read(batch):
        keys, units = [content_key(text) for text in texts], _unit(vectors)
        missing = store.missing(keys)
        rows = [row for row, key in enumerate(keys) if key in missing]
        if rows:
            store.add([keys[row] for row in rows], units[rows], encoder.space)
        points, added = points + len(keys), added + len(rows)
    return Imported(points, added)


def _compare(sample: Points | None, encoder: Encoder, target: str) -> None:
    if sample is None:
        return
    cosines = np.einsum("nd,nd->n", encoder.encode_documents(sample.texts), _unit(sample.vectors))
    if (apart := float(1 - cosines.min())) > TOLERANCE:
        problem = f"vectors of the database differ from those of the model, by up to {apart:.2g} (1 - cosine)"
        raise SpaceMismatch(problem, remedy="Embed the documents again: embedlab deploy embed", file=target)


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise ValueError("a vector is not finite or zero")
    return vectors / lengths
