"""Open a version and search it: nothing is served that was not checked, and no query of another space is answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedlab.deploy.embed import read_listing
from embedlab.deploy.indexes import VectorIndex
from embedlab.deploy.space import Encoder, Space, require_same
from embedlab.deploy.versions import DOCUMENTS, INDEX, VECTORS, Manifest, current, verify, version_folder
from embedlab.search.exact import Ranking


@dataclass(frozen=True, eq=False)
class Served:
    """A version that is open.

    Attributes:
        manifest: what it is.
        index: its index, over its vectors.
        ids: document id of every row.
    """

    manifest: Manifest
    index: VectorIndex
    ids: tuple[str, ...]

    @property
    def space(self) -> Space:
        """The space that its vectors lie in."""
        return self.manifest.space

    def search(self, queries: np.ndarray, space: Space, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores and rows of the k documents found for query vectors (Q, d); see `VectorIndex.search`.

        Raises:
            SpaceMismatch: the queries lie in another space.
        """
        require_same(self.space, space, what="searching this version")
        return self.index.search(queries, k)

    def rank(self, encoder: Encoder, queries: Mapping[str, str], k: int) -> Ranking:
        """The k documents found for query id -> text.

        Raises:
            SpaceMismatch: the encoder works in another space; said before anything is encoded.
        """
        require_same(self.space, encoder.space, what="searching this version")
        vectors = encoder.encode_queries(list(queries.values()))
        return Ranking.from_search(list(queries), self.ids, *self.search(vectors, encoder.space, k))


def open_version(root: Path, version: str | None = None) -> Served:
    """Check a version's files and open it; the one that is served when none is named.

    Raises:
        StorageError: it is damaged or missing, or nothing is served.
    """
    version = version or current(root)
    manifest, folder = verify(root, version), version_folder(root, version)
    vectors = np.load(folder / VECTORS, mmap_mode="r")
    index = VectorIndex.load(manifest.index, folder / INDEX, vectors)
    return Served(manifest, index, tuple(name for name, _ in read_listing(folder / DOCUMENTS)))
