"""Compare approximate search with exact search."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from embedlab.search.rescore import VectorRows

TIE = 1e-5  # scores this close differ by rounding only


def recall_at_k(
    retrieved: np.ndarray, queries: np.ndarray, vectors: VectorRows, exact_scores: np.ndarray
) -> np.ndarray:
    """Compute recall@k against exact search, with ties: float64 (Q,).

    A document counts if it scores at least as high as the k-th document of exact search. Documents with the same text
    tie, and a search that returns the other one of two equal documents has lost nothing.

    Args:
        retrieved: int64 (Q, k), rows of `vectors`; -1 for empty ranks.
        queries: (Q, d).
        vectors: (N, d), an array, a memory map or another `VectorRows`.
        exact_scores: (Q, k), best first, of exact search.
    """
    last = exact_scores[:, -1]
    scored = (np.asarray(vectors[rows[rows >= 0]]) @ query for rows, query in zip(retrieved, queries, strict=True))
    hits = [np.count_nonzero(scores >= floor - TIE) for scores, floor in zip(scored, last, strict=True)]
    return np.array(hits, dtype=float) / exact_scores.shape[1]
