"""Choose how much a static model counts when it is concatenated with a transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from embedlab.data.dataset import Qrels
from embedlab.evaluation.metrics import evaluate
from embedlab.search.vectors import Vectors

SHARES = tuple(tenth / 10 for tenth in range(1, 10))  # 0 and 1 are the two models themselves
DEPTH = 100
FORGETTING_BUDGET = 0.01  # most that a share may lose on another dataset


def score_static_shares(
    vectors: Vectors, static: Vectors, qrels: Qrels, *, metric: str = "ndcg@10", shares: Sequence[float] = SHARES
) -> dict[float, float]:
    """Evaluate the concatenation at several shares of the static model; choose the share on dev.

    Args:
        vectors: queries and corpus encoded with the transformer.
        static: the same texts encoded with the static model.
        qrels: query id -> {document id: grade}.
        metric: what to report.
        shares: shares to evaluate.

    Returns:
        Share, the weight of the static model's cosine -> mean of the metric.
    """
    return {share: evaluate(vectors.concatenated(static, share).rank(DEPTH), qrels).mean(metric) for share in shares}


def best_share(on_dev: Mapping[float, float], elsewhere: Mapping[float, float]) -> float:
    """Return the share with the best value on dev that keeps the forgetting budget on another dataset.

    >>> best_share({0.3: 0.5, 0.7: 0.6, 0.9: 0.7}, {0.0: 0.40, 0.3: 0.41, 0.7: 0.395, 0.9: 0.38})
    0.7

    Args:
        on_dev: share -> value.
        elsewhere: share -> value on the other dataset, share 0 included; empty for none. If no share keeps the
            budget, the one that loses least is taken.
    """
    if not elsewhere:
        return max(on_dev, key=on_dev.__getitem__)
    affordable = {share: on_dev[share] for share in on_dev if elsewhere[share] >= elsewhere[0.0] - FORGETTING_BUDGET}
    return max(affordable, key=affordable.__getitem__) if affordable else max(on_dev, key=elsewhere.__getitem__)
