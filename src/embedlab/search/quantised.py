"""Vectors held in fewer bits: as faiss codes or as signs, searched by float queries, and decoded for rescoring.

Both classes are searchers (queries and k to scores and indices) and stores (indices to decoded rows), so that any of
them can find a shortlist and any of them, or an array, can order it: `funnel.rescored`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from embedlab.errors import ParameterError
from embedlab.search.vectors import truncate

if TYPE_CHECKING:
    import faiss

FORMS = {  # name -> what faiss calls it
    "float32": "Flat",
    "float16": "SQfp16",
    "int8": "SQ8",
    "int4": "SQ4",
    "bit": "SQtqmse1",
}
FORTY_EIGHT_BYTES = (("float32", 12), ("int8", 48), ("int4", 96), ("bit", 384))  # a 32nd of 384 dimensions as floats


class Codes:
    """The first `dim` numbers of every vector, encoded by faiss; queries stay float (asymmetric scoring).

    Attributes:
        index: the faiss index; its metric is the inner product of a float query and a decoded document.
        dim: dimensions kept.
    """

    def __init__(self, index: faiss.Index) -> None:
        self.index, self.dim = index, index.d

    @classmethod
    def of(cls, vectors: np.ndarray, form: str, dim: int | None = None) -> Self:
        """Truncate `vectors` (N, d) to `dim`, learn the code from them, and encode them.

        int8 and int4 divide each dimension's range, from its minimum to its maximum, evenly; a bit is the sign.

        Args:
            vectors: float32 (N, d) of unit rows.
            form: one of `FORMS`.
            dim: dimensions to keep; all when not given.

        Raises:
            ParameterError: an unknown form, or dimensions that the vectors do not have.
        """
        import faiss

        if form not in FORMS:
            raise ParameterError(f"there is no form {form!r}", remedy=f"Forms are {', '.join(FORMS)}", field="form")
        kept = truncate(vectors, vectors.shape[1] if dim is None else dim)
        index = faiss.index_factory(kept.shape[1], FORMS[form], faiss.METRIC_INNER_PRODUCT)
        index.train(kept)
        index.add(kept)
        return cls(index)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Codes that stay on disk, as `save` left them, and are read where they are needed."""
        import faiss

        return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC))

    def save(self, path: Path) -> None:
        """Write the codes in faiss's own format."""
        import faiss

        faiss.write_index(self.index, str(path))

    @property
    def bytes_per_document(self) -> int:
        """Size of one document's code; the ranges that all documents share do not count."""
        return self.index.sa_code_size()

    def __len__(self) -> int:
        return self.index.ntotal

    def __call__(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best documents for float queries (Q, d): scores and indices (Q, k), best first."""
        return self.index.search(truncate(queries, self.dim), k)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Decoded vectors float32 (…, dim) of documents (…)."""
        rows = np.asarray(rows, dtype=np.int64)
        return self.index.reconstruct_batch(rows.ravel()).reshape(*rows.shape, self.dim)


class Signs:
    """The signs of every vector, one bit per dimension, on both sides: searched by counting the bits that differ.

    Counting is much faster than the arithmetic of `Codes`, and coarser, as the query loses its sizes too. Let the
    float query order what was found: with these same bits (the class is a store of ±1), or with better vectors.
    Yamada et al., Efficient Passage Retrieval with Hashing, ACL 2021.

    Args:
        vectors: float32 (N, d) of unit rows.
        dim: dimensions to keep, a multiple of 8; all when not given.

    Attributes:
        bits: uint8 (N, dim / 8).

    Raises:
        ParameterError: dim is no multiple of 8, or more than the vectors have.
    """

    def __init__(self, vectors: np.ndarray, dim: int | None = None) -> None:
        import faiss

        self.dim = vectors.shape[1] if dim is None else dim
        if self.dim % 8 or not 0 < self.dim <= vectors.shape[1]:
            remedy = f"Keep a multiple of 8 up to {vectors.shape[1]}"
            raise ParameterError(f"{self.dim} bits cannot be kept as whole bytes", remedy=remedy, field="dim")
        self.bits = self._pack(vectors)
        self._index = faiss.IndexBinaryFlat(self.dim)
        self._index.add(self.bits)

    @property
    def bytes_per_document(self) -> int:
        """Size of one document's bits."""
        return self.bits.shape[1]

    def __len__(self) -> int:
        return len(self.bits)

    def __call__(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k documents with the fewest bits unlike the query's: minus that number, and indices, both (Q, k)."""
        distances, indices = self._index.search(self._pack(queries), k)
        return -distances.astype(np.float32), indices

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Signs float32 (…, dim), 1 or -1, of documents (…)."""
        return np.unpackbits(self.bits[rows], axis=-1).astype(np.float32) * 2 - 1

    def _pack(self, vectors: np.ndarray) -> np.ndarray:
        return np.packbits(vectors[:, : self.dim] > 0, axis=1)
