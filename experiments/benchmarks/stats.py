"""The order of repeats, and the median with its interval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95


class Estimate(NamedTuple):
    """A median with its bootstrap interval."""

    value: float
    low: float
    high: float


def abba(arms: Sequence[str], repeats: int) -> Iterator[str]:
    """Yield the arms in turn, every second round backwards: a machine that slows down then favours no arm.

    >>> "".join(abba("AB", 4))
    'ABBAABBA'
    """
    for turn in range(repeats):
        yield from arms if turn % 2 == 0 else reversed(arms)


def median_of(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """Return the median of `values` with its percentile bootstrap interval (Efron 1979)."""
    sample = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    medians = np.median(rng.choice(sample, size=(RESAMPLES, len(sample))), axis=1)
    low, high = np.quantile(medians, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
    return Estimate(float(np.median(sample)), float(low), float(high))


def median_ratio(over: Sequence[float], under: Sequence[float], *, seed: int = 0) -> Estimate:
    """Return `median_of` the ratios of neighbouring repeats: the i-th of one arm over the i-th of the other."""
    if len(over) != len(under):
        raise ValueError(f"expected as many repeats of both arms, got {len(over)} and {len(under)}")
    return median_of([a / b for a, b in zip(over, under, strict=True)], seed=seed)
