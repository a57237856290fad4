"""Embed documents in Parquet files on several machines or GPUs: every piece once, whatever dies on the way.

A worker writes the vectors and ids of a piece under names of its own and then commits a manifest, which names them
(`parts`). A manifest is created once. If a worker is killed, its piece has no manifest and is done again; if two
workers do the same piece, the first manifest counts and the files of the other are removed. Pieces are named after the
content of their documents: a document file that changed or was added makes new pieces, and the others are kept.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol, TypeVar

import numpy as np

from embedlab import progress
from embedlab.deploy.claims import Claim
from embedlab.deploy.parts import MANIFEST, Manifest, Plan, finished, remove_part, write_part, write_plan
from embedlab.deploy.pieces import ROWS, Columns, Piece, find_pieces, read_piece
from embedlab.deploy.space import Encoder, Space, require_same
from embedlab.deploy.storage import Storage

CLAIM = ".claim"
BLOCK = 1024  # documents read, encoded and written together
WAIT_S = 2.0  # between two looks at pieces that another driver works on

Work = TypeVar("Work")
Outcome = TypeVar("Outcome")
MakeEncoder = Callable[[str], Encoder]


class Pool(Protocol):
    """Workers, for example `sweeps.pools.DaskPool`."""

    def run(
        self, function: Callable[[Work], Outcome], items: Iterable[Work]
    ) -> Iterator[tuple[Work, Outcome | Exception]]:
        """Call `function` with every item and yield (item, result or error) as they end, in any order.

        An item whose worker is lost is given to another worker.
        """
        ...


@dataclass(frozen=True)
class Task:
    """One piece for one worker; everything that another process needs.

    Attributes:
        source: of the documents.
        folder: of the results, that of the vector space.
        piece: what to do.
        columns: of the documents.
        model: name of the model.
        space: that the model must have.
        driver: token of the driver, for claims.
        make_encoder: loads the model by name; called once per process.
    """

    source: Storage
    folder: Storage
    piece: Piece
    columns: Columns
    model: str
    space: Space
    driver: str
    make_encoder: MakeEncoder


@dataclass
class ShardReport:
    """Result of `embed_shards`.

    Attributes:
        pieces, documents: of the whole source.
        encoded: documents that this call has encoded.
        seconds: wall-clock time.
        failures: piece -> error, for pieces that could not be done.
        manifests: of all finished pieces, in the order in which they ended.
    """

    pieces: int
    documents: int
    encoded: int = 0
    seconds: float = 0.0
    failures: dict[Piece, Exception] = field(default_factory=dict)
    manifests: list[Manifest] = field(default_factory=list)

    def __str__(self) -> str:
        """Return the counts in words."""
        rate = f", {self.encoded / self.seconds:,.0f} documents per second" if self.encoded and self.seconds else ""
        return f"{self.documents:,} documents in {self.pieces:,} pieces: {self.encoded:,} encoded{rate}"


class Claimed(Exception):
    """A worker of another driver works on the piece."""


def embed_shards(
    source: Storage,
    target: Storage,
    model: str,
    encoder: Encoder,
    pool: Pool,
    *,
    make_encoder: MakeEncoder,
    columns: Columns | None = None,
    rows: int = ROWS,
) -> ShardReport:
    """Give every document of the source a vector in `target`, in a folder named after the vector space.

    Finished pieces are kept, so the same command continues after an interruption. Two calls at the same time share the
    work.

    Args:
        source: folder of Parquet files.
        target: folder of the results.
        model: its name, which the workers load.
        encoder: the same model here; its space is the one that every worker must have.
        pool: the workers.
        make_encoder: loads the model in a worker; must be importable there.
        columns: names of the id and text columns.
        rows: documents per piece.

    Returns:
        A report; its `failures` are pieces that could not be done.

    Raises:
        DataError: the source cannot be read.
        StorageError: the target cannot be written.
    """
    began, driver, columns = time.perf_counter(), uuid.uuid4().hex, columns or Columns()
    pieces = find_pieces(source, columns, rows=rows)
    folder, space = target.within(encoder.space.fingerprint), encoder.space
    write_plan(folder, Plan(space=space, model=model, pieces=pieces))
    report = ShardReport(len(pieces), sum(piece.rows for piece in pieces))
    with progress.counted("embed shards", report.documents) as advance:
        waiting = []
        for piece in pieces:
            if manifest := finished(folder, piece, space):
                report.manifests.append(manifest)
                advance(piece.rows)
            else:
                waiting.append(Task(source, folder, piece, columns, model, space, driver, make_encoder))
        try:
            while waiting:
                waiting = _round(pool, waiting, report, advance)
        finally:
            _release_claims(folder, pieces, driver)
    report.seconds = time.perf_counter() - began
    return report


def _round(pool: Pool, tasks: Sequence[Task], report: ShardReport, advance: Callable[[int], None]) -> list[Task]:
    """Do tasks once; return those that another driver holds."""
    claimed = []
    for task, outcome in pool.run(embed_piece, tasks):
        if isinstance(outcome, Claimed):
            claimed.append(task)
            continue
        if isinstance(outcome, Exception):
            report.failures[task.piece] = outcome
        else:
            report.manifests.append(outcome)
            report.encoded += outcome.rows if outcome.driver == task.driver else 0
        advance(task.piece.rows)
    if len(claimed) == len(tasks):
        time.sleep(WAIT_S)
    return claimed


def _release_claims(folder: Storage, pieces: Sequence[Piece], driver: str) -> None:
    """Remove the claims of workers that were killed or interrupted, so that the next call does not wait for them."""
    claims = set(folder.names(CLAIM))
    for piece in pieces:
        if piece.key + CLAIM in claims:
            Claim(folder, piece.key + CLAIM, driver).release()


def embed_piece(task: Task) -> Manifest:
    """Embed one piece in a worker; returns the manifest that counts, which may be that of another worker.

    Raises:
        Claimed: a worker of another driver works on it.
        SpaceMismatch: the model here is another one than the driver's.
    """
    if manifest := finished(task.folder, task.piece, task.space):
        return manifest
    claim = Claim(task.folder, task.piece.key + CLAIM, task.driver)
    if not claim.take():
        raise Claimed
    try:
        return _embed_claimed(task, claim)
    finally:
        claim.release()


def _embed_claimed(task: Task, claim: Claim) -> Manifest:
    encoder = _encoder(task.make_encoder, task.model)
    require_same(task.space, encoder.space, action=f"encoding {task.piece.file}")

    def blocks() -> Iterator[tuple[list[str], np.ndarray]]:
        for ids, texts in read_piece(task.source, task.piece, task.columns, BLOCK):
            yield ids, encoder.encode_documents(texts)
            claim.renew()

    manifest = write_part(task.folder, task.piece, task.space, blocks(), task.driver)
    if task.folder.commit_once(task.piece.key + MANIFEST, manifest.to_bytes()):
        return manifest
    remove_part(task.folder, manifest.stem)
    return finished(task.folder, task.piece, task.space) or manifest


@cache
def _encoder(make_encoder: MakeEncoder, model: str) -> Encoder:
    return make_encoder(model)
