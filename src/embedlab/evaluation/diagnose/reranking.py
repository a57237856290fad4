"""Reorder the first documents of a ranking by the scores of a cross-encoder."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from embedlab import progress
from embedlab.errors import DataError
from embedlab.models.reranker import Score
from embedlab.search.exact import ABSENT, Ranking, require_depth


def rerank(
    ranking: Ranking, queries: Mapping[str, str], corpus: Mapping[str, str], score: Score, depth: int
) -> Ranking:
    """Reorder the first `depth` documents of every query by `score`; documents below keep their order.

    Equal scores keep their order. The scores of the documents below only express the order.

    Args:
        ranking: the ranking to reorder.
        queries: query id -> text.
        corpus: document id -> text.
        score: scoring function of a cross-encoder.
        depth: documents to reorder per query.

    Raises:
        DataError: a score is NaN or infinite.
        ParameterError: `depth` is below 1.
    """
    return reorder(ranking, score_first(ranking, queries, corpus, score, depth))


def score_first(
    ranking: Ranking, queries: Mapping[str, str], corpus: Mapping[str, str], score: Score, depth: int
) -> np.ndarray:
    """Score the first `depth` documents of every query; arguments as for `rerank`.

    Returns:
        float32 (Q, depth), NaN where a query has fewer documents.

    Raises:
        DataError: a score is NaN or infinite.
        ParameterError: `depth` is below 1.
    """
    require_depth(depth)
    scores = np.full((len(ranking.query_ids), min(depth, ranking.indices.shape[1])), np.nan, dtype=np.float32)
    for row, query in enumerate(progress.track(ranking.query_ids, "rerank")):
        first = ranking.indices[row, : scores.shape[1]]
        first = first[first != ABSENT]
        if len(first):
            pairs = [(queries[query], corpus[ranking.corpus_ids[index]]) for index in first]
            scores[row, : len(first)] = _checked(score(pairs), len(first))
    return scores


def reorder(ranking: Ranking, new_scores: np.ndarray) -> Ranking:
    """Sort the first documents of every query by `new_scores`; the others stay below in their order.

    Args:
        ranking: the ranking that was scored.
        new_scores: float (Q, depth) from `score_first` or a weighted sum of such; NaN where there is no document.
    """
    indices, scores = ranking.indices.copy(), ranking.scores.copy()
    for row, row_scores in enumerate(new_scores):
        row_scores = row_scores[~np.isnan(row_scores)]
        if not len(row_scores):
            continue
        count, order = len(row_scores), np.argsort(-row_scores, kind="stable")
        indices[row, :count], scores[row, :count] = indices[row, order], row_scores[order]
        below = np.isfinite(scores[row, count:])
        scores[row, count:][below] = row_scores.min() - 1 - np.arange(below.sum())
    return Ranking(ranking.query_ids, ranking.corpus_ids, indices, scores)


def _checked(scores: np.ndarray, count: int) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float32).reshape(-1)
    if len(scores) != count or not np.isfinite(scores).all():
        problem = f"the reranker must return {count} finite scores, got {scores[:5].tolist()}"
        raise DataError(problem, remedy="Check the model and its input")
    return scores
