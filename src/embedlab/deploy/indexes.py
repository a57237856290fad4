"""FAISS indexes: exact, graph, inverted lists, 8-bit, binary, and a shortlist that is rescored.

Everything is inner product on unit vectors. Malkov & Yashunin, HNSW, TPAMI 2020; Jégou, Douze & Schmid, Product
Quantization, TPAMI 2011; Kusupati et al., Matryoshka Representation Learning, NeurIPS 2022 (shortlist on a prefix).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from embedlab.deploy.files import storage_errors
from embedlab.errors import ParameterError, StorageError
from embedlab.io import fsync
from embedlab.params import Count, CountOrNone
from embedlab.search.exact import require_depth
from embedlab.search.rescore import rescore

if TYPE_CHECKING:
    import faiss

Kind = Literal["flat", "hnsw", "ivf", "ivfpq", "int8", "binary", "matryoshka"]
KINDS: tuple[str, ...] = get_args(Kind)
ADD_CHUNK = 65_536  # vectors copied from the memory map at a time
POINTS_PER_CENTROID = 39  # below, k-means of FAISS warns that centroids are badly placed
MAX_TRAINING = 100_000  # vectors that inverted lists and quantisers are trained on
RESCORED = {"binary": 100, "matryoshka": 100, "ivfpq": 100}  # kinds too coarse to rank by themselves
TUNED_BY = {"hnsw": "ef_search", "ivf": "nprobe", "ivfpq": "nprobe", "binary": "shortlist", "matryoshka": "shortlist"}


class IndexSpec(BaseModel):
    """Kind and parameters of an index.

    Attributes:
        kind: flat (exact), hnsw (graph), ivf (inverted lists), ivfpq (lists of product codes), int8 (one byte per
            dimension), binary (one bit per dimension), matryoshka (the first `short_dim` dimensions).
        links: neighbours per node of the graph.
        ef_construction, ef_search: candidates kept while building and while searching the graph.
        lists: inverted lists; 0 takes 4 √N, or as many as N can train.
        nprobe: lists searched.
        code_bytes: bytes of a product code, a divisor of the dimension.
        short_dim: dimensions of the shortlist of `matryoshka`.
        shortlist: candidates rescored with the full vectors; 0 means 100 if the kind needs rescoring.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = "hnsw"
    links: Annotated[int, Field(ge=2)] = 32
    ef_construction: Count = 200
    ef_search: Count = 64
    lists: CountOrNone = 0
    nprobe: Count = 16
    code_bytes: Count = 48
    short_dim: Count = 64
    shortlist: CountOrNone = 0

    @property
    def depth(self) -> int:
        """Number of candidates to rescore; 0 for none."""
        return self.shortlist or RESCORED.get(self.kind, 0)


class VectorIndex:
    """A FAISS index over vectors (N, d), with the full vectors for rescoring.

    Attributes:
        spec: kind and parameters.
        index: the FAISS index.
        vectors: (N, d), usually a memory map.
    """

    def __init__(self, spec: IndexSpec, index: faiss.Index, vectors: np.ndarray) -> None:
        self.spec, self.index, self.vectors = spec, index, vectors

    @classmethod
    def build(cls, spec: IndexSpec, vectors: np.ndarray) -> VectorIndex:
        """Train and fill an index, reading the vectors chunk by chunk.

        Args:
            spec: kind and parameters.
            vectors: (N, d), unit length.

        Raises:
            ParameterError: the spec does not fit the vectors.
        """
        index = empty_index(spec, *vectors.shape)
        if not index.is_trained:
            index.train(_coded(spec, _training_sample(vectors)))
        for start in range(0, len(vectors), ADD_CHUNK):
            index.add(_coded(spec, np.asarray(vectors[start : start + ADD_CHUNK])))
        return cls(spec, index, vectors)

    @classmethod
    def load(cls, spec: IndexSpec, path: Path, vectors: np.ndarray) -> VectorIndex:
        """Read an index that `save` wrote.

        Raises:
            StorageError: FAISS cannot read it, or it holds another number of vectors.
        """
        import faiss

        read = faiss.read_index_binary if spec.kind == "binary" else faiss.read_index
        try:
            index = read(str(path))
        except RuntimeError as error:
            raise StorageError("the index cannot be read", remedy="Build the version again", file=path) from error
        if index.ntotal != len(vectors):
            problem = f"the index holds {index.ntotal} vectors, the version {len(vectors)}"
            raise StorageError(problem, remedy="Build the version again", file=path)
        return cls(spec, index, vectors)

    def save(self, path: Path) -> None:
        """Write the index and flush it to the disk."""
        import faiss

        write = faiss.write_index_binary if self.spec.kind == "binary" else faiss.write_index
        with storage_errors(path):
            try:
                write(self.index, str(path))
            except RuntimeError as error:
                raise OSError(str(error)) from error
            fsync(path)

    @property
    def bytes(self) -> int:
        """Bytes of the index in memory, without the full vectors on disk that a shortlist is scored with."""
        import faiss

        serialise = faiss.serialize_index_binary if self.spec.kind == "binary" else faiss.serialize_index
        return len(serialise(self.index))

    def with_spec(self, **changes: int) -> VectorIndex:
        """Return the same index with other search parameters: ef_search, nprobe or shortlist."""
        return VectorIndex(self.spec.model_copy(update=changes), self.index, self.vectors)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Search the k best documents.

        Args:
            queries: (Q, d).
            k: documents per query.

        Returns:
            Scores float32 (Q, k), best first, and rows int64 (Q, k); -inf and -1 where fewer than k were found.

        Raises:
            ParameterError: `k` is below 1.
        """
        require_depth(k)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        k = min(k, len(self.vectors))
        depth = min(max(k, self.spec.depth), len(self.vectors))
        scores, rows = self.index.search(_coded(self.spec, queries), depth, **_search_options(self.spec))
        if self.spec.depth:
            scores, rows = rescore(queries, self.vectors, rows, k)
        return np.where(rows < 0, -np.inf, scores).astype(np.float32), rows.astype(np.int64)


def empty_index(spec: IndexSpec, count: int, dim: int) -> faiss.Index:
    """Create an index that is neither trained nor filled.

    Args:
        spec: kind and parameters.
        count: number of vectors that it will hold.
        dim: their dimensions.

    Raises:
        ParameterError: the spec does not fit the vectors.
    """
    import faiss

    _check(spec, count, dim)
    if spec.kind == "binary":
        return faiss.index_binary_factory(dim, "BFlat")
    indexed_dim = spec.short_dim if spec.kind == "matryoshka" else dim
    index = faiss.index_factory(indexed_dim, _factory(spec, count), faiss.METRIC_INNER_PRODUCT)
    if spec.kind == "hnsw":
        index.hnsw.efConstruction = spec.ef_construction
    return index


def _factory(spec: IndexSpec, count: int) -> str:
    """Return the factory string of FAISS."""
    lists = spec.lists or max(1, min(int(4 * math.sqrt(count)), count // POINTS_PER_CENTROID))
    bits = max(1, min(8, int(math.log2(max(2, count / POINTS_PER_CENTROID)))))  # 2^bits centroids want training points
    return {
        "flat": "Flat",
        "matryoshka": "Flat",
        "hnsw": f"HNSW{spec.links}",
        "ivf": f"IVF{lists},Flat",
        "ivfpq": f"IVF{lists},PQ{spec.code_bytes}x{bits}np",  # np: without polysemous training, slow and unused
        "int8": "SQ8",
    }[spec.kind]


def _check(spec: IndexSpec, count: int, dim: int) -> None:
    if not count:
        raise ParameterError("There is no vector to index", remedy="Embed a corpus first")
    if spec.kind == "ivfpq" and count < 2:
        remedy = "Choose another kind of index"
        raise ParameterError("Product codes need at least 2 vectors, got 1", remedy=remedy, field="kind")
    if spec.kind in ("ivf", "ivfpq") and spec.lists > count:
        problem = f"lists must be at most the {count} vectors, got {spec.lists}"
        raise ParameterError(problem, remedy="Set lists=0 for a number that fits", field="lists")
    if spec.kind == "ivfpq" and dim % spec.code_bytes:
        remedy = f"Choose a divisor of {dim}"
        problem = f"code_bytes must divide the {dim} dimensions, got {spec.code_bytes}"
        raise ParameterError(problem, remedy=remedy, field="code_bytes")
    if spec.kind == "matryoshka" and spec.short_dim > dim:
        problem = f"short_dim must be at most the {dim} dimensions of the vectors, got {spec.short_dim}"
        raise ParameterError(problem, remedy=f"Choose 1 to {dim}", field="short_dim")
    if spec.kind == "binary" and dim % 8:
        remedy = "Choose another kind of index"
        problem = f"A binary index needs a multiple of 8 dimensions, got {dim}"
        raise ParameterError(problem, remedy=remedy, field="kind")


def _coded(spec: IndexSpec, vectors: np.ndarray) -> np.ndarray:
    """Return vectors (n, d) in the form that the index takes: bits, a prefix, or unchanged."""
    if spec.kind == "binary":
        return np.packbits(vectors > 0, axis=1)
    if spec.kind == "matryoshka":
        from embedlab.search.vectors import truncate

        return truncate(vectors, spec.short_dim)
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _training_sample(vectors: np.ndarray) -> np.ndarray:
    rows = np.random.default_rng(0).permutation(len(vectors))[:MAX_TRAINING]
    return np.asarray(vectors[np.sort(rows)], dtype=np.float32)


def _search_options(spec: IndexSpec) -> dict[str, faiss.SearchParameters]:
    """Return search parameters; they are passed with each search, so one index can be searched in several ways."""
    import faiss

    if spec.kind == "hnsw":
        return {"params": faiss.SearchParametersHNSW(efSearch=spec.ef_search)}
    if spec.kind in ("ivf", "ivfpq"):
        return {"params": faiss.SearchParametersIVF(nprobe=spec.nprobe)}
    return {}
