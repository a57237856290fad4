"""A ranking's first documents put into a better order by a model that reads query and document together."""

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
    """Order the first `depth` documents of every query by `score`; those below keep their order and stay below.

    Equal scores keep the order they had. The new scores are those of `score`; below them they only say the order.

    Raises:
        DataError: a score is NaN or infinite.
        ParameterError: `depth` is below 1.
    """
    return reorder(ranking, score_first(ranking, queries, corpus, score, depth))


def score_first(
    ranking: Ranking, queries: Mapping[str, str], corpus: Mapping[str, str], score: Score, depth: int
) -> np.ndarray:
    """`score` of the first `depth` documents of every query, float32 (queries, depth), NaN where there are fewer.

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
            pairs = [(queries[query], corpus[ranking.corpus_ids[place]]) for place in first]
            scores[row, : len(first)] = _checked(score(pairs), len(first))
    return scores


def reorder(ranking: Ranking, fresh: np.ndarray) -> Ranking:
    """The first documents of every query by the scores `fresh`, the others below them in the order they had.

    Args:
        ranking: what was scored.
        fresh: (queries, depth) from `score_first`, or from sums of such; NaN where there is no document.
    """
    indices, scores = ranking.indices.copy(), ranking.scores.copy()
    for row, given in enumerate(fresh):
        given = given[~np.isnan(given)]
        if not len(given):
            continue
        order = np.argsort(-given, kind="stable")
        indices[row, : len(given)], scores[row, : len(given)] = indices[row, order], given[order]
        below = np.isfinite(scores[row, len(given) :])
        scores[row, len(given) :][below] = given.min() - 1 - np.arange(below.sum())
    return Ranking(ranking.query_ids, ranking.corpus_ids, indices, scores)


def _checked(scores: np.ndarray, count: int) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float32).reshape(-1)
    if len(scores) != count or not np.isfinite(scores).all():
        raise DataError("The reranker gives NaN, infinity or too few scores", remedy="Check the reranker")
    return scores
