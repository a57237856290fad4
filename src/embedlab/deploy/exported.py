"""What exports to vector databases have in common: one row per document, named after the vector space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from embedlab.deploy.serve import Served
from embedlab.deploy.space import Space
from embedlab.errors import DataError

BATCH = 4096  # rows written at a time
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
