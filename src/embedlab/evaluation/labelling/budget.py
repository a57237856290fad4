"""How many judged queries show a gain, and what more training pairs are expected to gain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from embedlab.errors import DataError, ParameterError
from embedlab.evaluation.significance import ALPHA, minimum_detectable_effect

NAN = float("nan")


@dataclass(frozen=True)
class ExpectedGain:
    """What a learning curve promises for more training pairs.

    Attributes:
        more_pairs: how many more.
        value: expected change of the metric.
        low, high: its 95 % interval; NaN with fewer than three points of the curve.
    """

    more_pairs: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LabelBudget:
    """Judgements in the test split against the gain that they can show.

    Attributes:
        gain: the true gain that should be shown, in units of the metric.
        queries: judged queries now.
        detectable: the smallest gain that these show with probability 0.8.
        queries_needed: judged queries that show `gain` with the same probability.
        pairs_per_query: judged pairs per query, to turn queries into pairs.
        expected: what more training pairs are expected to gain; None without a learning curve.
    """

    gain: float
    queries: int
    detectable: float
    queries_needed: int
    pairs_per_query: float
    expected: ExpectedGain | None = None

    @property
    def pairs_needed(self) -> int:
        """Judged pairs of the queries needed."""
        return math.ceil(self.queries_needed * self.pairs_per_query)

    @property
    def missing_queries(self) -> int:
        """Queries that are not judged yet; 0 if there are enough."""
        return max(0, self.queries_needed - self.queries)

    @property
    def missing_pairs(self) -> int:
        """Judged pairs of the missing queries."""
        return math.ceil(self.missing_queries * self.pairs_per_query)


def label_budget(
    differences: np.ndarray,
    gain: float,
    *,
    pairs_per_query: float = 1.0,
    curve: Mapping[int, float] | None = None,
    more_pairs: int = 0,
) -> LabelBudget:
    """Compute how many judged test pairs show a gain, and what more training pairs are expected to gain.

    Test: n = ((z[1 - alpha/2] + z[power]) * sd / gain)^2 queries with alpha = 0.05 and power = 0.8, where sd is the
    standard deviation of the differences per query. This is `significance.minimum_detectable_effect` solved for n;
    Sakai, Topic set size design, Information Retrieval Journal 2016, has the exact t distribution, which adds about two
    queries. Only more queries make the interval narrower. More judgements of the same queries correct the gain itself.

    Training: the curve is fitted by value = a + b * ln(pairs), least squares, and N more pairs than the largest n of
    the curve gain b * ln((n + N) / n). Sun et al., Revisiting Unreasonable Effectiveness of Data, ICCV 2017, found this
    form. The interval is that of the slope (Student's t with two degrees of freedom fewer than points). It does not
    cover a curve that levels off: do not ask for much more than the largest n again.

    Args:
        differences: metric of one system minus that of the other, per query (Q,); NaN values are left out.
        gain: the smallest true gain that matters, in units of the metric.
        pairs_per_query: judged (query, document) pairs per query.
        curve: training pairs -> metric, on the same test queries.
        more_pairs: training pairs to add.

    Raises:
        DataError: there are fewer than two differences, or all are equal.
        ParameterError: `gain` or `more_pairs` is not positive, or the curve does not have two numbers of pairs.
    """
    if not (gain > 0 and math.isfinite(gain)):
        raise ParameterError(f"gain must be above 0, got {gain:g}", remedy="Write 0.02, for example", field="gain")
    detectable = minimum_detectable_effect(differences)
    if not detectable > 0:
        problem = "the two systems differ on too few queries to say how much their difference varies"
        raise DataError(problem, remedy="Compare two other systems, or judge some queries first")
    queries = int((~np.isnan(np.asarray(differences, dtype=float))).sum())
    needed = max(2, math.ceil(queries * (detectable / gain) ** 2))
    expected = expected_gain(curve, more_pairs) if curve else None
    return LabelBudget(gain, queries, detectable, needed, pairs_per_query, expected)


def expected_gain(curve: Mapping[int, float], more_pairs: int) -> ExpectedGain:
    """Extend a learning curve by `more_pairs`; see `label_budget` for the formula, arguments and errors."""
    from scipy.stats import t

    if len(curve) < 2 or min(curve) < 1 or not all(map(math.isfinite, curve.values())):
        problem = f"a learning curve needs two numbers of pairs with their values, got {dict(curve)}"
        raise ParameterError(problem, remedy="Train on a part of the pairs and on all of them", field="curve")
    if more_pairs < 1:
        raise ParameterError(f"more_pairs must be 1 or more, got {more_pairs}", remedy="Write 1000", field="more_pairs")
    x, y = np.log(np.array(list(curve), dtype=float)), np.array(list(curve.values()), dtype=float)
    spread = float(((x - x.mean()) ** 2).sum())
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread
    step = math.log1p(more_pairs / max(curve))
    degrees = len(x) - 2
    if not degrees:
        return ExpectedGain(more_pairs, slope * step, NAN, NAN)
    residuals = y - y.mean() - slope * (x - x.mean())
    error = math.sqrt(float((residuals**2).sum()) / degrees / spread)
    margin = float(t.ppf(1 - ALPHA / 2, degrees)) * error
    return ExpectedGain(more_pairs, slope * step, (slope - margin) * step, (slope + margin) * step)
