"""The results of one piece: a file of vectors, a file of ids, and the manifest that commits them; and the plan of all.

The plan lists the pieces of the source in their order. It is what a search and an index cover. A piece is finished if
its manifest is intact and fits its piece, and both files have the stated size.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from embedlab.deploy.pieces import Piece, parquet
from embedlab.deploy.space import Space
from embedlab.deploy.storage import HashedFile, Storage, sha256_of
from embedlab.errors import DataError, ParameterError, StorageError
from embedlab.io import npy_header
from embedlab.memory import peak_bytes

if TYPE_CHECKING:
    import pyarrow.parquet

PLAN, MANIFEST, VECTORS, IDS = "plan.json", ".json", ".npy", ".ids.parquet"
BLOCK = 65_536  # vectors read at a time from a remote storage
AGAIN = "Run `embedlab deploy shards embed` again: it does what is missing or damaged"


class Plan(BaseModel):
    """All pieces of a source, in their order.

    Attributes:
        space: of the vectors.
        model: name of the model.
        pieces: consecutive.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    space: Space
    model: str
    pieces: list[Piece]


class Manifest(BaseModel):
    """What a finished piece holds.

    Attributes:
        piece: its key.
        rows: number of documents.
        space: of the vectors, with the fingerprint of the model.
        stem: name of its two files without their endings.
        sha256: ending -> checksum of the file.
        sizes: ending -> bytes of the file.
        seconds: wall-clock time of the attempt that is committed.
        peak_bytes: peak memory of the worker so far.
        worker: process id of the worker.
        driver: token of the call that gave the piece to the worker.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    piece: str
    rows: int
    space: Space
    stem: str = Field(pattern=r"^[0-9a-f-]{1,80}$")  # it becomes a part of a path
    sha256: dict[str, str]
    sizes: dict[str, int]
    seconds: float
    peak_bytes: int
    worker: int
    driver: str

    def to_bytes(self) -> bytes:
        """Return the content of the manifest's file."""
        return self.model_dump_json(indent=1).encode()


@dataclass(frozen=True)
class Part:
    """The finished files of a piece."""

    folder: Storage
    piece: Piece
    manifest: Manifest

    def vectors(self) -> Iterator[np.ndarray]:
        """Yield the vectors in order, in blocks (n, d): one memory map on a local disk, smaller blocks elsewhere.

        Raises:
            StorageError: the file is not what the manifest says.
        """
        space, name = self.manifest.space, self.manifest.stem + VECTORS
        shape, kind = (self.manifest.rows, space.dimension), np.dtype(space.quantisation)
        header = npy_header(shape, kind)
        if self.folder.local:
            self._require(self.folder.read(name, head=len(header)) == header)
            yield np.memmap(self.folder.local_path(name), dtype=kind, mode="r", offset=len(header), shape=shape)
            return
        with self.folder.reading(name) as file:
            self._require(file.read(len(header)) == header)
            for start in range(0, shape[0], BLOCK):
                rows = min(BLOCK, shape[0] - start)
                content = file.read(rows * shape[1] * kind.itemsize)
                self._require(len(content) == rows * shape[1] * kind.itemsize)
                yield np.frombuffer(content, dtype=kind).reshape(rows, shape[1])

    def ids(self) -> list[str]:
        """Return the document ids in the order of the vectors."""
        with parquet(self.folder, self.manifest.stem + IDS) as file:
            names: list[str] = file.read().column("id").to_pylist()
        self._require(len(names) == self.manifest.rows)
        return names

    def damage(self) -> str | None:
        """Compare both files with their checksums; return what is wrong, None if nothing is."""
        for ending, digest in self.manifest.sha256.items():
            if sha256_of(self.folder, self.manifest.stem + ending) != digest:
                return f"the checksum of {self.manifest.stem + ending} does not match"
        return None

    def _require(self, fits: bool) -> None:
        if not fits:
            path = self.folder.path_of(self.manifest.stem + VECTORS)
            raise StorageError("the files of a piece do not fit their manifest", remedy=AGAIN, file=path)


class PartVectors:
    """The vectors of several parts under their document numbers, read from memory maps.

    Args:
        parts: with consecutive documents, in order, in a local folder.

    Raises:
        ParameterError: the folder is not local.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        if not parts[0].folder.local:
            remedy = "Copy the folder to a disk, or search exactly"
            raise ParameterError("scoring candidates again needs a local folder", remedy=remedy, field="target")
        self._starts = np.array([shard.piece.start for shard in parts])
        self._blocks = [next(shard.vectors()) for shard in parts]

    def __getitem__(self, documents: np.ndarray) -> np.ndarray:
        """Return the float32 vectors (..., d) of an array of document numbers (...)."""
        flat = np.maximum(documents.reshape(-1), self._starts[0])  # -1 stands for an empty rank
        vectors = np.empty((len(flat), self._blocks[0].shape[1]), dtype=np.float32)
        owners = np.searchsorted(self._starts, flat, side="right") - 1
        for owner in np.unique(owners):
            rows = owners == owner
            vectors[rows] = self._blocks[owner][flat[rows] - self._starts[owner]]
        return vectors.reshape(*documents.shape, -1)


def sample_vectors(parts: Sequence[Part], count: int) -> np.ndarray:
    """Return about `count` random vectors, float32 (n, d), spread evenly over the parts; the same ones every time."""
    total, rng = sum(shard.piece.rows for shard in parts), np.random.default_rng(0)
    sample = []
    for shard in parts:
        for block in shard.vectors():
            size = min(len(block), -(-count * len(block) // total))
            sample.append(np.asarray(block[np.sort(rng.permutation(len(block))[:size])], dtype=np.float32))
    return np.concatenate(sample)


def write_plan(folder: Storage, plan: Plan) -> None:
    """Store the plan; it replaces that of an earlier source."""
    folder.write(PLAN, plan.model_dump_json(indent=1).encode())


def read_plan(folder: Storage) -> Plan:
    """Read the plan.

    Raises:
        StorageError: there is none, or it is damaged.
    """
    content, path = folder.read(PLAN), folder.path_of(PLAN)
    if content is None:
        raise StorageError("there is no plan of shards", remedy="Embed documents there first", file=path)
    try:
        plan = Plan.model_validate_json(content)
    except ValidationError:
        raise StorageError("the plan is damaged", remedy=AGAIN, file=path) from None
    ends = [piece.start + piece.rows for piece in plan.pieces]
    if [piece.start for piece in plan.pieces] != [0, *ends[:-1]]:
        raise StorageError("the plan is damaged", remedy=AGAIN, file=path)
    return plan


def finished(folder: Storage, piece: Piece, space: Space) -> Manifest | None:
    """Return the manifest of a finished piece; None if there is none.

    A manifest that is damaged, or whose files are missing or of another size, is removed, so the piece is done again.
    """
    name = piece.key + MANIFEST
    content = folder.read(name)
    if content is None:
        return None
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError:
        manifest = None
    if manifest and (manifest.piece, manifest.rows, manifest.space) == (piece.key, piece.rows, space):
        sizes = {ending: folder.size(manifest.stem + ending) for ending in (VECTORS, IDS)}
        if sizes == manifest.sizes:
            return manifest
    folder.remove(name)
    return None


def all_parts(folder: Storage, plan: Plan) -> list[Part]:
    """Return the parts of a plan.

    Raises:
        StorageError: some pieces are not finished.
    """
    manifests = [finished(folder, piece, plan.space) for piece in plan.pieces]
    if missing := manifests.count(None):
        problem = f"{missing:,} of {len(manifests):,} pieces are not finished"
        raise StorageError(problem, remedy=AGAIN, file=folder.path_of(""))
    pairs = zip(plan.pieces, manifests, strict=True)
    return [Part(folder, piece, manifest) for piece, manifest in pairs if manifest]


def write_part(
    folder: Storage, piece: Piece, space: Space, blocks: Iterable[tuple[list[str], np.ndarray]], driver: str
) -> Manifest:
    """Write the files of a piece; nothing refers to them before the manifest is committed.

    Args:
        folder: of the results.
        piece: the documents.
        space: of the vectors.
        blocks: ids and vectors (n, d) of consecutive documents.
        driver: see `Manifest`.

    Raises:
        DataError: a vector contains NaN or infinity, or an id comes twice.
    """
    import pyarrow

    began, stem = time.perf_counter(), f"{piece.key}-{uuid.uuid4().hex[:12]}"
    seen: set[str] = set()
    with folder.writing(stem + VECTORS) as vectors, folder.writing(stem + IDS) as ids:
        vectors.write(npy_header((piece.rows, space.dimension), np.dtype(space.quantisation)))
        with _id_writer(ids) as writer:
            for names, block in blocks:
                _check(names, block, seen, piece)
                vectors.write(np.ascontiguousarray(block, dtype=space.quantisation).tobytes())
                writer.write_table(pyarrow.table({"id": pyarrow.array(names, pyarrow.string())}))
    files = {VECTORS: vectors, IDS: ids}
    return Manifest(
        piece=piece.key,
        rows=piece.rows,
        space=space,
        stem=stem,
        sha256={ending: file.sha256 for ending, file in files.items()},
        sizes={ending: file.bytes for ending, file in files.items()},
        seconds=time.perf_counter() - began,
        peak_bytes=peak_bytes(),
        worker=os.getpid(),
        driver=driver,
    )


def remove_part(folder: Storage, stem: str) -> None:
    """Remove the files of an attempt that does not count."""
    for ending in (VECTORS, IDS):
        folder.remove(stem + ending)


def remove_orphans(folder: Storage, plan: Plan) -> int:
    """Remove files of attempts that no manifest names, which killed workers left; return their number.

    Call it only when no worker is active.
    """
    stems = {shard.manifest.stem for shard in all_parts(folder, plan)}
    orphans = [
        name
        for ending in (VECTORS, IDS)
        for name in folder.names(ending)
        if name.removesuffix(ending) not in stems and any(name.startswith(piece.key) for piece in plan.pieces)
    ]
    for name in orphans:
        folder.remove(name)
    return len(orphans)


def _check(names: list[str], block: np.ndarray, seen: set[str], piece: Piece) -> None:
    if not np.isfinite(block).all():
        raise DataError("the vectors contain NaN or infinity", remedy="Check the model", file=piece.file)
    for name in names:
        if name in seen:
            raise DataError(f"two documents have the id {name!r}", remedy="Give each its own id", file=piece.file)
        seen.add(name)


def _id_writer(file: HashedFile) -> pyarrow.parquet.ParquetWriter:
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([("id", pyarrow.string())])
    return pyarrow.parquet.ParquetWriter(file, schema, compression="zstd", use_dictionary=False)
