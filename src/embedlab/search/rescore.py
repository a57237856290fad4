"""Rescore a shortlist with better vectors than those that found it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from embedlab.errors import ParameterError
from embedlab.search.exact import require_depth

Searcher = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""Queries (Q, d) and k -> scores float32 (Q, k), best first, and indices int64 (Q, k) into the corpus."""

BLOCK_QUERIES = 64


def rescore(queries: np.ndarray, corpus: np.ndarray, candidates: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Order candidates by their dot product with better vectors than those that found them.

    Args:
        queries: float32 (Q, d).
        corpus: (N, d): an array, a memory map, or anything else that gives rows for an array of indices, so that
            the vectors may lie on disk or be quantised (`quantised.Codes`).
        candidates: int64 (Q, m) indices into `corpus`; -1 where there is none.
        k: documents kept per query, at most m.

    Returns:
        Scores float32 (Q, k), best first, and indices int64 (Q, k); -inf and -1 where there are too few candidates.

    Raises:
        ParameterError: k is below 1 or exceeds the candidates.
    """
    require_depth(k)
    if k > candidates.shape[1]:
        problem = f"k is {k}, there are {candidates.shape[1]} candidates"
        raise ParameterError(problem, remedy="Shortlist more documents or ask for fewer", field="k")
    scores, indices = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), BLOCK_QUERIES):
        part = slice(start, start + BLOCK_QUERIES)
        scores[part], indices[part] = _rescore_block(queries[part], corpus, np.sort(candidates[part], axis=1), k)
    return scores, indices


def rescored(first: Searcher, store: np.ndarray, shortlist: int) -> Searcher:
    """Let `first` find `shortlist` documents and the vectors of `store` order them; see `rescore`."""

    def search(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        return rescore(queries, store, first(queries, max(k, shortlist))[1], k)

    return search


def _rescore_block(queries: np.ndarray, corpus: np.ndarray, candidates: np.ndarray, k: int) -> tuple[Tensor, Tensor]:
    rows = torch.from_numpy(np.asarray(corpus[np.maximum(candidates, 0)], dtype=np.float32))
    known = torch.from_numpy(candidates)
    scores = dot(rows, torch.from_numpy(np.asarray(queries, np.float32))).masked_fill(known < 0, -torch.inf)
    best, order = scores.sort(dim=1, descending=True, stable=True)
    return best[:, :k], known.gather(1, order[:, :k])


def dot(rows: Tensor, queries: Tensor) -> Tensor:
    """Dot products (B, m) of rows (B, m, d) with queries (B, d)."""
    return torch.bmm(rows, queries[:, :, None])[:, :, 0]
