"""Merge the best documents of several parts of a corpus into the best of the whole."""

from __future__ import annotations

import numpy as np

from embedlab.search.exact import ABSENT


class TopK:
    """The k best documents of every query among all parts merged so far.

    The result does not depend on the order of the parts: equal scores are ordered by document number, lowest first, as
    `search` orders them over the whole corpus. Memory is that of two results, whatever the number of parts.

    Args:
        queries: Q, number of queries.
        k: documents per query.

    Attributes:
        scores: float32 (Q, k), best first; -inf for empty ranks.
        documents: int64 (Q, k), document numbers; -1 for empty ranks.
    """

    def __init__(self, queries: int, k: int) -> None:
        self.scores = np.full((queries, k), -np.inf, dtype=np.float32)
        self.documents = np.full((queries, k), ABSENT, dtype=np.int64)

    def add(self, scores: np.ndarray, documents: np.ndarray) -> None:
        """Merge the result of one more part.

        Args:
            scores: (Q, k'), in any order; empty ranks have the document -1.
            documents: (Q, k') numbers that are unique over all parts.

        >>> top = TopK(queries=1, k=2)
        >>> top.add(np.array([[0.5, 0.1]]), np.array([[7, 8]]))
        >>> top.add(np.array([[0.5, 0.2]]), np.array([[3, 4]]))
        >>> top.documents.tolist()
        [[3, 7]]
        """
        k = self.scores.shape[1]
        scores = np.where(documents == ABSENT, -np.inf, scores).astype(np.float32)
        all_scores = np.concatenate([self.scores, scores], axis=1)
        all_documents = np.concatenate([self.documents, documents.astype(np.int64)], axis=1)
        last = np.where(all_documents == ABSENT, np.iinfo(np.int64).max, all_documents)
        order = np.lexsort((last, -all_scores), axis=1)[:, :k]
        self.scores = np.take_along_axis(all_scores, order, axis=1)
        self.documents = np.take_along_axis(all_documents, order, axis=1)
