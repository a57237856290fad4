"""What the 95 % interval of a difference shows: a gain, a loss, or neither."""

from __future__ import annotations

from enum import Enum

# Five queries that agree can do so by chance (2 · 0.5^5 > 0.05), and a bootstrap interval of so few is too narrow.
FEWEST_QUERIES = 6


class Finding(Enum):
    """What a difference shows."""

    GAIN = "gain"
    LOSS = "loss"
    NEITHER = "neither"
    TOO_FEW = "too few queries"


def finding(low: float | None, high: float | None, n: int | None) -> Finding:
    """Read the interval of a paired difference.

    Args:
        low, high: its ends; None or NaN where there is no interval.
        n: number of queries; None if it is unknown.

    Returns:
        `TOO_FEW` with fewer than `FEWEST_QUERIES`, whatever the interval is; else `GAIN` or `LOSS` if all of the
        interval is above or below 0; else `NEITHER`.
    """
    if n is not None and n < FEWEST_QUERIES:
        return Finding.TOO_FEW
    if low is not None and low > 0:
        return Finding.GAIN
    if high is not None and high < 0:
        return Finding.LOSS
    return Finding.NEITHER
