"""Embeddings of a split and its corpus: encode, truncate, concatenate and search them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from embedlab.data.dataset import Dataset
from embedlab.errors import ParameterError
from embedlab.models.adapter import VectorAdapter
from embedlab.models.concatenation import concatenate, static_part
from embedlab.models.sides import sides_of
from embedlab.models.truncation import tell_truncation
from embedlab.search.collapse import warn_about_vectors
from embedlab.search.encoded import EncodedSplit, judged_queries
from embedlab.search.exact import Ranking, require_depth, search

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Encode = Callable[..., np.ndarray]  # called like `embedlab.models.encode.encode`

PAIRS_PER_BLOCK = 16_384  # scored together; 25 MB per side at d = 384


def truncate(vectors: np.ndarray, dim: int) -> np.ndarray:
    """Keep the first `dim` dimensions of every vector and scale the rows to unit length again.

    Kusupati et al., Matryoshka Representation Learning, NeurIPS 2022.

    Args:
        vectors: (n, d).
        dim: from 1 to d.

    Returns:
        float32 (n, dim); rows of zeros stay zero.

    Raises:
        ParameterError: `dim` is outside 1 to d.
    """
    if not 1 <= dim <= vectors.shape[1]:
        problem = f"dim must be between 1 and {vectors.shape[1]}, got {dim}"
        raise ParameterError(problem, remedy=f"Choose 1 to {vectors.shape[1]}", field="dims")
    prefix = np.asarray(vectors[:, :dim], dtype=np.float32)
    lengths = np.linalg.norm(prefix, axis=1, keepdims=True)
    return prefix / np.where(lengths > 0, lengths, 1)


@dataclass(frozen=True, eq=False, repr=False)
class Vectors(EncodedSplit):
    """The unit vectors of a split's queries and of the corpus, to search and score without encoding again.

    Attributes:
        queries: float32 (Q, d).
        corpus: (N, d), an array or a memory map.
        searched: int64 (n,) rows of the corpus that searches are limited to; None for all.
    """

    queries: np.ndarray
    corpus: np.ndarray
    searched: np.ndarray | None = None

    @property
    def dim(self) -> int:
        """Number of dimensions (d)."""
        return self.queries.shape[1]

    def truncated(self, dim: int) -> Vectors:
        """Truncate queries and corpus to `dim` dimensions; see `truncate`."""
        if dim == self.dim:
            return self
        return replace(self, queries=truncate(self.queries, dim), corpus=truncate(self.corpus, dim))

    def mapped(self, matrix: np.ndarray) -> Vectors:
        """Apply a linear map (d, e) to queries and corpus, and scale the rows to unit length; zero rows stay zero."""
        queries, corpus = (np.asarray(rows, dtype=np.float32) @ matrix for rows in (self.queries, self.corpus))
        for rows in (queries, corpus):
            rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return replace(self, queries=queries, corpus=corpus)

    def adapted(self, adapter: VectorAdapter) -> Vectors:
        """Apply an adapter to queries and documents; without a map for documents, the corpus is the same array."""
        queries = self.queries if adapter.query is None else adapter.query.apply(self.queries)
        corpus = self.corpus if adapter.document is None else adapter.document.apply(self.corpus)
        return replace(self, queries=queries, corpus=corpus)

    def concatenated(self, static: Vectors, static_share: float) -> Vectors:
        """Concatenate with the static model's vectors of the same texts; see `models.concatenation.concatenate`."""
        queries = concatenate(self.queries, static.queries, static_share)
        return replace(self, queries=queries, corpus=concatenate(self.corpus, static.corpus, static_share))

    def searching(self, rows: np.ndarray) -> Vectors:
        """Limit searches to these rows of the corpus (n,), ascending; `pair_scores` keeps all documents."""
        return replace(self, searched=rows)

    def corpus_of(self, documents: Iterable[str]) -> np.ndarray:
        """Return the vectors of n documents of the corpus (n, d), in their order."""
        return np.asarray(self.corpus[[self._document_rows[document] for document in documents]])

    def rank(self, k: int, *, stage: str = "search") -> Ranking:
        """Find the k nearest documents of every query, exactly; `stage` names the search in progress reports."""
        corpus = self.corpus if self.searched is None else self.corpus[self.searched]
        return self.ranked(k, lambda queries, depth: search(queries, corpus, depth, stage=stage))

    def ranked(self, k: int, searcher: Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]) -> Ranking:
        """Rank with any search over the documents, see `rescore.Searcher`, without the queries' own documents."""
        require_depth(k)
        scores, indices = searcher(self.queries, k + bool(self.own_documents))
        names = self.corpus_ids
        if self.searched is not None:
            names = tuple(names[row] for row in self.searched.tolist())
        ranking = Ranking.from_search(self.query_ids, names, scores, indices)
        return ranking.without_own(self.own_documents, k) if self.own_documents else ranking

    def pair_scores(self, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], float]:
        """Compute the dot product of every pair: (query id, document id) -> score."""
        pairs = list(pairs)
        scores: dict[tuple[str, str], float] = {}
        for start in range(0, len(pairs), PAIRS_PER_BLOCK):
            block = pairs[start : start + PAIRS_PER_BLOCK]
            query_vectors = self.queries[[self._query_rows[query] for query, _ in block]]
            document_vectors = self.corpus[[self._document_rows[document] for _, document in block]]
            dots = np.einsum("nd,nd->n", query_vectors, document_vectors, dtype=np.float32)
            scores.update(zip(block, dots.tolist(), strict=True))
        return scores


def encode_split(
    model: SentenceTransformer,
    dataset: Dataset,
    split: str = "test",
    *,
    corpus_vectors: np.ndarray | None = None,
    encode: Encode | None = None,
    static: SentenceTransformer | None = None,
) -> Vectors:
    """Encode the queries of a split and the whole corpus, with the model's own query and document prompts.

    Args:
        model: the model to encode with.
        dataset: its queries, corpus and splits are used.
        split: name of the split.
        corpus_vectors: the corpus (N, d), if it is already encoded, in the order of `dataset.corpus`.
        encode: replaces `embedlab.models.encode.encode`, e.g. `EmbeddingCache().encode`.
        static: encode the tokens that `model` reads with the embeddings of this static model. The result is the static
            half of their concatenation, see `models.concatenation.static_part`.

    Returns:
        Unit vectors of Q queries and N documents.

    Raises:
        ParameterError: the dataset has no queries in this split.
        DataError: `corpus_vectors` has another number of rows than the corpus.
    """
    if static is not None:
        encode = static_part(static)
    if encode is None:
        from embedlab.models.encode import encode as default_encode

        encode = default_encode
    queries, sides = judged_queries(dataset, split), sides_of(model)
    tell_truncation(model, dataset.name, documents=dataset.corpus, queries=queries)
    if corpus_vectors is None:
        encoder, prompt, _ = sides.document
        corpus_vectors = encode(encoder, list(dataset.corpus.values()), stage="encode corpus", prompt=prompt)
    warn_about_vectors(corpus_vectors, "document vectors")
    encoder, prompt, _ = sides.query
    query_vectors = encode(encoder, list(queries.values()), stage="encode queries", prompt=prompt)
    own_documents = dataset.own_documents(split)
    return Vectors(tuple(queries), tuple(dataset.corpus), query_vectors, corpus_vectors, own_documents)
