"""Split a corpus into chunks, and rank documents by their best chunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from embedlab.data.chunks import Chunking
from embedlab.search.exact import ABSENT, Ranking
from embedlab.search.vectors import Vectors


@dataclass(frozen=True, eq=False)
class Chunks:
    """A corpus split into chunks.

    Attributes:
        texts: C chunks, grouped by document, documents in corpus order.
        owners: int64 (C,), corpus index of the document of each chunk.
    """

    texts: tuple[str, ...]
    owners: np.ndarray

    @classmethod
    def of(cls, corpus: Mapping[str, str], chunking: Chunking) -> Chunks:
        """Split every document of `corpus`; a document without text is one empty chunk."""
        by_document = [chunking.split(text) for text in corpus.values()]
        owners = np.repeat(np.arange(len(by_document)), [len(chunks) for chunks in by_document])
        return cls(tuple(chunk for chunks in by_document for chunk in chunks), owners)


def rank_by_best_chunk(queries: Vectors, chunks: Chunks, chunk_vectors: np.ndarray, k: int) -> Ranking:
    """Rank documents by the score of their best chunk, exactly.

    The first k distinct documents in the ranking of chunks are the result, so the search depth doubles until every
    query has k documents.

    Args:
        queries: query vectors and document ids; its corpus vectors are not used.
        chunks: the corpus in chunks.
        chunk_vectors: (C, d), one per chunk.
        k: documents per query.
    """
    names = tuple(map(str, range(len(chunks.owners))))
    vectors = Vectors(queries.query_ids, names, queries.queries, chunk_vectors)
    own_documents = queries.own_documents
    documents, depth = min(k + bool(own_documents), len(queries.corpus_ids)), 2 * (k + bool(own_documents))
    while True:
        chunk_ranking = vectors.rank(depth, stage="search chunks")
        ranking = _rank_documents(chunk_ranking, chunks.owners, queries.corpus_ids, documents)
        if depth >= len(names) or (ranking.indices != ABSENT).all():
            return ranking.without_own(own_documents, k) if own_documents else ranking
        depth *= 2


def _rank_documents(chunk_ranking: Ranking, owners: np.ndarray, corpus_ids: tuple[str, ...], k: int) -> Ranking:
    """Turn a ranking of chunks (Q, depth) into the first k distinct documents, with the scores of their best chunks."""
    indices = np.full((len(chunk_ranking.query_ids), k), ABSENT, dtype=np.int64)
    scores = np.full((len(chunk_ranking.query_ids), k), -np.inf, dtype=np.float32)
    for row, documents in enumerate(owners[chunk_ranking.indices]):
        best_chunks = np.sort(np.unique(documents, return_index=True)[1])[:k]
        indices[row, : len(best_chunks)] = documents[best_chunks]
        scores[row, : len(best_chunks)] = chunk_ranking.scores[row, best_chunks]
    return Ranking(chunk_ranking.query_ids, corpus_ids, indices, scores)
