"""A ranking's first documents put into a better order by a model that reads query and document together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from embedlab import progress
from embedlab.errors import DataError, ModelError
from embedlab.search.exact import ABSENT, Ranking, require_depth

Score = Callable[[Sequence[tuple[str, str]]], np.ndarray]  # (query, document) texts -> relevance, larger is better


def load_reranker(name: str) -> Score:
    """The cross-encoder called `name`, a folder or a hub name, as a scoring function.

    Nogueira & Cho, Passage Re-ranking with BERT, 2019.

    Raises:
        ModelError: it cannot be loaded, or gives more than one number for a pair.
    """
    from sentence_transformers import CrossEncoder

    from embedlab.models.save import is_own_code

    try:
        model = CrossEncoder(name, trust_remote_code=is_own_code(name))
    except (OSError, ValueError) as error:
        problem = f"the reranker {name!r} cannot be loaded ({str(error).strip().splitlines()[0]:.160})"
        remedy = "Give a folder saved by sentence-transformers, or a hub name with a connection"
        raise ModelError(problem, remedy=remedy, field="reranker") from error
    if model.num_labels != 1:
        problem = f"{name!r} gives {model.num_labels} numbers for a pair"
        raise ModelError(problem, remedy="Use a cross-encoder trained to rank", field="reranker")
    return lambda pairs: model.predict(list(pairs), show_progress_bar=False)


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
