"""Store vectors in fewer bits, search them with float queries, and decode them for rescoring.

Both classes are searchers (queries and k -> scores and indices) and stores (indices -> decoded rows). Any of them can
find a shortlist, and any of them, or an array, can rescore it: `rescore.rescored`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from embedlab.errors import ParameterError, StorageError
from embedlab.search.exact import require_depth
from embedlab.search.vectors import truncate

if TYPE_CHECKING:
    import faiss

PRECISIONS = {  # precision -> the name of its index in faiss
    "float32": "Flat",
    "float16": "SQfp16",
    "int8": "SQ8",
    "int4": "SQ4",
    "bit": "SQtqmse1",
}


class QuantisedVectors:
    """The first `dim` dimensions of every vector, encoded by faiss; queries stay float (asymmetric scoring).

    Attributes:
        index: the faiss index; it scores the inner product of a float query and a decoded document.
        dim: stored dimensions.
    """

    def __init__(self, index: faiss.Index) -> None:
        self.index, self.dim = index, index.d

    @classmethod
    def encode(cls, vectors: np.ndarray, precision: str, dim: int | None = None) -> Self:
        """Truncate `vectors` to `dim`, fit the quantiser on them, and encode them.

        int8 and int4 divide the range of each dimension, from its minimum to its maximum, into equal steps; "bit"
        stores the sign.

        Args:
            vectors: float32 (N, d), unit rows.
            precision: one of `PRECISIONS`.
            dim: dimensions to store; all when not given.

        Raises:
            ParameterError: `precision` is unknown, or `dim` is outside 1 to d.
        """
        import faiss

        if precision not in PRECISIONS:
            problem = f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}"
            raise ParameterError(problem, remedy="Set precision='int8', for example", field="precision")
        truncated = truncate(vectors, vectors.shape[1] if dim is None else dim)
        index = faiss.index_factory(truncated.shape[1], PRECISIONS[precision], faiss.METRIC_INNER_PRODUCT)
        index.train(truncated)
        index.add(truncated)
        return cls(index)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Open vectors that `save` wrote. They stay on disk, and rows are read when they are needed.

        Raises:
            StorageError: the file is missing, cut short or not an index.
        """
        import faiss

        try:
            return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC))
        except RuntimeError as error:
            remedy = "Encode the vectors and save them again"
            raise StorageError("the encoded vectors cannot be read", remedy=remedy, file=path) from error

    def save(self, path: Path) -> None:
        """Write the encoded vectors in faiss's own format."""
        import faiss

        faiss.write_index(self.index, str(path))

    @property
    def bytes_per_document(self) -> int:
        """Size of one encoded document; the ranges shared by all documents do not count."""
        return self.index.sa_code_size()

    def __len__(self) -> int:
        return self.index.ntotal

    def __call__(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the k best documents for float queries (Q, d): scores and indices (Q, k), best first."""
        require_depth(k)
        return self.index.search(truncate(queries, self.dim), k)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Decode documents (...): float32 (..., dim)."""
        rows = np.asarray(rows, dtype=np.int64)
        return self.index.reconstruct_batch(rows.ravel()).reshape(*rows.shape, self.dim)


class BinaryVectors:
    """The sign of every dimension as one bit, for queries and documents, searched by Hamming distance.

    This is much faster than `QuantisedVectors` and less precise, because the query loses its magnitudes too. Rescore
    the shortlist with the float query: against these same bits (the class is a store of +1 and -1), or against better
    vectors. Yamada et al., Efficient Passage Retrieval with Hashing, ACL 2021.

    Args:
        vectors: float32 (N, d), unit rows.
        dim: dimensions to store, a multiple of 8; all when not given.

    Attributes:
        bits: uint8 (N, dim / 8).

    Raises:
        ParameterError: `dim` is not a multiple of 8 or is outside 8 to d.
    """

    def __init__(self, vectors: np.ndarray, dim: int | None = None) -> None:
        import faiss

        self.dim = vectors.shape[1] if dim is None else dim
        if self.dim % 8 or not 0 < self.dim <= vectors.shape[1]:
            problem = f"dim must be a multiple of 8 between 8 and {vectors.shape[1]}, got {self.dim}"
            raise ParameterError(problem, remedy="Choose another dim: the bits are stored in whole bytes", field="dim")
        self.bits = self._pack(vectors)
        self._index = faiss.IndexBinaryFlat(self.dim)
        self._index.add(self.bits)

    @property
    def bytes_per_document(self) -> int:
        """Size of the bits of one document."""
        return self.bits.shape[1]

    def __len__(self) -> int:
        return len(self.bits)

    def __call__(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the k documents with the smallest Hamming distance: minus the distance, and indices, both (Q, k)."""
        require_depth(k)
        distances, indices = self._index.search(self._pack(queries), k)
        return -distances.astype(np.float32), indices

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Decode documents (...): float32 (..., dim) of 1 and -1."""
        return np.unpackbits(self.bits[rows], axis=-1).astype(np.float32) * 2 - 1

    def _pack(self, vectors: np.ndarray) -> np.ndarray:
        return np.packbits(vectors[:, : self.dim] > 0, axis=1)
