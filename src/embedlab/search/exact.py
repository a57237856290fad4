"""Exact nearest-neighbour search in bounded memory, and rankings."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from embedlab import progress
from embedlab.errors import DataError, ParameterError

if TYPE_CHECKING:
    import torch

# The scores of a block take 16 MiB and reuse the same memory. Measured on two cores with d = 384: blocks of the same
# size with fewer queries are up to a fifth slower, and larger blocks are not faster.
BLOCK_DOCS = 8_192
BLOCK_QUERIES = 512
ABSENT = -1  # index of an empty rank


@dataclass(frozen=True, eq=False)
class Ranking:
    """The ranked documents of every query, as indices into `corpus_ids`.

    Attributes:
        query_ids: Q query ids.
        corpus_ids: the N document ids that `indices` point into.
        indices: int64 (Q, k), best first; -1 for empty ranks.
        scores: float32 (Q, k), larger is better; -inf for empty ranks.
        measurable: False if the ranking says nothing about its system, for example BM25 between two languages. Its
            metrics are NaN instead of 0.
    """

    query_ids: tuple[str, ...]
    corpus_ids: tuple[str, ...]
    indices: np.ndarray
    scores: np.ndarray
    measurable: bool = True

    def __repr__(self) -> str:
        """One short line: a notebook cell may end with a ranking."""
        return f"Ranking({len(self.query_ids)} queries, {self.indices.shape[-1]} of {len(self.corpus_ids)} documents)"

    def __post_init__(self) -> None:
        rows = len(self.query_ids)
        if len(set(self.query_ids)) != rows:
            raise DataError("query_ids contains a query twice", remedy="Pass each query once", field="query_ids")
        if self.indices.ndim != 2 or self.indices.shape != self.scores.shape or len(self.indices) != rows:
            problem = (
                f"expected indices and scores of shape ({rows}, k), got {self.indices.shape} and {self.scores.shape}"
            )
            raise DataError(problem, remedy="Pass one row per query in both arrays")
        if self.indices.size and not ABSENT <= self.indices.min() <= self.indices.max() < len(self.corpus_ids):
            problem = f"indices must be between -1 and {len(self.corpus_ids) - 1}, the last document"
            raise DataError(problem, remedy="Pass the ids of the corpus that was searched, in its order")

    @classmethod
    def from_search(
        cls, query_ids: Sequence[str], corpus_ids: Sequence[str], scores: np.ndarray, indices: np.ndarray
    ) -> Ranking:
        """Build a ranking from the result of `search`: scores and indices, both (Q, k)."""
        return cls(tuple(query_ids), tuple(corpus_ids), np.asarray(indices, np.int64), np.asarray(scores, np.float32))

    @classmethod
    def from_scores(cls, run: Mapping[str, Mapping[str, float]], depth: int | None = None) -> Ranking:
        """Build a ranking from query id -> {document id: score}, e.g. a cross-encoder's.

        Args:
            run: scored documents of every query; may be empty for a query.
            depth: documents per query; the longest list when not given.
        """
        corpus_ids = tuple(dict.fromkeys(document for scored in run.values() for document in scored))
        index_of = {document: index for index, document in enumerate(corpus_ids)}
        depth = max((len(scored) for scored in run.values()), default=0) if depth is None else depth
        indices = np.full((len(run), depth), ABSENT, dtype=np.int64)
        scores = np.full((len(run), depth), -np.inf, dtype=np.float32)
        for row, scored in enumerate(run.values()):
            best = sorted(scored.items(), key=lambda item: -item[1])[:depth]
            indices[row, : len(best)] = [index_of[document] for document, _ in best]
            scores[row, : len(best)] = [score for _, score in best]
        return cls(tuple(run), corpus_ids, indices, scores)

    def without_own(self, queries: Collection[str], depth: int | None = None) -> Ranking:
        """Leave out the document with the query's own id; the documents below move up.

        Args:
            queries: ids of the queries whose own document is left out, see `Dataset.own_documents`.
            depth: ranks per query to return; all when not given. Search one rank deeper to fill the last one.
        """
        documents = own_rows(self.query_ids, self.corpus_ids, queries)
        documents[documents == ABSENT] = len(self.corpus_ids)  # an index that no rank has
        left_out = self.indices == documents[:, None]
        order = np.argsort(left_out, axis=1, kind="stable")[:, :depth]
        indices = np.take_along_axis(np.where(left_out, ABSENT, self.indices), order, 1)
        scores = np.take_along_axis(np.where(left_out, -np.inf, self.scores), order, 1)
        return replace(self, indices=indices, scores=scores)

    @property
    def depth(self) -> int:
        """Ranks per query (k)."""
        return self.indices.shape[1]

    @property
    def doc_ids(self) -> np.ndarray:
        """Document ids as an object array (Q, k), best first; None for empty ranks."""
        names = np.array([*self.corpus_ids, None], dtype=object)  # index -1 reads the None
        return names[self.indices]

    def as_candidates(self) -> Candidates:
        """Query id -> [(document id, score), …], best first, without empty ranks."""
        return Candidates(self)


def cut(ranking: Ranking, depth: int) -> Ranking:
    """Keep the first `depth` ranks of every query."""
    return replace(ranking, indices=ranking.indices[:, :depth], scores=ranking.scores[:, :depth])


class Candidates(Mapping[str, list[tuple[str, float]]]):
    """Query id -> [(document id, score), …], best first, without empty ranks.

    The lists are made when they are read: a hundred of these tuples take 10 kB, the ranks in the arrays 1.2 kB.

    Args:
        ranking: the ranked documents.
    """

    def __init__(self, ranking: Ranking) -> None:
        self._ranking = ranking
        self._rows = {query: row for row, query in enumerate(ranking.query_ids)}

    def __getitem__(self, query: str) -> list[tuple[str, float]]:
        row, names = self._rows[query], self._ranking.corpus_ids
        ranks = zip(self._ranking.indices[row].tolist(), self._ranking.scores[row].tolist(), strict=True)
        return [(names[index], score) for index, score in ranks if index != ABSENT]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def own_rows(query_ids: Sequence[str], corpus_ids: Sequence[str], queries: Collection[str]) -> np.ndarray:
    """Find the document with each query's own id.

    Args:
        query_ids: Q query ids.
        corpus_ids: N document ids.
        queries: ids of the queries to look up; the others have no own document.

    Returns:
        int64 (Q,), indices into `corpus_ids`; -1 where there is none.
    """
    looked_up = {query for query in query_ids if query in queries}
    column_of = {document: column for column, document in enumerate(corpus_ids) if document in looked_up}
    return np.array([column_of.get(query, ABSENT) for query in query_ids], dtype=np.int64)


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

    The corpus is read once, block by block, so it may be a memory map larger than the memory. At most
    `block_queries x block_docs` scores exist at a time. Equal scores are ordered by document index, lowest first.

    Args:
        queries: (Q, d) of any float type.
        corpus: (N, d) of any float type, an array or a memory map.
        k: documents per query; at most N are returned.
        block_docs: documents scored at a time.
        block_queries: queries scored at a time.
        stage: name of this search in progress reports.

    Returns:
        scores float32 (Q, k) in descending order, and indices int64 (Q, k) into `corpus`.

    Raises:
        DataError: the shapes do not match, or a vector contains NaN or infinity.
        ParameterError: `k` is below 1.
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
            query_block = query_tensor[rows]
            products = torch.mm(query_block, block.T, out=memory[: len(query_block) * len(block)].view(-1, len(block)))
            best, columns = _above(products, scores[rows, -1:], k) if start >= k else _top_of_block(products, k)
            scores[rows], indices[rows] = _merge(scores[rows], indices[rows], best, columns + start)
    if not torch.isfinite(scores).all():
        raise DataError("the vectors contain NaN or infinity", remedy="Check the model that encoded them")
    return scores.numpy(), indices.numpy()


def _top_of_block(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k best scores (B, k) of a block (B, C) and their columns, ascending; the lowest column wins a tie."""
    width = scores.shape[1]
    k = min(k, width)
    best, columns = scores.topk(min(k + 1, width), dim=1)
    if width > k:
        # topk may return any of the scores that tie at rank k: sort those few rows to get the lowest columns.
        tied = (best[:, k - 1] == best[:, k]).nonzero()[:, 0]
        if len(tied):
            columns[tied, :k] = scores[tied].argsort(dim=1, descending=True, stable=True)[:, :k]
    columns = columns[:, :k].sort(dim=1).values
    return scores.gather(1, columns), columns


def _above(scores: torch.Tensor, floor: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the scores of a block (B, C) above the k-th score so far, `floor` (B, 1), and their columns.

    After the first blocks few documents pass, and comparing is far cheaper than sorting. A later document that ties
    with the k-th loses to it. NaN passes and is reported at the end of the search.

    Returns:
        Both (B, m), columns ascending, with m the number of the longest row; shorter rows end with scores of -inf.
    """
    import torch

    above = scores.numpy() <= floor.numpy()  # NumPy compares several times faster than torch
    np.logical_not(above, out=above)
    rows, columns = np.divmod(np.flatnonzero(above), scores.shape[1])
    counts = np.bincount(rows, minlength=len(scores))
    if counts.max() > 4 * k:  # in a corpus with ascending scores everything would pass
        return _top_of_block(scores, k)
    positions = np.arange(len(rows)) - np.repeat(counts.cumsum() - counts, counts)
    passed = torch.full((len(scores), int(counts.max())), -torch.inf)
    passed_columns = torch.zeros(passed.shape, dtype=torch.int64)
    passed.numpy()[rows, positions] = scores.numpy()[rows, columns]
    passed_columns.numpy()[rows, positions] = columns
    return passed, passed_columns


def _merge(
    scores: torch.Tensor, indices: torch.Tensor, new_scores: torch.Tensor, new_indices: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Merge the best so far (B, k) with the best of a later block (B, k'), best first.

    Earlier documents come first and new ones in index order, so a stable sort breaks ties by index.
    """
    import torch

    k = scores.shape[1]
    best, order = torch.cat([scores, new_scores], 1).sort(dim=1, descending=True, stable=True)
    return best[:, :k], torch.cat([indices, new_indices], 1).gather(1, order[:, :k])


def _float32(vectors: np.ndarray) -> np.ndarray:
    """Return `vectors` as float32, contiguous and writable, which torch needs; copied only if necessary."""
    return np.require(vectors, np.float32, ["C", "W"])


def matched(ranking: Ranking) -> Ranking:
    """Return a ranking by common words or letters; if no query has any, it is not measurable."""
    has_results = bool((ranking.indices != ABSENT).any())
    return replace(ranking, measurable=has_results or not ranking.query_ids)


def require_depth(k: int) -> None:
    """Raise a ParameterError if k is below 1."""
    if k < 1:
        raise ParameterError(f"k must be at least 1, got {k}", remedy="Set k=10, for example", field="k")


def _check_shapes(queries: np.ndarray, corpus: np.ndarray) -> None:
    if queries.ndim != 2 or corpus.ndim != 2 or queries.shape[1] != corpus.shape[1]:
        problem = f"expected queries (Q, d) and corpus (N, d), got {queries.shape} and {corpus.shape}"
        raise DataError(problem, remedy="Encode both with the same model")
