"""Which (query, document) pairs are worth judging next, to compare several systems."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from embedlab.data.dataset import Qrels
from embedlab.errors import DataError, ParameterError
from embedlab.search.exact import ABSENT, Ranking

CUTOFF = 10  # of nDCG


@dataclass(frozen=True)
class Candidate:
    """A pair that nobody has judged.

    Attributes:
        query, document: their ids.
        relevance: how likely it is relevant, from the ranks alone: 1 if all systems rank it first, 0 if none finds it.
        effect: mean change of the difference of two systems' nDCG@k on this query if the document is relevant.
        ranks: rank in each system from 1; None if it is not in the first k.
    """

    query: str
    document: str
    relevance: float
    effect: float
    ranks: tuple[int | None, ...]

    @property
    def priority(self) -> float:
        """Relevance times effect, the change to expect; 0 if no judgement of this pair can change the difference."""
        return self.relevance * self.effect


def prioritise(
    rankings: Sequence[Ranking],
    qrels: Qrels,
    *,
    rejected: Mapping[str, Collection[str]] | None = None,
    k: int = CUTOFF,
) -> list[Candidate]:
    """Return the pairs in the first k of any system that are not judged yet, the most valuable first.

    With the discount w_s = 1 / log2(rank + 1) of a document in system s, 0 below rank k:

    - effect = mean over all pairs of systems of |w_s - w_t| / I, where I is the ideal DCG@k of the query if the
      document gets grade 1. So much can a judgement change the difference of two systems. Carterette, Allan &
      Sitaraman, Minimal test collections for retrieval evaluation, SIGIR 2006, choose the document with the largest
      such weight for average precision. For DCG it is the difference of the discounts.
    - relevance = mean of w_s: each system's discount is its vote for relevance, as Aslam, Pavlu & Yilmaz
      (A statistical method for system evaluation using incomplete judgments, SIGIR 2006) and Moffat, Webber & Zobel
      (Strategic system comparisons via targeted relevance judgments, SIGIR 2007) weight ranks. Only a relevant document
      changes a value, so the change to expect is relevance times effect.

    The disagreement of the systems is in the effect. Counting it twice, as the variance 4 m (1 - m) of the vote, needed
    up to nine times as many labels in `experiments.labelling`.

    Equal priorities are in the order of queries and ranks.

    Args:
        rankings: of two systems or more, of the same queries in the same order. A ranking that is not measurable is
            left out.
        qrels: query id -> {document id: grade} of the pairs judged so far; a grade below 1 means not relevant.
        rejected: query id -> more documents judged not relevant.
        k: cutoff of nDCG.

    Raises:
        DataError: fewer than two rankings are measurable, or they are not of the same queries.
        ParameterError: k is below 1 or deeper than a ranking.
    """
    rankings = _comparable(rankings, k)
    query_ids = rankings[0].query_ids
    candidates = []
    for row, query in enumerate(query_ids):
        grades = qrels.get(query, {})
        judged = {*grades, *(rejected or {}).get(query, ())}
        ideal = ideal_dcg([*grades.values(), 1], k)
        for document, ranks in _ranks(rankings, row, k).items():
            if document not in judged:
                candidates.append(_candidate(query, document, ranks, ideal))
    return sorted(candidates, key=lambda candidate: -candidate.priority)  # a stable sort


def discount(rank: int | None) -> float:
    """Return the discount of nDCG at a rank from 1; 0 without a rank."""
    return 0.0 if rank is None else 1 / float(np.log2(rank + 1))


def _candidate(query: str, document: str, ranks: tuple[int | None, ...], ideal: float) -> Candidate:
    weights = [discount(rank) for rank in ranks]
    mean = sum(weights) / len(weights)
    distances = [abs(a - b) for a, b in combinations(weights, 2)]
    return Candidate(query, document, mean, sum(distances) / len(distances) / ideal, ranks)


def ideal_dcg(grades: Sequence[int], k: int) -> float:
    """Return the DCG@k of the best order of documents with these grades."""
    best = sorted((grade for grade in grades if grade > 0), reverse=True)[:k]
    return sum(grade * discount(rank) for rank, grade in enumerate(best, start=1))


def _ranks(rankings: Sequence[Ranking], row: int, k: int) -> dict[str, tuple[int | None, ...]]:
    """Document id -> rank in each system, of all documents in the first k of any, best ranks first."""
    rank_of: dict[str, list[int | None]] = {}
    for rank in range(1, k + 1):
        for system, ranking in enumerate(rankings):
            index = int(ranking.indices[row, rank - 1]) if rank <= ranking.depth else ABSENT
            if index != ABSENT:
                ranks = rank_of.setdefault(ranking.corpus_ids[index], [None] * len(rankings))
                ranks[system] = rank
    return {document: tuple(ranks) for document, ranks in rank_of.items()}


def _comparable(rankings: Sequence[Ranking], k: int) -> list[Ranking]:
    """The measurable rankings, checked."""
    measurable = [ranking for ranking in rankings if ranking.measurable]
    if len(measurable) < 2:
        problem = f"two systems are needed to see where they differ, got {len(measurable)}"
        raise DataError(problem, remedy="Add the ranking of another model")
    if any(ranking.query_ids != measurable[0].query_ids for ranking in measurable):
        raise DataError("the rankings are not of the same queries", remedy="Rank the same split with every system")
    depth = min(ranking.depth for ranking in measurable)
    if k < 1 or any(ranking.depth < min(k, len(ranking.corpus_ids)) for ranking in measurable):
        problem = f"k must be from 1 to {depth}, the depth of the rankings, got {k}"
        raise ParameterError(problem, remedy="Search deeper or lower k", field="k")
    return measurable
