"""What an interval shows."""

from __future__ import annotations

import math

import pytest

from embedlab.finding import FEWEST_QUERIES, Finding, finding


@pytest.mark.parametrize(
    ("low", "high", "n", "expected"),
    [
        (0.01, 0.2, 6, Finding.GAIN),
        (0.01, 0.2, None, Finding.GAIN),
        (-0.2, -0.01, 6, Finding.LOSS),
        (-0.1, 0.1, 600, Finding.NEITHER),
        (0.0, 0.1, 600, Finding.NEITHER),
        (None, None, 600, Finding.NEITHER),
        (math.nan, math.nan, 600, Finding.NEITHER),
        (0.01, 0.2, 5, Finding.TOO_FEW),
        (-0.2, -0.01, 5, Finding.TOO_FEW),
        (None, None, 1, Finding.TOO_FEW),
    ],
)
def test_finding(low, high, n, expected):
    assert finding(low, high, n) is expected


def test_queries_that_all_agree_can_be_chance_below_the_limit():
    """Every sign is a coin flip: the smallest two-sided p of n queries is 2 / 2^n."""
    assert 2 * 0.5 ** (FEWEST_QUERIES - 1) > 0.05 > 2 * 0.5**FEWEST_QUERIES
