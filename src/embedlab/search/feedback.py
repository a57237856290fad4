"""Pseudo-relevance feedback: move every query towards the documents that a first search found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from embedlab.errors import ParameterError
from embedlab.search.exact import ABSENT, Ranking, require_depth
from embedlab.search.vectors import Vectors


def with_feedback(vectors: Vectors, ranking: Ranking, documents: int, weight: float) -> Vectors:
    """Add `weight` times the mean of the first `documents` found to every query vector, and scale to unit length.

    Rocchio, "Relevance Feedback in Information Retrieval" (1971), without judgements: the first documents count as
    relevant. No query text, judgement or training is used. The result searches the same documents once more.

    Args:
        vectors: queries (Q, d) and corpus (N, d).
        ranking: the first search of these queries in this corpus.
        documents: documents per query that count as relevant; fewer where fewer were found.
        weight: 0 leaves the queries as they are.

    Raises:
        ParameterError: `documents` is below 1, the weight is negative, or the ranking is of other queries or documents.
    """
    require_depth(documents)
    if not weight >= 0:
        raise ParameterError(f"the weight must be at least 0, got {weight}", remedy="Choose 0 to 1", field="weight")
    if (ranking.query_ids, ranking.corpus_ids) != (vectors.query_ids, vectors.corpus_ids):
        remedy = "Use the ranking of these vectors"
        raise ParameterError("the ranking has other queries or documents than the vectors", remedy=remedy)
    first = ranking.indices[:, :documents]
    is_ranked = (first != ABSENT)[:, :, None]
    rows = np.where(is_ranked, vectors.corpus[first], 0)  # (Q, documents, d)
    mean = rows.sum(axis=1) / np.maximum(is_ranked.sum(axis=1), 1)
    queries = vectors.queries + np.float32(weight) * mean
    queries /= np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return replace(vectors, queries=queries.astype(np.float32))
