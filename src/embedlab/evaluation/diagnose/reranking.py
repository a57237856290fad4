"""A ranking's first documents put into a better order by a model that reads query and document together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from embedlab import progress
from embedlab.errors import DataError, ModelError
from embedlab.evaluation.search import ABSENT, Ranking, require_depth

Score = Callable[[Sequence[tuple[str, str]]], np.ndarray]  # (query, document) texts -> relevance, larger is better


def load_reranker(name: str) -> Score:
    """The cross-encoder called `name`, a folder or a hub name, as a scoring function.

    Nogueira & Cho, Passage Re-ranking with BERT, 2019.

    Raises:
        ModelError: it cannot be loaded, or gives more than one number for a pair.
    """
    from sentence_transformers import CrossEncoder

    try:
        model = CrossEncoder(name)
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
    require_depth(depth)
    indices, scores = ranking.indices.copy(), ranking.scores.copy()
    for row, query in enumerate(progress.track(ranking.query_ids, "rerank")):
        head = indices[row, :depth][indices[row, :depth] != ABSENT]
        if not len(head):
            continue
        fresh = _checked(score([(queries[query], corpus[ranking.corpus_ids[place]]) for place in head]), len(head))
        order = np.argsort(-fresh, kind="stable")
        indices[row, : len(head)], scores[row, : len(head)] = head[order], fresh[order]
        below = np.isfinite(scores[row, len(head) :])
        scores[row, len(head) :][below] = fresh.min() - 1 - np.arange(below.sum())
    return Ranking(ranking.query_ids, ranking.corpus_ids, indices, scores)


def _checked(scores: np.ndarray, count: int) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float32).reshape(-1)
    if len(scores) != count or not np.isfinite(scores).all():
        raise DataError("The reranker gives NaN, infinity or too few scores", remedy="Check the reranker")
    return scores
