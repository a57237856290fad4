"""Hide the judgements of a test split, ask for them one by one, and count how many the comparison of systems needs.

A judge is asked about the documents that any system ranks in its first k. After each answer every system has an
estimated nDCG@k: documents without an answer count as not relevant, and a query without a known positive counts as 0.
The truth is the estimate after all answers. An order of questions is good if few answers bring the differences between
systems within a tolerance of the truth, for good: the last answer at which they are outside is the one that counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from embedlab.data.dataset import Qrels
from embedlab.evaluation.labelling.priority import CUTOFF, discount, ideal_dcg, prioritise
from embedlab.search.exact import Ranking

ROUND = 100  # pairs in one sheet
LEVEL = 0.95  # of the bootstrap intervals


@dataclass(frozen=True, eq=False)
class Pool:
    """P pairs that a judge can be asked about, of Q queries and S systems.

    Attributes:
        queries: number of queries (Q).
        row: the query of every pair, int (P,).
        grade: the hidden answers, int (P,).
        weights: discount of the document in every system, 0 below rank k, float (P, S).
        priority, effect: of `priority.prioritise` without any judgement, float (P,).
        k: cutoff of nDCG.
    """

    queries: int
    row: np.ndarray
    grade: np.ndarray
    weights: np.ndarray
    priority: np.ndarray
    effect: np.ndarray
    k: int = CUTOFF

    @classmethod
    def of(cls, rankings: Sequence[Ranking], qrels: Qrels, k: int = CUTOFF) -> Pool:
        """Hide the judgements of the rankings' queries."""
        query_ids = rankings[0].query_ids
        row_of = {query: row for row, query in enumerate(query_ids)}
        candidates = prioritise(rankings, {}, k=k)
        return cls(
            len(query_ids),
            np.array([row_of[c.query] for c in candidates]),
            np.array([max(0, qrels.get(c.query, {}).get(c.document, 0)) for c in candidates]),
            np.array([[discount(rank) for rank in c.ranks] for c in candidates]),
            np.array([c.priority for c in candidates]),
            np.array([c.effect for c in candidates]),
            k,
        )

    @property
    def size(self) -> int:
        """Number of pairs (P)."""
        return len(self.row)

    @cached_property
    def _pairs_of(self) -> list[np.ndarray]:
        """The pairs of every query."""
        order = np.argsort(self.row, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self.row, minlength=self.queries))[:-1])

    def resampled(self, rng: np.random.Generator) -> Pool:
        """Draw Q queries with replacement, each with all its pairs."""
        parts = [self._pairs_of[query] for query in rng.integers(self.queries, size=self.queries)]
        pairs, row = np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        parts_of_pool = (self.grade[pairs], self.weights[pairs], self.priority[pairs], self.effect[pairs])
        return Pool(self.queries, row, *parts_of_pool, self.k)


def estimates(pool: Pool, order: np.ndarray) -> np.ndarray:
    """Mean nDCG@k of every system after each answer, float (P + 1, S), first row without any answer.

    Args:
        pool: the pairs.
        order: the pairs in the order in which they are judged, a permutation of P.
    """
    change = np.zeros((pool.size + 1, pool.weights.shape[1]))
    grades: dict[int, list[int]] = {}
    gain: dict[int, np.ndarray] = {}
    earlier: dict[int, np.ndarray] = {}
    for step in np.flatnonzero(pool.grade[order] > 0):  # the other answers change nothing
        pair = order[step]
        query, grade = int(pool.row[pair]), int(pool.grade[pair])
        grades.setdefault(query, []).append(grade)
        gain[query] = gain.get(query, 0) + grade * pool.weights[pair]
        value = gain[query] / ideal_dcg(grades[query], pool.k)
        change[step + 1] = value - earlier.get(query, 0)
        earlier[query] = value
    return change.cumsum(0) / pool.queries


def errors(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Largest error of the difference of two systems, (T,), of estimates (T, S) against the true values (S,)."""
    return np.ptp(values - truth, axis=1)


def labels_needed(error: np.ndarray, tolerance: float) -> int:
    """Answers after which the error stays within the tolerance: error[n] and all later ones, of (P + 1,)."""
    outside = np.flatnonzero(error > tolerance)
    return int(outside[-1]) + 1 if len(outside) else 0


Key = Callable[[Pool], np.ndarray]  # a value per pair (P,)
Order = Callable[[Pool, np.random.Generator], np.ndarray]  # a permutation of the pairs (P,)


def _sorted_by(key: Key) -> Order:
    """An order by descending key; ties are in random order."""

    def order(pool: Pool, rng: np.random.Generator) -> np.ndarray:
        shuffled = rng.permutation(pool.size)
        return shuffled[np.argsort(-key(pool)[shuffled], kind="stable")]

    return order


def _in_rounds(key: Key) -> Order:
    """Ask for `ROUND` pairs by descending key, then again with what is known: `embedlab label next`, repeated.

    A query with a known positive has a larger ideal DCG, so that its other documents matter less.
    """

    def order(pool: Pool, rng: np.random.Generator) -> np.ndarray:
        waiting, asked, ideal = rng.permutation(pool.size), [np.empty(0, dtype=int)], np.ones(pool.queries)
        values, grades = key(pool), dict[int, list[int]]()
        while len(waiting):
            current = values[waiting] / ideal[pool.row[waiting]]
            first = np.argpartition(-current, ROUND)[:ROUND] if len(waiting) > ROUND else np.arange(len(waiting))
            first = first[np.argsort(-current[first], kind="stable")]
            asked.append(waiting[first])
            waiting = np.delete(waiting, first)
            for pair in asked[-1][pool.grade[asked[-1]] > 0]:
                query = int(pool.row[pair])
                grades.setdefault(query, []).append(int(pool.grade[pair]))
                ideal[query] = ideal_dcg([*grades[query], 1], pool.k)
        return np.concatenate(asked)

    return order


def _priority(pool: Pool) -> np.ndarray:
    return pool.priority


def _disagreement(pool: Pool) -> np.ndarray:
    """Effect times the variance 4 m (1 - m) of the votes: query by committee (Seung et al., COLT 1992)."""
    mean = pool.weights.mean(1)
    return 4 * mean * (1 - mean) * pool.effect


ORDERS: dict[str, Order] = {
    "priority": _sorted_by(_priority),
    "priority, in rounds": _in_rounds(_priority),
    "effect": _sorted_by(lambda pool: pool.effect),
    "disagreement": _sorted_by(_disagreement),
    "disagreement, in rounds": _in_rounds(_disagreement),
    "best rank": _sorted_by(lambda pool: pool.weights.max(1)),
    "random": lambda pool, rng: rng.permutation(pool.size),
    "random, scaled": lambda pool, rng: rng.permutation(pool.size),
}
RANDOM, SCALED = "random", "random, scaled"


def error_curve(pool: Pool, name: str, rng: np.random.Generator) -> np.ndarray:
    """Error after each answer (P + 1,) of one order.

    "random, scaled" multiplies the estimate by P / answers, which makes it unbiased where every query has one positive:
    what a random sample is used for (Yilmaz & Aslam, Estimating average precision with incomplete and imperfect
    judgments, CIKM 2006, do this for average precision).
    """
    values = estimates(pool, ORDERS[name](pool, rng))
    truth = values[-1]
    if name == SCALED:
        values = values * (pool.size / np.maximum(np.arange(pool.size + 1), 1))[:, None]
    return errors(values, truth)


@dataclass(frozen=True)
class Need:
    """Labels that one order needs for one tolerance.

    Attributes:
        order: a name in `ORDERS`.
        tolerance: allowed error of a difference of nDCG@k.
        labels: mean over the seeds.
        low, high: bootstrap interval over queries.
        of_random: labels divided by those of the random order.
        of_random_low, of_random_high: its bootstrap interval, from the same resampled queries.
    """

    order: str
    tolerance: float
    labels: float
    low: float
    high: float
    of_random: float
    of_random_low: float
    of_random_high: float


def needs(pool: Pool, tolerances: Sequence[float], *, seeds: int, samples: int) -> list[Need]:
    """Count the labels that every order needs.

    Args:
        pool: the pairs with their hidden answers.
        tolerances: allowed errors.
        seeds: random orders whose mean is reported.
        samples: bootstrap samples of the queries (Efron & Tibshirani 1993, percentile interval), one random order each.
    """
    means = _labels([pool] * seeds, tolerances, first_seed=0).mean(0)
    rng = np.random.default_rng(seeds)
    resampled = _labels([pool.resampled(rng) for _ in range(samples)], tolerances, first_seed=seeds)
    ratios = resampled / np.maximum(resampled[:, [list(ORDERS).index(RANDOM)]], 1)
    of_random = means / np.maximum(means[[list(ORDERS).index(RANDOM)]], 1)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    (low, high), (ratio_low, ratio_high) = (np.quantile(values, tails, axis=0) for values in (resampled, ratios))
    return [
        Need(name, tolerance, *(float(values[i, j]) for values in (means, low, high, of_random, ratio_low, ratio_high)))
        for j, tolerance in enumerate(tolerances)
        for i, name in enumerate(ORDERS)
    ]


def _labels(pools: Sequence[Pool], tolerances: Sequence[float], first_seed: int) -> np.ndarray:
    """Labels needed, (pools, orders, tolerances); every pool has its own random order."""
    return np.array(
        [
            [
                [labels_needed(error, tolerance) for tolerance in tolerances]
                for error in (error_curve(pool, name, np.random.default_rng(seed)) for name in ORDERS)
            ]
            for seed, pool in enumerate(pools, start=first_seed)
        ],
        dtype=float,
    )
