"""Choose how much a static model counts when it is concatenated with a transformer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from embedlab.data.dataset import Qrels
from embedlab.evaluation.metrics import evaluate
from embedlab.search.vectors import Vectors

SHARES = tuple(tenth / 10 for tenth in range(1, 10))  # 0 and 1 are the two models themselves
DEPTH = 100
FORGETTING_BUDGET = 0.01  # most that a share may lose on another dataset

ShareScores = Mapping[float, np.ndarray]


def score_static_shares(
    vectors: Vectors, static: Vectors, qrels: Qrels, *, metric: str = "ndcg@10", shares: Sequence[float] = SHARES
) -> dict[float, np.ndarray]:
    """Evaluate the concatenation at several shares of the static model; choose the share on dev.

    Args:
        vectors: queries and corpus encoded with the transformer.
        static: the same texts encoded with the static model.
        qrels: query id -> {document id: grade}.
        metric: what to report.
        shares: shares to evaluate.

    Returns:
        Share, the weight of the static model's cosine -> metric of every query (Q,).
    """
    return {share: evaluate(vectors.concatenated(static, share).rank(DEPTH), qrels).of(metric) for share in shares}


def best_share(on_dev: ShareScores, elsewhere: ShareScores | None = None) -> float:
    """Choose a share on dev that keeps the forgetting budget on another dataset.

    Near its top the curve over shares is flat, and chance decides which of them is highest. So the middle of the shares
    is taken that are level with the highest: at most one standard error of the paired difference below it. The log has
    the rules that were compared (experiments/log/2026-12-01-static-share-rules.md).

    Args:
        on_dev: share -> metric of every query, from `score_static_shares`.
        elsewhere: the same on the other dataset, share 0 included; None or empty for none. If no share keeps the
            budget, the one that loses least is taken.

    Returns:
        One of the shares of `on_dev`; of two that are equally near to the middle, the smaller one.
    """
    affordable = dict(on_dev)
    if elsewhere:
        means = {share: float(np.nanmean(values)) for share, values in elsewhere.items()}
        affordable = {share: on_dev[share] for share in on_dev if means[share] >= means[0.0] - FORGETTING_BUDGET}
        if not affordable:
            return max(on_dev, key=means.__getitem__)
    level = level_with_highest(affordable)
    return nearest_share(affordable, (min(level) + max(level)) / 2)


def nearest_share(shares: Iterable[float], wanted_share: float) -> float:
    """Return the share that is nearest to another one; of two, the smaller.

    >>> nearest_share([0.3, 0.4], 0.35)
    0.3
    """
    return min(shares, key=lambda share: (round(abs(share - wanted_share), 6), share))


def level_with_highest(scores: ShareScores) -> list[float]:
    """Return the shares whose mean is at most one standard error, paired by query, below the highest.

    >>> level_with_highest({0.2: np.zeros(2), 0.4: np.array([0.5, 0.9]), 0.6: np.array([0.7, 0.8])})
    [0.4, 0.6]
    """
    highest = max(scores.values(), key=lambda values: float(np.nanmean(values)))
    behind = {share: (highest - values)[~np.isnan(values)] for share, values in scores.items()}
    return [share for share, loss in behind.items() if loss.mean() <= loss.std() / np.sqrt(len(loss))]
