"""Rerank a shortlist with a cross-encoder, alone or averaged with the scores of the embedding model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from embedlab.data.dataset import Dataset, Qrels
from embedlab.evaluation.diagnose.reranking import reorder, score_first
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.significance import bootstrap_ci
from embedlab.models.cross_encoder import average_scores, score_pairs
from embedlab.search.exact import Ranking

if TYPE_CHECKING:
    import pandas as pd
    from sentence_transformers import CrossEncoder

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def headroom(ranking: Ranking, qrels: Qrels, depths: Sequence[int], metric: str = "ndcg@10") -> pd.DataFrame:
    """Evaluate a perfect reranker: what reordering the first documents could gain at most.

    Args:
        ranking: of the embedding model.
        qrels: query id -> {document id: grade}.
        depths: lengths of the shortlist.
        metric: what to report.

    Returns:
        Columns `documents reranked` (0 is the ranking as it is) and the metric.
    """
    import pandas as pd

    grades = np.full(ranking.indices.shape, np.nan)
    for row, (query, documents) in enumerate(zip(ranking.query_ids, ranking.doc_ids, strict=True)):
        grades[row] = [np.nan if name is None else qrels.get(query, {}).get(name, 0) for name in documents]
    rows = [(0, evaluate(ranking, qrels).mean(metric))]
    rows += [(depth, evaluate(reorder(ranking, grades[:, :depth]), qrels).mean(metric)) for depth in depths]
    return pd.DataFrame(rows, columns=["documents reranked", metric])


def score_shortlist(ranking: Ranking, data: Dataset, encoder: CrossEncoder, depth: int) -> np.ndarray:
    """Score the first `depth` documents of every query with a cross-encoder.

    Returns:
        float32 (queries, depth) raw logits; NaN where a query has fewer documents.

    Raises:
        ParameterError: `depth` is below 1.
    """
    return score_first(ranking, data.queries, data.corpus, lambda pairs: score_pairs(encoder, pairs), depth)


def rerank_shortlist(ranking: Ranking, logits: np.ndarray, embedding_share: float = 0.0) -> Ranking:
    """Reorder the first documents of every query; documents below the shortlist keep their order.

    Args:
        ranking: of the embedding model, its scores are cosines.
        logits: (queries, depth) from `score_shortlist`.
        embedding_share: weight of the embedding model's own scores, from 0 (cross-encoder alone) to 1 (no change).
    """
    return reorder(ranking, average_scores(logits, ranking.scores[:, : logits.shape[1]], embedding_share))


def share_curve(ranking: Ranking, logits: np.ndarray, qrels: Qrels, metric: str = "ndcg@10") -> pd.DataFrame:
    """Evaluate reranking at several weights of the embedding model; choose the weight on dev.

    Args:
        ranking: of the embedding model.
        logits: (queries, depth) from `score_shortlist`.
        qrels: query id -> {document id: grade}.
        metric: what to report.

    Returns:
        Columns embedding_share, the metric, ci_low and ci_high.
    """
    import pandas as pd

    rows = []
    for share in SHARES:
        interval = bootstrap_ci(evaluate(rerank_shortlist(ranking, logits, share), qrels).of(metric))
        rows.append((share, interval.mean, interval.low, interval.high))
    return pd.DataFrame(rows, columns=["embedding_share", metric, "ci_low", "ci_high"])
