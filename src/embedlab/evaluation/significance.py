"""Confidence intervals of means over queries, and tests of the difference between two systems.

All intervals and tests treat queries as the random sample: they answer "what if other queries had been drawn?". They do
not cover the randomness of training; report several seeds for that.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from embedlab.errors import DataError

NAN = float("nan")
ALPHA, POWER = 0.05, 0.8  # significance level, and the power of the smallest detectable effect


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval.

    Attributes:
        mean: over the n values that are not NaN; NaN when there is none.
        low, high: ends of the interval; NaN with fewer than two values.
        n: values used.
    """

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class PairedDifference:
    """Comparison of system `a` with system `b` on the same queries.

    Attributes:
        mean: mean of a - b.
        low, high: confidence interval of that mean.
        relative: mean / mean of b; NaN when b's mean is 0.
        p_value: two-sided, of the paired randomisation test.
        n: queries with a value from both systems.
        wins, ties, losses: queries on which a is better than, equal to, worse than b.
    """

    mean: float
    low: float
    high: float
    relative: float
    p_value: float
    n: int
    wins: int
    ties: int
    losses: int


def bootstrap_ci(values: np.ndarray, *, level: float = 0.95, samples: int = 2000, seed: int = 0) -> Interval:
    """Mean of `values` (Q,) with a percentile bootstrap interval over queries; NaN values are left out.

    Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    from scipy import stats

    present = _known(values)
    if len(present) < 2:
        return Interval(float(present[0]) if len(present) else NAN, NAN, NAN, len(present))
    result = stats.bootstrap(
        (present,),
        np.mean,
        n_resamples=samples,
        batch=_batch(len(present)),
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return Interval(float(present.mean()), float(low), float(high), len(present))


def randomisation_p(differences: np.ndarray, *, samples: int = 9999, seed: int = 0) -> float:
    """Two-sided p of the paired randomisation test on per-query differences (Q,); NaN with fewer than two.

    Under the null the sign of each difference is a coin flip. Exact (all 2^Q sign patterns) where that is at most
    `samples`, else `samples` random ones and the observed one. Smucker, Allan & Carterette, CIKM 2007. The sums are
    products with a matrix of signs; SciPy's `permutation_test` shuffles pairs one by one for the same answer.
    """
    present = _known(differences)
    if len(present) < 2:
        return NAN
    least = abs(present.sum()) - 1e-12 * np.abs(present).sum()  # equal sums may differ in the order they were added up
    if 2 ** len(present) <= samples:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(present))))
        return float((np.abs(signs @ present) >= least).mean())
    reached = sum(int((np.abs(sums) >= least).sum()) for sums in _flipped_sums(present, samples, seed))
    return (reached + 1) / (samples + 1)


def paired_difference(a: np.ndarray, b: np.ndarray, *, seed: int = 0) -> PairedDifference:
    """Compare two systems on the same queries: `a` and `b` are (Q,) in the same query order.

    A query with NaN from either system is left out. The interval is bootstrapped over the differences, the p-value is
    `randomisation_p`'s. Swapping a and b changes the signs and nothing else (except `relative`).

    Raises:
        DataError: when the two do not have one value per query.
    """
    differences = _differences(a, b)
    interval = bootstrap_ci(differences, seed=seed)
    base = float(np.asarray(b, dtype=float)[~np.isnan(differences)].mean()) if interval.n else NAN
    return PairedDifference(
        interval.mean,
        interval.low,
        interval.high,
        interval.mean / base if base else NAN,
        randomisation_p(differences, seed=seed),
        interval.n,
        int((differences > 0).sum()),
        int((differences == 0).sum()),
        int((differences < 0).sum()),
    )


def paired_ratio(a: np.ndarray, b: np.ndarray, *, samples: int = 2000, seed: int = 0) -> Interval:
    """Ratio of two systems' means on the same queries, (Q,) and (Q,), with a percentile bootstrap interval.

    Every resample draws queries with the values of both systems, so what makes a query hard cancels out. A query with
    NaN from either system is left out. `Interval.mean` is the ratio; all values are NaN if the mean of `b` is not above
    0, and the ends are NaN if a resample has such a mean, or with fewer than two queries.

    Raises:
        DataError: when the two do not have one value per query.
    """
    present = ~np.isnan(_differences(a, b))
    above, below = (np.asarray(values, dtype=float)[present] for values in (a, b))
    n = len(above)
    if not n or below.mean() <= 0:
        return Interval(NAN, NAN, NAN, n)
    ratio = float(above.mean() / below.mean())
    rng, ratios = np.random.default_rng(seed), []
    for start in range(0, samples if n > 1 else 0, batch := _batch(n)):
        rows = rng.integers(0, n, (min(batch, samples - start), n))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios.append(above[rows].mean(axis=1) / below[rows].mean(axis=1))
    if not ratios:
        return Interval(ratio, NAN, NAN, n)
    low, high = (float(end) for end in np.quantile(np.concatenate(ratios), (0.025, 0.975)))
    return Interval(ratio, low, high, n) if np.isfinite(high) else Interval(ratio, NAN, NAN, n)


def paired_t_test(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided p of Student's paired t-test (Q,), (Q,); NaN with fewer than two pairs.

    Where all differences are equal, and t is not defined, it is 1 if they are 0 and 0 if they are not.
    """
    from scipy import stats

    differences = _known(_differences(a, b))
    if len(differences) < 2:
        return NAN
    if np.ptp(differences) == 0:
        return float(differences[0] == 0)
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def minimum_detectable_effect(differences: np.ndarray) -> float:
    """The smallest true mean difference that as many queries would show with probability 0.8.

    (z[1 - alpha/2] + z[power]) * sd / sqrt(n) with alpha = 0.05 and power = 0.8, the normal approximation; NaN with
    fewer than two differences. A gain below it that is "not significant" was never likely to be seen: the test set is
    too small to say.
    """
    from scipy.stats import norm

    present = _known(differences)
    if len(present) < 2:
        return NAN
    return float((norm.ppf(1 - ALPHA / 2) + norm.ppf(POWER)) * present.std(ddof=1) / np.sqrt(len(present)))


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjust p-values (m,) for m comparisons so that the chance of any false alarm stays below the level.

    Holm's step-down: the i-th smallest of m is multiplied by m - i + 1, never falls below a smaller one's, and stops
    at 1. NaN stays NaN and does not count as a comparison. Holm, Scandinavian Journal of Statistics 1979.
    """
    p_values = np.asarray(p_values, dtype=float)
    adjusted = np.full(p_values.shape, NAN)
    present = np.flatnonzero(~np.isnan(p_values))
    order = present[p_values[present].argsort(kind="stable")]
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def _differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape or a.ndim != 1:
        problem = f"The systems have values of shape {a.shape} and {b.shape}"
        raise DataError(problem, remedy="Give one value per query from both, in the same order")
    return a - b


def _known(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    return values[~np.isnan(values)]


def _flipped_sums(values: np.ndarray, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Sums of `values` (Q,) under `samples` patterns of random signs, some at a time."""
    rng, batch = np.random.default_rng(seed), _batch(len(values))
    for start in range(0, samples, batch):
        heads = rng.integers(0, 2, (min(batch, samples - start), len(values)), dtype=np.int8)
        yield 2 * (heads @ values) - values.sum()


def _batch(n: int) -> int:
    """Resamples drawn at a time, so that the resampled values take about 8 MB."""
    return max(1, 1_000_000 // n)
