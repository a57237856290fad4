"""Open a version and search it; its files and the vector space of every query are checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedlab.deploy.embed import read_listing
from embedlab.deploy.indexes import VectorIndex
from embedlab.deploy.space import Encoder, Space, require_same
from embedlab.deploy.versions import DOCUMENTS, INDEX, VECTORS, Manifest, current, verify, version_folder
from embedlab.search.exact import Ranking, require_depth


@dataclass(frozen=True, eq=False)
class Served:
    """An open version.

    Attributes:
        manifest: contents and origin.
        index: over its vectors.
        ids: document id of every row.
    """

    manifest: Manifest
    index: VectorIndex
    ids: tuple[str, ...]

    @property
    def space(self) -> Space:
        """The vector space of the version."""
        return self.manifest.space

    def search(self, queries: np.ndarray, space: Space, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Search with query vectors; see `VectorIndex.search`.

        Args:
            queries: (Q, d).
            space: of the queries.
            k: documents per query.

        Raises:
            SpaceMismatch: the queries are from another space.
        """
        require_same(self.space, space, action="searching this version")
        return self.index.search(queries, k)

    def rank(self, encoder: Encoder, queries: Mapping[str, str], k: int) -> Ranking:
        """Encode queries and rank the k best documents of each.

        Args:
            encoder: the model of this version's space.
            queries: query id -> text.
            k: documents per query.

        Raises:
            SpaceMismatch: the encoder has another space; raised before anything is encoded.
            ParameterError: `k` is below 1.
        """
        require_same(self.space, encoder.space, action="searching this version")
        require_depth(k)
        vectors = encoder.encode_queries(list(queries.values()))
        return Ranking.from_search(list(queries), self.ids, *self.search(vectors, encoder.space, k))


def open_version(root: Path, version: str | None = None) -> Served:
    """Check a version's files and open it.

    Args:
        root: folder of all versions.
        version: its name; the served version by default.

    Raises:
        StorageError: the version is damaged or missing, or no version is served.
    """
    version = version or current(root)
    manifest, folder = verify(root, version), version_folder(root, version)
    vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
    index = VectorIndex.load(manifest.index, folder / INDEX, vectors)
    return Served(manifest, index, tuple(name for name, _ in read_listing(folder / DOCUMENTS)))
