"""What a corpus costs: time to embed, bytes on disk, memory of a server and bytes read per query, by arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass

FLOAT32, ID_BYTES, LINK_BYTES = 4, 8, 4
CENTROIDS = 256  # of every part of a product code: one byte
HOUR_S = 3600


@dataclass(frozen=True)
class Corpus:
    """A corpus and its IVF-PQ index.

    Attributes:
        documents: N.
        dim: dimensions of the vectors (d).
        code_bytes: bytes of a product code.
        nprobe: lists that a query reads.
        shortlist: candidates that are scored again with their vectors.
        links: neighbours per node of an HNSW graph, for comparison.
    """

    documents: int
    dim: int = 384
    code_bytes: int = 48
    nprobe: int = 64
    shortlist: int = 100
    links: int = 32

    @property
    def lists(self) -> int:
        """Number of inverted lists, 4 √N, as `IndexSpec` takes."""
        return int(4 * math.sqrt(self.documents))

    @property
    def vector_bytes(self) -> int:
        """Vectors in float32, on disk."""
        return self.documents * self.dim * FLOAT32

    @property
    def code_file_bytes(self) -> int:
        """Inverted lists of codes and document numbers, on disk."""
        return self.documents * (self.code_bytes + ID_BYTES)

    @property
    def server_bytes(self) -> int:
        """Memory of a server of IVF-PQ on disk: centroids and codebooks; the lists are read as they are needed."""
        return (self.lists + CENTROIDS) * self.dim * FLOAT32

    @property
    def query_bytes(self) -> int:
        """Bytes that a query reads from the disk: lists, and vectors of the shortlist."""
        lists = self.code_file_bytes * min(self.nprobe, self.lists) // self.lists
        return lists + self.shortlist * self.dim * FLOAT32

    @property
    def hnsw_bytes(self) -> int:
        """Memory of a server of HNSW, which keeps vectors and graph in memory; level 0 has two times the links."""
        return self.documents * (self.dim * FLOAT32 + 2 * self.links * LINK_BYTES)

    def hours(self, documents_per_second: float, devices: int) -> float:
        """Hours to embed the corpus.

        Args:
            documents_per_second: of one device.
            devices: GPUs or cores, each with a worker of its own; pieces are independent, so they share evenly.
        """
        return self.documents / (documents_per_second * devices) / HOUR_S


def readable(size: float) -> str:
    """Format a number of bytes, e.g. "5.6 GB".

    >>> readable(5_600_000_000), readable(154_000), readable(153.6e9)
    ('5.6 GB', '150 kB', '150 GB')
    """
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{float(f'{size / factor:.2g}'):g} {unit}"
    return f"{float(f'{size / 1e3:.2g}'):g} kB"
