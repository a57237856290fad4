"""Choose how much a static model counts when it is concatenated with a transformer."""

from __future__ import annotations

from collections.abc import Sequence

from embedlab.data.dataset import Qrels
from embedlab.evaluation.metrics import evaluate
from embedlab.search.vectors import Vectors

SHARES = (0.3, 0.5, 0.7)
DEPTH = 100


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
