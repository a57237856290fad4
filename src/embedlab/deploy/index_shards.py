"""IVF-PQ over all pieces, on disk: inverted lists of product codes, searched from memory maps and rescored.

One trained quantiser serves every piece (Jégou, Douze & Schmid, "Product Quantization", TPAMI 2011). The workers code
one piece each, and the codes stay one file per piece, or are merged into one file of inverted lists for a single
server. In memory are the centroids and codebooks alone; the lists are read from the disk by the pages that a query
needs. The best candidates are scored again with the full vectors, which stay on the disk too.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from embedlab import progress
from embedlab.deploy.indexes import IndexSpec, empty_index
from embedlab.deploy.parts import Part, PartVectors, Plan, sample_vectors
from embedlab.deploy.shards import Pool
from embedlab.deploy.storage import Storage, sha256_of
from embedlab.errors import ParameterError, StorageError
from embedlab.io import sha256_of_json
from embedlab.search.exact import require_depth
from embedlab.search.merging import TopK
from embedlab.search.recall import recall_at_k
from embedlab.search.rescore import rescore

if TYPE_CHECKING:
    import faiss

INDEX, TRAINED, CODES, MERGED, LISTS = "index.json", ".trained", ".ivfpq", "merged.index", "merged.lists"
SAMPLED = 64  # training vectors per list; FAISS warns below 39
MIN_SAMPLE = 100_000
ADD = 65_536  # vectors coded at a time
AGAIN = "Run `embedlab deploy shards index` again"


class Recall(BaseModel):
    """Recall against exact search, and time of one query, at one number of lists searched."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nprobe: int
    recall: float
    ms: float


class ShardIndex(BaseModel):
    """An index over all pieces of a plan.

    Attributes:
        spec: of IVF-PQ.
        identity: of the pieces and the spec; names the files.
        files: name -> SHA-256.
        sizes: name -> bytes.
        merged: whether the codes are in one file of lists.
        k: depth of the recall.
        recall: at several numbers of lists searched; empty without queries.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: IndexSpec
    identity: str
    files: dict[str, str]
    sizes: dict[str, int]
    merged: bool
    k: int = 10
    recall: list[Recall] = []

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(self.sizes.values())


@dataclass(frozen=True)
class CodeTask:
    """One piece to code in a worker; `trained` is the name of the file with the empty index."""

    shard: Part
    trained: str
    name: str


@dataclass(frozen=True, eq=False)
class IndexSearchTask:
    """Queries for the codes of one piece."""

    shard: Part
    index: ShardIndex
    name: str
    queries: np.ndarray
    k: int


def build_shard_index(
    folder: Storage, plan: Plan, parts: Sequence[Part], spec: IndexSpec, pool: Pool, *, merged: bool = False
) -> ShardIndex:
    """Train a quantiser on a sample, code every piece on the workers, and store the index in the folder.

    Args:
        folder: of the results.
        plan: of the same folder.
        parts: of the plan.
        spec: of kind `ivfpq`.
        pool: the workers.
        merged: join the codes in one file of inverted lists; needs a local folder.

    Raises:
        ParameterError: the spec does not fit the vectors, or the folder of a merged index is not local.
        StorageError: a piece cannot be read.
    """
    if merged and not folder.local:
        remedy = "Copy the folder to a disk, or build an index per piece"
        raise ParameterError("a merged index needs a local folder", remedy=remedy, field="merged")
    total = sum(piece.rows for piece in plan.pieces)
    identity = _identity(spec, parts)
    index = empty_index(spec, total, plan.space.dimension)
    index.train(sample_vectors(parts, max(MIN_SAMPLE, SAMPLED * index.nlist)))
    trained = f"{identity}{TRAINED}"
    sums = {trained: _write_index(folder, trained, index)}
    tasks = [CodeTask(shard, trained, f"{shard.piece.key}-{identity}{CODES}") for shard in parts]
    with progress.counted("index shards", total) as advance:
        for task, outcome in pool.run(code_part, tasks):
            if isinstance(outcome, Exception):
                raise outcome
            sums[task.name] = outcome
            advance(task.shard.piece.rows)
    if merged:
        sums = _merge(folder, trained, [task.name for task in tasks])
    sizes = {name: folder.size(name) or 0 for name in sums}
    result = ShardIndex(spec=spec, identity=identity, files=sums, sizes=sizes, merged=merged)
    folder.write(INDEX, result.model_dump_json(indent=1).encode())
    return result


def read_shard_index(folder: Storage, parts: Sequence[Part]) -> ShardIndex:
    """Read what is known about the index.

    Raises:
        StorageError: there is none, it is damaged, or it covers other pieces.
    """
    content, path = folder.read(INDEX), folder.path_of(INDEX)
    if content is None:
        raise StorageError("there is no index", remedy=AGAIN, file=path)
    try:
        index = ShardIndex.model_validate_json(content)
    except ValidationError:
        raise StorageError("the index is damaged", remedy=AGAIN, file=path) from None
    if index.identity != _identity(index.spec, parts):
        raise StorageError("the index covers other documents", remedy=AGAIN, file=path)
    return index


def _identity(spec: IndexSpec, parts: Sequence[Part]) -> str:
    return sha256_of_json([spec.model_dump(), [shard.manifest.stem for shard in parts]])[:16]


def code_part(task: CodeTask) -> str:
    """Code one piece in a worker and store it; returns the SHA-256 of the file."""
    index, start = _read_index(task.shard.folder, task.trained), task.shard.piece.start
    for block in task.shard.vectors():
        for first in range(0, len(block), ADD):
            vectors = np.ascontiguousarray(block[first : first + ADD], dtype=np.float32)
            index.add_with_ids(vectors, np.arange(start, start + len(vectors), dtype=np.int64))
            start += len(vectors)
    return _write_index(task.shard.folder, task.name, index)


def search_shard_index(
    index: ShardIndex, parts: Sequence[Part], queries: np.ndarray, k: int, pool: Pool, *, nprobe: int | None = None
) -> TopK:
    """Search all pieces through the index: candidates by their codes, then scored with the full vectors.

    Args:
        index: of these parts.
        parts: of the plan, in order.
        queries: float32 (Q, d).
        k: documents per query.
        pool: the workers; a merged index is searched in this process.
        nprobe: lists searched; that of the spec if None.

    Returns:
        Scores, and document numbers in the order of the plan.

    Raises:
        StorageError: a file is missing or damaged.
    """
    require_depth(k)
    if nprobe:
        index = index.model_copy(update={"spec": index.spec.model_copy(update={"nprobe": nprobe})})
    queries, top = np.ascontiguousarray(queries, dtype=np.float32), TopK(len(queries), k)
    if index.merged:
        top.add(*_search(_open_merged(parts[0].folder, index), index.spec, PartVectors(parts), queries, k))
        return top
    tasks = [IndexSearchTask(p, index, f"{p.piece.key}-{index.identity}{CODES}", queries, k) for p in parts]
    for _, outcome in pool.run(search_codes, tasks):
        if isinstance(outcome, Exception):
            raise outcome
        top.add(*outcome)
    return top


def search_codes(task: IndexSearchTask) -> tuple[np.ndarray, np.ndarray]:
    """Search the codes of one piece in a worker: scores (Q, k) and document numbers (Q, k) over all pieces."""
    folder = task.shard.folder
    if task.index.files.get(task.name) != sha256_of(folder, task.name):
        raise StorageError("the checksum does not match", remedy=AGAIN, file=folder.path_of(task.name))
    index = _read_index(folder, task.name)
    return _search(index, task.index.spec, PartVectors([task.shard]), task.queries, task.k)


def _search(
    index: faiss.Index, spec: IndexSpec, vectors: PartVectors, queries: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    import faiss

    depth = max(k, spec.depth)
    _, documents = index.search(queries, depth, params=faiss.SearchParametersIVF(nprobe=spec.nprobe))
    return rescore(queries, vectors, documents, k)


def measure_recall(
    index: ShardIndex,
    parts: Sequence[Part],
    queries: np.ndarray,
    exact: TopK,
    pool: Pool,
    *,
    nprobes: Sequence[int] = (4, 16, 64),
) -> ShardIndex:
    """Measure recall and time per query at several numbers of lists, and store them with the index.

    Args:
        index: of these parts.
        parts: of the plan, in order.
        queries: float32 (Q, d).
        exact: result of an exact search of the same queries; its depth is that of the recall.
        pool: the workers.
        nprobes: numbers of lists searched.
    """
    rows, k = [], exact.scores.shape[1]
    for nprobe in nprobes:
        began = time.perf_counter()
        top = search_shard_index(index, parts, queries, k, pool, nprobe=nprobe)
        ms = (time.perf_counter() - began) / len(queries) * 1e3
        recall = recall_at_k(top.documents, queries, PartVectors(parts), exact.scores)
        rows.append(Recall(nprobe=nprobe, recall=float(recall.mean()), ms=ms))
    index = index.model_copy(update={"recall": rows, "k": k})
    parts[0].folder.write(INDEX, index.model_dump_json(indent=1).encode())
    return index


def _write_index(folder: Storage, name: str, index: faiss.Index) -> str:
    import faiss

    folder.remove(name)
    with folder.writing(name) as file:
        file.write(faiss.serialize_index(index).tobytes())
    return file.sha256


def _read_index(folder: Storage, name: str) -> Any:
    import faiss

    content = folder.read(name)
    try:
        return faiss.deserialize_index(np.frombuffer(content or b"", dtype=np.uint8))
    except RuntimeError:
        raise StorageError("the index cannot be read", remedy=AGAIN, file=folder.path_of(name)) from None


def _merge(folder: Storage, trained: str, names: Sequence[str]) -> dict[str, str]:
    """Join the codes of all pieces in one file of lists; the files of the pieces are removed."""
    import faiss
    from faiss.contrib.ondisk import merge_ondisk

    index = _read_index(folder, trained)
    local_folder = folder.local
    assert local_folder is not None  # checked before the training
    with tempfile.TemporaryDirectory(dir=local_folder, prefix=".merge-") as draft:
        lists = Path(draft) / LISTS
        merge_ondisk(index, [str(folder.local_path(name)) for name in names], str(lists))
        faiss.write_index(index, str(Path(draft) / MERGED))
        for name in (LISTS, MERGED):
            (Path(draft) / name).replace(folder.local_path(name))
    for name in (*names, trained):
        folder.remove(name)
    return {name: sha256_of(folder, name) for name in (LISTS, MERGED)}


def _open_merged(folder: Storage, index: ShardIndex) -> Any:
    import faiss

    if sha256_of(folder, MERGED) != index.files.get(MERGED) or folder.size(LISTS) != index.sizes.get(LISTS):
        raise StorageError("the merged index is damaged", remedy=AGAIN, file=folder.path_of(MERGED))
    try:
        return faiss.read_index(str(folder.local_path(MERGED)), faiss.IO_FLAG_ONDISK_SAME_DIR | faiss.IO_FLAG_READ_ONLY)
    except RuntimeError:
        raise StorageError("the index cannot be read", remedy=AGAIN, file=folder.path_of(MERGED)) from None
