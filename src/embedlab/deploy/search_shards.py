"""Search the vectors of all pieces: exactly, or through an IVF-PQ index on disk.

Every worker searches whole pieces and returns k documents per query, so what travels does not grow with the corpus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedlab import progress
from embedlab.deploy.parts import Part, Plan, all_parts
from embedlab.deploy.shards import Pool
from embedlab.deploy.storage import Storage
from embedlab.search.exact import ABSENT, Ranking, require_depth, search
from embedlab.search.merging import TopK


@dataclass(frozen=True, eq=False)
class SearchTask:
    """Queries for one piece.

    Attributes:
        shard: the vectors to search.
        queries: float32 (Q, d).
        k: documents per query.
    """

    shard: Part
    queries: np.ndarray
    k: int


def search_shards(folder: Storage, plan: Plan, queries: np.ndarray, k: int, pool: Pool) -> TopK:
    """Find the k documents with the largest dot product for every query, exactly, over all pieces.

    The result is that of `search` over all vectors in the order of the plan, and does not depend on how the documents
    are cut into pieces.

    Args:
        folder: of the results.
        plan: of the same folder.
        queries: float32 (Q, d) in the plan's space.
        k: documents per query.
        pool: the workers.

    Returns:
        Scores, and document numbers in the order of the plan.

    Raises:
        StorageError: a piece is not finished, or cannot be read.
    """
    require_depth(k)
    parts = all_parts(folder, plan)
    top = TopK(len(queries), k)
    tasks = [SearchTask(shard, queries, k) for shard in parts]
    merge(pool, tasks, top, plan)
    return top


def merge(pool: Pool, tasks: Sequence[SearchTask], top: TopK, plan: Plan) -> None:
    """Run tasks and merge their results as they end; raise the first error."""
    with progress.counted("search shards", sum(piece.rows for piece in plan.pieces)) as advance:
        for task, outcome in pool.run(search_part, tasks):
            if isinstance(outcome, Exception):
                raise outcome
            top.add(*outcome)
            advance(task.shard.piece.rows)


def search_part(task: SearchTask) -> tuple[np.ndarray, np.ndarray]:
    """Search one piece in a worker: scores (Q, k) and document numbers (Q, k) over all pieces."""
    top, start = TopK(len(task.queries), task.k), task.shard.piece.start
    for block in task.shard.vectors():
        scores, rows = search(task.queries, block, task.k, stage="search a piece")
        top.add(scores, rows + start)
        start += len(block)
    return top.scores, top.documents


def named(top: TopK, query_ids: Sequence[str], parts: Sequence[Part]) -> Ranking:
    """Replace document numbers by ids, reading the ids of one piece at a time.

    Args:
        top: result of a search.
        query_ids: of its rows.
        parts: of the plan, in order.
    """
    documents = np.unique(top.documents[top.documents != ABSENT])
    names: list[str] = []
    for shard in parts:
        numbers = documents[(documents >= shard.piece.start) & (documents < shard.piece.start + shard.piece.rows)]
        if len(numbers):
            ids = shard.ids()
            names += [ids[number - shard.piece.start] for number in numbers.tolist()]
    indices = np.where(top.documents == ABSENT, ABSENT, np.searchsorted(documents, top.documents))
    return Ranking.from_search(query_ids, names, top.scores, indices)
