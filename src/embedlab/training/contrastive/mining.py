"""Hard negatives: documents that a model ranks high for a query although they do not answer it.

A mined candidate can be an unlabelled positive. Filters exclude documents labelled positive for the query, documents
related to a positive (in a code tree its ancestors and descendants), documents that score almost as high as the
positive (the margins of NV-Retriever, Moreira et al. 2024), and documents that a guide model ranks above the positive
(GISTEmbed, Solatorio 2024). `util.mine_hard_negatives` of sentence-transformers has the margins, but neither the
filter on related documents nor the report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedlab.data.dataset import Dataset
from embedlab.training.examples import relevant_texts

Pair = tuple[str, str]  # query id, document id
Candidates = Mapping[str, Sequence[tuple[str, float]]]  # query id -> [(document id, score), …], best first
Negatives = Mapping[Pair, tuple[str, ...]]  # (query id, positive id) -> hard negative ids


@dataclass(frozen=True)
class MiningReport:
    """Counts of what the filters did with the candidates.

    Attributes:
        pairs: training pairs.
        full: pairs with as many hard negatives as requested.
        mined: hard negatives in total.
        is_positive: candidates excluded because they are labelled positive for the query, or are the query itself.
        is_related: candidates excluded because they are related to a positive.
        too_close: candidates excluded by the margin.
        above_guide: candidates excluded because the guide ranks them above the positive.
        mean_rank: mean rank of the hard negatives, 1 for the first candidate; None if there are none.
    """

    pairs: int
    full: int
    mined: int
    is_positive: int
    is_related: int
    too_close: int
    above_guide: int
    mean_rank: float | None

    def __str__(self) -> str:
        guide = f", {self.above_guide:,} above the positive for the guide" if self.above_guide else ""
        rank = f"; mean rank of the hard negatives {self.mean_rank:.1f}" if self.mined else ""
        return (
            f"{self.full:,} of {self.pairs:,} pairs have all their hard negatives; excluded: {self.is_positive:,} "
            f"positive, {self.is_related:,} related, {self.too_close:,} too close to the positive{guide}{rank}"
        )


def score_ceiling(positive_score: float, relative_margin: float, absolute_margin: float = 0.0) -> float:
    """Compute the highest score that a hard negative may have, from the score of its positive.

    `s - (1 - m) |s| - a`. With `a = 0` this is `m s` for a positive score s. For a negative s, `m s` would be above s
    and exclude nothing; this formula stays below s.

    Args:
        positive_score: s.
        relative_margin: m.
        absolute_margin: a.

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

    Positives are compared by text. A document with the text of a positive is excluded, and so are the positives of
    another query with the same text and the query itself, if it is in the corpus.

    Args:
        dataset: its training pairs and `related` documents are used.
        candidates: query id -> [(document id, score), …], best first, from the model, BM25 or any other ranker.
        positive_scores: score of every training pair on the scale of the candidates' scores.
        per_pair: hard negatives per pair; fewer if the filters leave fewer.
        relative_margin: see `score_ceiling`; 1 with absolute_margin=0 allows scores up to the positive's.
        absolute_margin: see `score_ceiling`.
        skip_first: ranks to skip.
        last_rank: last rank to use, counted from 1; None uses all.
        guide: the guide's score of every training pair and candidate; candidates above the positive are excluded.

    Returns:
        (query id, positive id) -> hard negative ids, and a report of what was excluded.
    """
    negatives: dict[Pair, tuple[str, ...]] = {}
    excluded: Counter[str] = Counter()
    ranks: list[int] = []
    relevant = relevant_texts(dataset)
    for query_id, positive_id in dataset.pairs("train"):
        positives = dataset.qrels["train"][query_id]
        filters = _Filters(
            query=query_id,
            corpus=dataset.corpus,
            relevant=relevant[dataset.queries[query_id]],
            related=set().union(*(dataset.related.get(document, ()) for document in positives)),
            ceiling=score_ceiling(positive_scores[query_id, positive_id], relative_margin, absolute_margin),
            guide={} if guide is None else {d: guide[query_id, d] for d, _ in candidates[query_id]},
            guide_ceiling=np.inf if guide is None else guide[query_id, positive_id],
        )
        picked: dict[str, int] = {}
        for rank, (document_id, score) in enumerate(candidates[query_id][skip_first:last_rank], skip_first + 1):
            if len(picked) == per_pair:
                break
            if reason := filters.reason_to_exclude(document_id, score):
                excluded[reason] += 1
            else:
                picked[document_id] = rank
        negatives[query_id, positive_id] = tuple(picked)
        ranks += picked.values()
    return negatives, _report(negatives, per_pair, excluded, ranks)


@dataclass(frozen=True)
class _Filters:
    """The filters on the candidates of one training pair."""

    query: str
    corpus: Mapping[str, str]
    relevant: Collection[str]
    related: Collection[str]
    ceiling: float
    guide: Mapping[str, float]
    guide_ceiling: float

    def reason_to_exclude(self, document_id: str, score: float) -> str | None:
        if document_id == self.query or self.corpus[document_id] in self.relevant:
            return "is_positive"
        if document_id in self.related:
            return "is_related"
        if score > self.ceiling:
            return "too_close"
        return "above_guide" if self.guide and self.guide[document_id] > self.guide_ceiling else None


def _report(negatives: Negatives, per_pair: int, excluded: Counter[str], ranks: Sequence[int]) -> MiningReport:
    return MiningReport(
        pairs=len(negatives),
        full=sum(len(picked) == per_pair for picked in negatives.values()),
        mined=len(ranks),
        **{name: excluded[name] for name in ("is_positive", "is_related", "too_close", "above_guide")},
        mean_rank=float(np.mean(ranks)) if ranks else None,
    )
