"""Rescore a shortlist with better vectors than those that found it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from embedlab.errors import ParameterError
from embedlab.search.exact import require_depth

Searcher = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""Queries (Q, d) and k -> scores float32 (Q, k), best first, and indices int64 (Q, k) into the corpus."""

BLOCK_QUERIES = 64


class VectorRows(Protocol):
    """An array (N, d), a memory map, or anything that returns rows, such as `quantised.QuantisedVectors`."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """Return the vectors (..., d) of an array of indices (...)."""


def rescore(queries: np.ndarray, corpus: VectorRows, candidates: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Order candidates by their dot products with better vectors than those that found them.

    Args:
        queries: float32 (Q, d).
        corpus: (N, d), see `VectorRows`.
        candidates: int64 (Q, m) indices into `corpus`; -1 for empty ranks.
        k: documents per query, at most m.

    Returns:
        Scores float32 (Q, k), best first, and indices int64 (Q, k); -inf and -1 for empty ranks.

    Raises:
        ParameterError: `k` is outside 1 to m.
    """
    require_depth(k)
    if k > candidates.shape[1]:
        problem = f"k must be at most {candidates.shape[1]}, the number of candidates, got {k}"
        raise ParameterError(problem, remedy="Use a longer shortlist or a smaller k", field="k")
    scores, indices = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), BLOCK_QUERIES):
        block = slice(start, start + BLOCK_QUERIES)
        sorted_candidates = np.sort(candidates[block], axis=1)
        scores[block], indices[block] = _rescore_block(queries[block], corpus, sorted_candidates, k)
    return scores, indices


def rescored(first: Searcher, store: VectorRows, shortlist: int) -> Searcher:
    """Build a search in two stages: `first` finds a shortlist, and the vectors of `store` rescore it.

    Args:
        first: search for the shortlist.
        store: vectors to rescore with, see `rescore`.
        shortlist: documents per query that are rescored.
    """

    def search(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        return rescore(queries, store, first(queries, max(k, shortlist))[1], k)

    return search


def _rescore_block(queries: np.ndarray, corpus: VectorRows, candidates: np.ndarray, k: int) -> tuple[Tensor, Tensor]:
    rows = torch.from_numpy(np.asarray(corpus[np.maximum(candidates, 0)], dtype=np.float32))
    indices = torch.from_numpy(candidates)
    scores = dot(rows, torch.from_numpy(np.asarray(queries, np.float32))).masked_fill(indices < 0, -torch.inf)
    best, order = scores.sort(dim=1, descending=True, stable=True)
    return best[:, :k], indices.gather(1, order[:, :k])


def dot(rows: Tensor, queries: Tensor) -> Tensor:
    """Compute the dot products (B, m) of rows (B, m, d) with queries (B, d)."""
    return torch.bmm(rows, queries[:, :, None])[:, :, 0]
