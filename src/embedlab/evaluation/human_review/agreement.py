"""How far two people agree about what is relevant, and how much of what they were shown nobody has judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from embedlab.data.dataset import Qrels
from embedlab.errors import DataError
from embedlab.evaluation.human_review.cases import Case


@dataclass(frozen=True)
class Agreement:
    """How far two people's judgements agree.

    Attributes:
        kappa: Cohen's, -1 to 1; 0 is what chance gives, NaN where both gave one and the same grade to everything.
        observed: share of pairs with the same grade.
        n: (query, document) pairs that both judged.
    """

    kappa: float
    observed: float
    n: int


def agreement(one: Qrels, other: Qrels, *, weights: str | None = None) -> Agreement:
    """Cohen's kappa over the pairs both judged.

    (observed - expected) / (1 - expected), expected from each person's own share of every grade: Cohen, Educational and
    Psychological Measurement 1960.

    Args:
        one, other: query id -> {document id: grade}.
        weights: None counts any difference the same; "linear" or "quadratic" count far grades more.

    Raises:
        DataError: when no pair was judged by both.
    """
    from sklearn.metrics import cohen_kappa_score

    pairs = [(q, d) for q, grades in one.items() for d in grades if d in other.get(q, {})]
    if not pairs:
        raise DataError("The two share no judged pair", remedy="Let both judge some of the same rows")
    a, b = ([judged[q][d] for q, d in pairs] for judged in (one, other))
    same = sum(x == y for x, y in zip(a, b, strict=True))
    constant = len({*a, *b}) == 1  # nothing left to agree on beyond chance
    kappa = float("nan") if constant else float(cohen_kappa_score(a, b, weights=weights))
    return Agreement(kappa, same / len(pairs), len(pairs))


def unjudged(cases: Sequence[Case], qrels: Qrels) -> float:
    """Share of documents shown for the cases that nobody judged: how far the metric rests on silence; NaN for none."""
    shown = {(case.query, found.document) for case in cases for found in (*case.found_a, *case.found_b)}
    if not shown:
        return float("nan")
    return sum(document not in qrels.get(query, {}) for query, document in shown) / len(shown)
