"""Hard negatives: documents a model ranks high for a query although they do not answer it.

A mined candidate may well be an unjudged positive. Three filters keep those out: documents judged positive for the
query, documents related to a positive (in a code tree its ancestors and descendants), and documents that score almost
as high as the positive itself (the relative margin of NV-Retriever, Moreira et al. 2024).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedlab.data.dataset import Dataset

Negatives = Mapping[tuple[str, str], tuple[str, ...]]  # (query id, positive id) -> hard negative ids


@dataclass(frozen=True)
class MiningReport:
    """What the filters did, counted over all candidates looked at."""

    pairs: int
    full: int
    is_positive: int
    is_related: int
    too_close: int

    def __str__(self) -> str:
        return (
            f"{self.full:,} of {self.pairs:,} pairs got all their hard negatives; passed over as "
            f"positive {self.is_positive:,}, related {self.is_related:,}, too close to the positive {self.too_close:,}"
        )


def score_ceiling(positive_score: np.ndarray, relative_margin: float) -> np.ndarray:
    """The highest score a hard negative may have, given its positive's.

    `s - (1 - m) |s|`: equal to `m s` for a positive score, and still below s for a negative one, where `m s`
    would lie above it and let every false negative in.
    """
    return positive_score - (1 - relative_margin) * np.abs(positive_score)


def mine_hard_negatives(
    dataset: Dataset,
    candidates: Mapping[str, Sequence[tuple[str, float]]],
    positive_scores: Mapping[tuple[str, str], float],
    *,
    per_pair: int = 1,
    relative_margin: float = 0.95,
    skip_first: int = 0,
) -> tuple[Negatives, MiningReport]:
    """Choose hard negatives for every training pair from ranked candidates.

    Args:
        dataset: gives the training pairs and `related`.
        candidates: query id -> [(document id, score), …], best first, from the model, BM25 or any other ranker.
        positive_scores: score of every training pair by the same ranker.
        per_pair: how many to choose; fewer where the filters leave fewer.
        relative_margin: see `score_ceiling`; 1 keeps everything that scores below the positive.
        skip_first: ranks passed over before choosing.

    Returns:
        The chosen ids by pair, and a report of what was passed over.
    """
    chosen: dict[tuple[str, str], tuple[str, ...]] = {}
    counts = {"is_positive": 0, "is_related": 0, "too_close": 0}
    for query_id, positive_id in dataset.pairs("train"):
        positives = dataset.qrels["train"][query_id]
        forbidden = set().union(*(dataset.related.get(document, ()) for document in positives))
        ceiling = score_ceiling(np.float64(positive_scores[query_id, positive_id]), relative_margin)
        picked: list[str] = []
        for document_id, score in candidates[query_id][skip_first:]:
            if len(picked) == per_pair:
                break
            if reason := _objection(document_id, score, positives, forbidden, ceiling):
                counts[reason] += 1
            else:
                picked.append(document_id)
        chosen[query_id, positive_id] = tuple(picked)
    full = sum(len(picked) == per_pair for picked in chosen.values())
    return chosen, MiningReport(len(chosen), full, **counts)


def _objection(
    document_id: str, score: float, positives: Mapping[str, int], forbidden: set[str], ceiling: float
) -> str | None:
    if document_id in positives:
        return "is_positive"
    if document_id in forbidden:
        return "is_related"
    return "too_close" if score > ceiling else None
