"""Exact nearest-neighbour search in bounded memory, and the ranking it leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedlab import progress
from embedlab.errors import DataError, ParameterError

if TYPE_CHECKING:
    import torch

# A block's scores (16 MiB) stay small beside the vectors and are written into the same memory again and again. Measured
# on two cores with d = 384: a block of as many scores with fewer queries is up to a fifth slower, more buys nothing.
BLOCK_DOCS = 8_192
BLOCK_QUERIES = 512
ABSENT = -1  # index of a place in a ranking that holds no document


@dataclass(frozen=True, eq=False)
class Ranking:
    """The documents found for every query, as places in `corpus_ids` so that a deep ranking stays small.

    Attributes:
        query_ids: Q query ids.
        corpus_ids: the N document ids that `indices` point into.
        indices: int64 (Q, k), best first; -1 where nothing was found.
        scores: float32 (Q, k), larger is better; -inf where nothing was found.
    """

    query_ids: tuple[str, ...]
    corpus_ids: tuple[str, ...]
    indices: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        rows = len(self.query_ids)
        if len(set(self.query_ids)) != rows:
            raise DataError("A query is ranked twice", remedy="Give every query one row", field="query_ids")
        if self.indices.ndim != 2 or self.indices.shape != self.scores.shape or len(self.indices) != rows:
            problem = f"{rows} queries, indices {self.indices.shape} and scores {self.scores.shape} do not fit together"
            raise DataError(problem, remedy="Give both arrays the shape (queries, k)")
        if self.indices.size and not ABSENT <= self.indices.min() <= self.indices.max() < len(self.corpus_ids):
            problem = f"The ranking points outside its {len(self.corpus_ids)} documents"
            raise DataError(problem, remedy="Pass the ids of the corpus that was searched, in its order")

    @classmethod
    def from_search(
        cls, query_ids: Sequence[str], corpus_ids: Sequence[str], scores: np.ndarray, indices: np.ndarray
    ) -> Ranking:
        """Name the rows and columns of what `search` returned; both arrays are (Q, k)."""
        return cls(tuple(query_ids), tuple(corpus_ids), np.asarray(indices, np.int64), np.asarray(scores, np.float32))

    @classmethod
    def from_scores(cls, run: Mapping[str, Mapping[str, float]], depth: int | None = None) -> Ranking:
        """Build a ranking from query id -> {document id: score}, e.g. a cross-encoder's.

        Args:
            run: scored documents of every query; an empty mapping is a query for which nothing was found.
            depth: how many documents were asked for per query; the longest list when not given.
        """
        corpus_ids = tuple(dict.fromkeys(document for scored in run.values() for document in scored))
        place = {document: index for index, document in enumerate(corpus_ids)}
        depth = max((len(scored) for scored in run.values()), default=0) if depth is None else depth
        indices = np.full((len(run), depth), ABSENT, dtype=np.int64)
        scores = np.full((len(run), depth), -np.inf, dtype=np.float32)
        for row, scored in enumerate(run.values()):
            best = sorted(scored.items(), key=lambda item: -item[1])[:depth]
            indices[row, : len(best)] = [place[document] for document, _ in best]
            scores[row, : len(best)] = [score for _, score in best]
        return cls(tuple(run), corpus_ids, indices, scores)

    @property
    def depth(self) -> int:
        """How many documents were asked for per query (k)."""
        return self.indices.shape[1]

    @property
    def doc_ids(self) -> np.ndarray:
        """Document ids as an object array (Q, k), best first; None where nothing was found."""
        names = np.array([*self.corpus_ids, None], dtype=object)  # index -1 reads the None
        return names[self.indices]

    def as_candidates(self) -> dict[str, list[tuple[str, float]]]:
        """Query id -> [(document id, score), …], best first, without empty places."""
        rows = zip(self.query_ids, self.doc_ids, self.scores, strict=True)
        return {
            query: [(str(name), float(score)) for name, score in zip(names, scores, strict=True) if name is not None]
            for query, names, scores in rows
        }


def search(
    queries: np.ndarray,
    corpus: np.ndarray,
    k: int,
    *,
    block_docs: int = BLOCK_DOCS,
    block_queries: int = BLOCK_QUERIES,
    stage: str = "search",
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k documents with the largest dot product for every query, exactly.

    The corpus is read once, block by block, so a memory map larger than the memory will do; at no time do more than
    `block_queries x block_docs` scores exist. Equal scores are ordered by document index, lowest first.

    Args:
        queries: (Q, d) of any float type.
        corpus: (N, d) of any float type, an array or a memory map.
        k: documents per query; N where the corpus holds fewer.
        block_docs: documents scored at a time.
        block_queries: queries scored at a time.
        stage: what the progress report calls this.

    Returns:
        scores float32 (Q, k) in descending order, and indices int64 (Q, k) into `corpus`.

    Raises:
        DataError: when the shapes do not fit together or a vector holds NaN or infinity.
        ParameterError: when k is below 1.
    """
    import torch

    require_depth(k)
    _check_shapes(queries, corpus)
    k = min(k, len(corpus))
    query_tensor = torch.from_numpy(_float32(queries))
    scores = torch.full((len(queries), k), -torch.inf)
    indices = torch.zeros((len(queries), k), dtype=torch.int64)
    memory = torch.empty(min(block_queries, len(queries)) * min(block_docs, len(corpus)))
    for start in progress.track(range(0, len(corpus), block_docs), stage):
        block = torch.from_numpy(_float32(corpus[start : start + block_docs]))
        for first in range(0, len(queries), block_queries):
            rows = slice(first, first + block_queries)
            asked = query_tensor[rows]
            products = torch.mm(asked, block.T, out=memory[: len(asked) * len(block)].view(len(asked), len(block)))
            found, columns = _above(products, scores[rows, -1:], k) if start >= k else _top_of_block(products, k)
            scores[rows], indices[rows] = _merge(scores[rows], indices[rows], found, columns + start)
    if not torch.isfinite(scores).all():
        raise DataError("The vectors hold NaN or infinity", remedy="Check the model that encoded them")
    return scores.numpy(), indices.numpy()


def _top_of_block(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k best scores (B, k) and columns (B, k) of a block (B, C), columns ascending; lowest column wins a tie."""
    width = scores.shape[1]
    k = min(k, width)
    best, columns = scores.topk(min(k + 1, width), dim=1)
    if width > k:
        # topk keeps any of the scores that tie at its edge; sort those few rows in full to keep the lowest columns.
        tied = (best[:, k - 1] == best[:, k]).nonzero()[:, 0]
        if len(tied):
            columns[tied, :k] = scores[tied].argsort(dim=1, descending=True, stable=True)[:, :k]
    columns = columns[:, :k].sort(dim=1).values
    return scores.gather(1, columns), columns


def _above(scores: torch.Tensor, floor: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The scores of a block (B, C) above what each row holds at its k-th place, `floor` (B, 1), and their columns.

    After the first blocks few documents get there, and comparing all with the floor is far cheaper than ordering them.
    A later document that ties with the k-th loses to it. NaN is let through, to be complained about.

    Returns:
        Both (B, m), columns ascending, m the longest row's finds; shorter rows end with scores of -inf.
    """
    import torch

    above = scores.numpy() <= floor.numpy()  # NumPy compares several times faster than torch
    np.logical_not(above, out=above)
    rows, columns = np.divmod(np.flatnonzero(above), scores.shape[1])
    counts = np.bincount(rows, minlength=len(scores))
    if counts.max() > 4 * k:  # a corpus in ascending order would hand on everything
        return _top_of_block(scores, k)
    places = np.arange(len(rows)) - np.repeat(counts.cumsum() - counts, counts)
    found = torch.full((len(scores), int(counts.max())), -torch.inf)
    where = torch.zeros(found.shape, dtype=torch.int64)
    found.numpy()[rows, places], where.numpy()[rows, places] = scores.numpy()[rows, columns], columns
    return found, where


def _merge(
    scores: torch.Tensor, indices: torch.Tensor, new_scores: torch.Tensor, new_indices: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best of what was kept (B, k) and a later block's finds (B, k'), best first.

    Kept documents come before new ones and new ones in index order, so a stable sort settles ties by index.
    """
    import torch

    k = scores.shape[1]
    best, order = torch.cat([scores, new_scores], 1).sort(dim=1, descending=True, stable=True)
    return best[:, :k], torch.cat([indices, new_indices], 1).gather(1, order[:, :k])


def _float32(vectors: np.ndarray) -> np.ndarray:
    """`vectors` as torch wants them: float32, contiguous, writable; copied only where they are not."""
    return np.require(vectors, np.float32, ["C", "W"])


def require_depth(k: int) -> None:
    """Raise a ParameterError when k is below 1."""
    if k < 1:
        raise ParameterError(f"k is {k}", remedy="Ask for at least one document", field="k")


def _check_shapes(queries: np.ndarray, corpus: np.ndarray) -> None:
    if queries.ndim != 2 or corpus.ndim != 2 or queries.shape[1] != corpus.shape[1]:
        problem = f"Queries {queries.shape} and corpus {corpus.shape} do not fit together"
        raise DataError(problem, remedy="Give both as (rows, d) with the same d")
