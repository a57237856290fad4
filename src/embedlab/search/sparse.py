"""Search with sparse vectors: an inverted index, as a sparse matrix of scipy.

The index has a list of (document, weight) for every dimension. A query reads the lists of its own dimensions only, and
adds weight times weight to the score of each document on them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab import progress
from embedlab.errors import DataError
from embedlab.models.sparse import encode_sparse
from embedlab.search.encoded import EncodedSplit
from embedlab.search.exact import ABSENT, Ranking, require_depth

if TYPE_CHECKING:
    from sentence_transformers import SparseEncoder

    from embedlab.data.dataset import Dataset

BLOCK_QUERIES = 64  # whose scores are in memory together
POSTING_BYTES = 8  # a document number (int32) and a weight (float32)


class InvertedIndex:
    """Search for the documents with the largest dot product, by the lists of the query's dimensions.

    Args:
        corpus: scipy sparse array (N, v) of documents; weights must be 0 or more.

    Raises:
        DataError: a weight is negative, infinite or not a number.
    """

    def __init__(self, corpus: Any) -> None:
        _require_weights(corpus, "documents")
        self.documents, self.dimensions = corpus.shape
        self._postings = corpus.T.tocsr()  # row = dimension, columns = documents
        self._postings.sort_indices()

    @property
    def bytes_per_document(self) -> float:
        """Mean bytes of a document in the index: a number and a weight for each of its dimensions."""
        return POSTING_BYTES * self._postings.nnz / max(1, self.documents)

    def search(self, queries: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the k best documents of every query; equal scores are ordered by document index.

        Args:
            queries: scipy sparse array (Q, v), weights 0 or more.
            k: documents per query. A document is found only if it shares a dimension with the query.

        Returns:
            Scores float32 (Q, k), best first, and indices int64 (Q, k); -inf and -1 for empty ranks.
        """
        require_depth(k)
        if queries.shape[1] != self.dimensions:
            problem = f"expected queries with {self.dimensions} dimensions, got {queries.shape[1]}"
            raise DataError(problem, remedy="Encode queries and documents with the same model")
        _require_weights(queries, "queries")
        k, count = min(k, self.documents), queries.shape[0]
        scores = np.full((count, k), -np.inf, dtype=np.float32)
        indices = np.full((count, k), ABSENT, dtype=np.int64)
        queries = queries.tocsr()
        for start in progress.track(range(0, count, BLOCK_QUERIES), "search sparse"):
            block = queries[start : start + BLOCK_QUERIES] @ self._postings
            block.sort_indices()
            block.eliminate_zeros()
            for row in range(block.shape[0]):
                entries = slice(block.indptr[row], block.indptr[row + 1])
                best = np.argsort(-block.data[entries], kind="stable")[:k]
                scores[start + row, : len(best)] = block.data[entries][best]
                indices[start + row, : len(best)] = block.indices[entries][best]
        return scores, indices


def _require_weights(vectors: Any, name: str) -> None:
    if not np.isfinite(vectors.data).all() or (vectors.data < 0).any():
        problem = f"the weights of the {name} must be finite and 0 or more"
        raise DataError(problem, remedy="Check the model that encoded them")


@dataclass(frozen=True, eq=False, repr=False)
class SparseVectors(EncodedSplit):
    """The sparse vectors of a split's queries and of the corpus, to search and score without encoding again.

    Attributes:
        queries: scipy sparse array (Q, v).
        corpus: scipy sparse array (N, v).
    """

    @cached_property
    def index(self) -> InvertedIndex:
        """The inverted index of the corpus."""
        return InvertedIndex(self.corpus)

    @property
    def terms_per_document(self) -> float:
        """Mean number of weights above 0 of a document."""
        return self.corpus.nnz / max(1, self.corpus.shape[0])

    def rank(self, k: int) -> Ranking:
        """Find the k documents with the largest dot product for every query; there may be fewer."""
        require_depth(k)
        scores, indices = self.index.search(self.queries, k + bool(self.own_documents))
        return self._ranking(scores, indices, k)

    def pair_scores(self, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], float]:
        """Compute the dot product of every pair: (query id, document id) -> score."""
        pairs = list(pairs)
        if not pairs:
            return {}
        queries = self.queries.tocsr()[[self._query_rows[query] for query, _ in pairs]]
        documents = self.corpus.tocsr()[[self._document_rows[document] for _, document in pairs]]
        scores = np.asarray(queries.multiply(documents).sum(axis=1)).ravel()
        return dict(zip(pairs, scores.tolist(), strict=True))


def encode_sparse_split(
    model: SparseEncoder, dataset: Dataset, split: str = "test", *, corpus: Any = None
) -> SparseVectors:
    """Encode the queries of a split and the whole corpus with a sparse model.

    Args:
        model: from `models.sparse`.
        dataset: its queries, corpus and splits are used.
        split: name of the split.
        corpus: the encoded corpus, if there is one, in the order of `dataset.corpus`.

    Raises:
        ParameterError: the dataset has no queries in this split.
    """
    return SparseVectors.of(dataset, split, partial(encode_sparse, model), corpus)


def rank_sparse(model: SparseEncoder, dataset: Dataset, split: str, k: int) -> Ranking:
    """Rank a split with a sparse model, for `DevEvaluator(rank=rank_sparse)`."""
    return encode_sparse_split(model, dataset, split).rank(k)
