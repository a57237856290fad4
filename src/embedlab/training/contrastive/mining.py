"""Hard negatives: documents a model ranks high for a query although they do not answer it.

A mined candidate may well be an unjudged positive. Filters keep those out: documents judged positive for the query,
documents related to a positive (in a code tree its ancestors and descendants), documents that score almost as high as
the positive itself (the margins of NV-Retriever, Moreira et al. 2024), and documents that a guide model takes for
better answers than the positive (GISTEmbed, Solatorio 2024).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedlab.data.dataset import Dataset

Pair = tuple[str, str]  # query id, document id
Candidates = Mapping[str, Sequence[tuple[str, float]]]  # query id -> [(document id, score), …], best first
Negatives = Mapping[Pair, tuple[str, ...]]  # (query id, positive id) -> hard negative ids


@dataclass(frozen=True)
class MiningReport:
    """What the filters did, counted over all candidates looked at.

    Attributes:
        pairs: training pairs.
        full: pairs that got all the hard negatives asked for.
        chosen: hard negatives in all.
        is_positive, is_related, too_close, above_guide: candidates passed over, by the first filter that objected.
        mean_rank: of the chosen, 1 for the first candidate; None where none was chosen.
    """

    pairs: int
    full: int
    chosen: int
    is_positive: int
    is_related: int
    too_close: int
    above_guide: int
    mean_rank: float | None

    def __str__(self) -> str:
        guide = f", above it for the guide {self.above_guide:,}" if self.above_guide else ""
        where = f"; mean rank of the chosen {self.mean_rank:.1f}" if self.chosen else ""
        return (
            f"{self.full:,} of {self.pairs:,} pairs got all their hard negatives; passed over as "
            f"positive {self.is_positive:,}, related {self.is_related:,}, too close to the positive {self.too_close:,}"
            f"{guide}{where}"
        )


def score_ceiling(
    positive_score: np.ndarray | float, relative_margin: float, absolute_margin: float = 0.0
) -> np.ndarray | float:
    """The highest score a hard negative may have, given its positive's.

    `s - (1 - m) |s| - a`. With `a = 0` it is `m s` for a positive score, and still below s for a negative one, where
    `m s` would lie above it and let every false negative in.

    >>> round(score_ceiling(0.8, 0.95), 3), round(score_ceiling(-0.8, 0.95), 3), round(score_ceiling(0.8, 1, 0.1), 3)
    (0.76, -0.84, 0.7)
    """
    return positive_score - (1 - relative_margin) * abs(positive_score) - absolute_margin


def mine_hard_negatives(
    dataset: Dataset,
    candidates: Candidates,
    positive_scores: Mapping[Pair, float],
    *,
    per_pair: int = 1,
    relative_margin: float = 0.95,
    absolute_margin: float = 0.0,
    skip_first: int = 0,
    last_rank: int | None = None,
    guide: Mapping[Pair, float] | None = None,
) -> tuple[Negatives, MiningReport]:
    """Choose hard negatives for every training pair from ranked candidates.

    Args:
        dataset: gives the training pairs and `related`.
        candidates: query id -> [(document id, score), …], best first, from the model, BM25 or any other ranker.
        positive_scores: score of every training pair on the scale of the candidates' scores.
        per_pair: how many to choose; fewer where the filters leave fewer.
        relative_margin, absolute_margin: see `score_ceiling`; 1 and 0 keep everything that scores no higher than the
            positive.
        skip_first: ranks passed over before choosing.
        last_rank: the last rank looked at, counted from 1; all when None.
        guide: the guide's score of every training pair and candidate; a candidate above the positive is passed over.

    Returns:
        The chosen ids by pair, and a report of what was passed over.
    """
    chosen: dict[Pair, tuple[str, ...]] = {}
    passed_over: Counter[str] = Counter()
    ranks: list[int] = []
    for query_id, positive_id in dataset.pairs("train"):
        positives = dataset.qrels["train"][query_id]
        filters = _Filters(
            positives=positives,
            related=set().union(*(dataset.related.get(document, ()) for document in positives)),
            ceiling=score_ceiling(positive_scores[query_id, positive_id], relative_margin, absolute_margin),
            guide={} if guide is None else {d: guide[query_id, d] for d, _ in candidates[query_id]},
            guide_ceiling=np.inf if guide is None else guide[query_id, positive_id],
        )
        picked: dict[str, int] = {}
        for rank, (document_id, score) in enumerate(candidates[query_id][skip_first:last_rank], skip_first + 1):
            if len(picked) == per_pair:
                break
            if objection := filters.objection(document_id, score):
                passed_over[objection] += 1
            else:
                picked[document_id] = rank
        chosen[query_id, positive_id] = tuple(picked)
        ranks += picked.values()
    return chosen, _report(chosen, per_pair, passed_over, ranks)


@dataclass(frozen=True)
class _Filters:
    """What speaks against a candidate of one pair."""

    positives: Collection[str]
    related: Collection[str]
    ceiling: float
    guide: Mapping[str, float]
    guide_ceiling: float

    def objection(self, document_id: str, score: float) -> str | None:
        if document_id in self.positives:
            return "is_positive"
        if document_id in self.related:
            return "is_related"
        if score > self.ceiling:
            return "too_close"
        return "above_guide" if self.guide and self.guide[document_id] > self.guide_ceiling else None


def _report(chosen: Negatives, per_pair: int, passed_over: Counter[str], ranks: Sequence[int]) -> MiningReport:
    return MiningReport(
        pairs=len(chosen),
        full=sum(len(picked) == per_pair for picked in chosen.values()),
        chosen=len(ranks),
        **{name: passed_over[name] for name in ("is_positive", "is_related", "too_close", "above_guide")},
        mean_rank=float(np.mean(ranks)) if ranks else None,
    )
