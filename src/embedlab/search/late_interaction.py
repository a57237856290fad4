"""MaxSim search: score a shortlist of documents by their token vectors.

MaxSim over a whole corpus reads every token vector for every query. In practice a first stage finds a shortlist, and
MaxSim orders it. Any ranking can be the first stage: one vector per text, BM25, a sparse model, or the tokens
themselves (`token_shortlist`, the first stage of ColBERT and PLAID).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from embedlab import progress
from embedlab.errors import DataError, ParameterError
from embedlab.models.late_interaction import TokenVectors, encode_tokens
from embedlab.search.encoded import EncodedSplit
from embedlab.search.exact import ABSENT, Ranking, require_depth, search

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder

    from embedlab.data.dataset import Dataset
    from embedlab.search.rescore import Searcher


def max_sim(query: np.ndarray, documents: TokenVectors, rows: np.ndarray | None = None) -> np.ndarray:
    """Compute MaxSim of one query with documents: the sum over its tokens of the largest dot product in the document.

    Khattab and Zaharia, ColBERT, SIGIR 2020.

    Args:
        query: (q, d), one vector per token.
        documents: token vectors of N documents.
        rows: int (m,), which of them; all when None.

    Returns:
        float32 (m,).
    """
    if query.ndim != 2 or query.shape[1] != documents.vectors.shape[1]:
        problem = f"expected a query of shape (tokens, {documents.vectors.shape[1]}), got {query.shape}"
        raise DataError(problem, remedy="Encode queries and documents with the same model")
    if rows is None:
        tokens, starts = documents.vectors, documents.starts[:-1]
    else:
        first, lengths = documents.starts[rows], np.diff(documents.starts)[rows]
        starts = np.cumsum(lengths) - lengths
        tokens = documents.vectors[np.arange(lengths.sum()) + np.repeat(first - starts, lengths)]
    if not len(starts):
        return np.empty(0, np.float32)
    products = query.astype(np.float32) @ tokens.astype(np.float32).T  # (q, tokens of all documents)
    best: np.ndarray = np.maximum.reduceat(products, starts, axis=1).sum(0)
    return best


@dataclass(frozen=True, eq=False, repr=False)
class TokenIndex(EncodedSplit):
    """The token vectors of a split's queries and of the corpus, to search and score without encoding again.

    Attributes:
        queries: token vectors of the Q queries.
        corpus: token vectors of the N documents.
    """

    queries: TokenVectors
    corpus: TokenVectors

    @property
    def bytes_per_document(self) -> float:
        """Mean bytes of a document's token vectors."""
        return self.corpus.bytes_per_text

    @property
    def tokens_per_document(self) -> float:
        """Mean number of vectors of a document."""
        return len(self.corpus.vectors) / max(1, len(self.corpus))

    def rank(self, k: int) -> Ranking:
        """Find the k documents with the largest MaxSim of all, exactly; it reads every token for every query."""
        require_depth(k)
        depth = min(k + bool(self.own_documents), len(self.corpus))
        all_documents = np.broadcast_to(np.arange(len(self.corpus)), (len(self.queries), len(self.corpus)))
        return self._ranked(all_documents, depth, k)

    def rerank(self, first: Ranking, k: int) -> Ranking:
        """Order the documents of a first stage by MaxSim.

        Args:
            first: of the same queries and corpus; all its documents are scored.
            k: documents per query, at most as many as `first` has.

        Raises:
            DataError: `first` has other queries or another corpus.
            ParameterError: `k` is outside 1 to the depth of `first`.
        """
        require_depth(k)
        if (first.query_ids, first.corpus_ids) != (self.query_ids, self.corpus_ids):
            remedy = "Rank the queries and the corpus that were encoded, in their order"
            raise DataError("the first stage has other queries or another corpus", remedy=remedy)
        if k > first.depth:
            problem = f"k must be at most {first.depth}, the length of the shortlist, got {k}"
            raise ParameterError(problem, remedy="Use a longer shortlist or a smaller k", field="k")
        return self._ranked(first.indices, first.depth, k)

    def _ranked(self, candidates: np.ndarray, depth: int, k: int) -> Ranking:
        """Rank the candidates (Q, m), -1 for none, by MaxSim; equal scores are ordered by document index."""
        indices = np.full((len(self.queries), depth), ABSENT, dtype=np.int64)
        scores = np.full((len(self.queries), depth), -np.inf, dtype=np.float32)
        for row in progress.track(range(len(self.queries)), "MaxSim"):
            documents = np.unique(candidates[row][candidates[row] != ABSENT])  # sorted
            values = max_sim(self.queries[row], self.corpus, documents)
            best = np.argsort(-values, kind="stable")[:depth]
            indices[row, : len(best)], scores[row, : len(best)] = documents[best], values[best]
        return self._ranking(scores, indices, k)

    def pair_scores(self, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], float]:
        """Compute MaxSim of every pair: (query id, document id) -> score."""
        by_query: dict[str, list[str]] = {}
        for query, document in pairs:
            by_query.setdefault(query, []).append(document)
        scores: dict[tuple[str, str], float] = {}
        for query, documents in by_query.items():
            rows = np.array([self._document_rows[document] for document in documents])
            values = max_sim(self.queries[self._query_rows[query]], self.corpus, rows)
            scores.update(zip(((query, document) for document in documents), values.tolist(), strict=True))
        return scores

    def token_shortlist(self, per_token: int, k: int, searcher: Searcher | None = None) -> Ranking:
        """Find a shortlist with the tokens themselves: the documents of the tokens nearest to each query token.

        A document's score is the sum, over the query's tokens, of its best token among those found (0 if there is
        none). With an approximate `searcher` over the tokens, such as one of `deploy.indexes`, this is the first
        stage of ColBERT and PLAID.

        Args:
            per_token: tokens to find for each token of a query.
            k: documents per query; there may be fewer.
            searcher: search over `corpus.vectors`; exact search if None.
        """
        require_depth(k)
        tokens = self.corpus.vectors
        find = searcher or (lambda queries, depth: search(queries, tokens, depth, stage="search tokens"))
        token_scores, token_rows = find(self.queries.vectors.astype(np.float32), min(per_token, len(tokens)))
        owner = np.repeat(np.arange(len(self.corpus)), np.diff(self.corpus.starts))
        depth = min(k + bool(self.own_documents), len(self.corpus))
        indices = np.full((len(self.queries), depth), ABSENT, dtype=np.int64)
        scores = np.full((len(self.queries), depth), -np.inf, dtype=np.float32)
        for row in range(len(self.queries)):
            block = slice(self.queries.starts[row], self.queries.starts[row + 1])
            documents, values = _sum_of_best(owner[token_rows[block]], token_scores[block])
            best = np.argsort(-values, kind="stable")[:depth]
            indices[row, : len(best)], scores[row, : len(best)] = documents[best], values[best]
        return self._ranking(scores, indices, k)


def _sum_of_best(owners: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum the best score of each document over the query's tokens.

    Args:
        owners: int (q, m), the document of every token found.
        scores: float (q, m).

    Returns:
        Documents (n,), ascending, and their sums float32 (n,).
    """
    documents, columns = np.unique(owners, return_inverse=True)
    best = np.full((len(owners), len(documents)), -np.inf, dtype=np.float32)
    rows = np.broadcast_to(np.arange(len(owners))[:, None], owners.shape)
    np.maximum.at(best, (rows, columns.reshape(owners.shape)), scores)
    return documents, np.where(np.isfinite(best), best, 0).sum(0)


def index_tokens(
    model: MultiVectorEncoder, dataset: Dataset, split: str = "test", *, corpus: TokenVectors | None = None
) -> TokenIndex:
    """Encode the queries of a split and the whole corpus with a late-interaction model.

    Args:
        model: from `models.late_interaction`.
        dataset: its queries, corpus and splits are used.
        split: name of the split.
        corpus: the encoded corpus, if there is one, in the order of `dataset.corpus`.

    Raises:
        ParameterError: the dataset has no queries in this split.
    """
    return TokenIndex.of(dataset, split, partial(encode_tokens, model), corpus)


def rank_by_tokens(model: MultiVectorEncoder, dataset: Dataset, split: str, k: int) -> Ranking:
    """Rank a split with a late-interaction model, exactly, for `DevEvaluator(rank=rank_by_tokens)`."""
    return index_tokens(model, dataset, split).rank(k)
