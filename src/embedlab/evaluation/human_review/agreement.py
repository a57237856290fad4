"""Measure how well two people agree on relevance, and how many of the shown documents nobody has judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from embedlab.data.dataset import Qrels
from embedlab.errors import DataError
from embedlab.evaluation.human_review.cases import Case


@dataclass(frozen=True)
class Agreement:
    """Agreement of two people's judgements.

    Attributes:
        kappa: Cohen's kappa, -1 to 1; 0 is chance level, NaN if both gave the same single grade to everything.
        observed: share of pairs with the same grade.
        n: (query, document) pairs that both judged.
    """

    kappa: float
    observed: float
    n: int


def agreement(first: Qrels, second: Qrels) -> Agreement:
    """Compute Cohen's kappa over the pairs that both judged.

    (observed - expected) / (1 - expected), expected from each person's own share of every grade: Cohen, Educational and
    Psychological Measurement 1960.

    Args:
        first, second: query id -> {document id: grade}.

    Raises:
        DataError: no pair was judged by both.
    """
    from sklearn.metrics import cohen_kappa_score

    pairs = [(q, d) for q, grades in first.items() for d in grades if d in second.get(q, {})]
    if not pairs:
        raise DataError("The two judged no pair in common", remedy="Let both judge some of the same rows")
    a, b = ([judged[q][d] for q, d in pairs] for judged in (first, second))
    equal = sum(x == y for x, y in zip(a, b, strict=True))
    constant = len({*a, *b}) == 1  # nothing left to agree on beyond chance
    kappa = float("nan") if constant else float(cohen_kappa_score(a, b))
    return Agreement(kappa, equal / len(pairs), len(pairs))


def unjudged(cases: Sequence[Case], qrels: Qrels) -> float:
    """Return the share of the cases' documents that nobody judged; the metric counts them as wrong. NaN without any."""
    documents = {(case.query, ranked.document) for case in cases for ranked in (*case.found_a, *case.found_b)}
    if not documents:
        return float("nan")
    return sum(document not in qrels.get(query, {}) for query, document in documents) / len(documents)
