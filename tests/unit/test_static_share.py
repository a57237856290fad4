"""Which share of the static model is chosen on dev, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from embedlab.evaluation.static_share import best_share, level_with_highest, nearest_share

NOISE = np.array([0.1, -0.1, 0.1, -0.1])
# The means are 0.3, 0.5, 0.52, 0.51 and 0.3; 0.4 and 0.8 differ from 0.6 by noise, 0.2 and 0.9 by more.
DEV = {0.2: np.full(4, 0.3), 0.4: 0.5 + NOISE, 0.6: np.full(4, 0.52), 0.8: 0.51 + NOISE, 0.9: np.full(4, 0.3)}
STEEP = {share: np.full(4, value) for share, value in {0.3: 0.5, 0.5: 0.6, 0.9: 0.7}.items()}


def test_level_means_within_one_standard_error():
    assert level_with_highest(DEV) == [0.4, 0.6, 0.8]  # 0.1 / 2 = 0.05 is more than 0.02 and 0.01
    assert level_with_highest(STEEP) == [0.9]


@pytest.mark.parametrize(("shares", "expected"), [((0.4, 0.6, 0.8), 0.6), ((0.6, 0.8), 0.6), ((0.2, 0.8), 0.8)])
def test_the_middle_of_the_level_ones_or_the_smaller_one_next_to_it(shares, expected):
    assert best_share({share: DEV[share] for share in shares}) == expected


def test_a_middle_between_two_shares_is_the_smaller_one():
    assert nearest_share([0.3, 0.4], 0.35) == 0.3


def test_chance_at_the_end_of_a_flat_curve_does_not_decide():
    flat = {share: 0.5 + NOISE * share for share in (0.6, 0.7, 0.8)} | {0.9: 0.501 - NOISE}
    assert max(flat, key=lambda share: flat[share].mean()) == 0.9 and best_share(flat) == 0.7


def test_queries_without_a_value_do_not_count():
    assert best_share({share: np.append(values, np.nan) for share, values in STEEP.items()}) == 0.9


@pytest.mark.parametrize(
    ("elsewhere", "expected"),
    [
        ({}, 0.9),
        ({0.0: 0.40, 0.3: 0.42, 0.5: 0.391, 0.9: 0.389}, 0.5),  # 0.9 loses more than 0.01
        ({0.0: 0.40, 0.3: 0.20, 0.5: 0.1, 0.9: 0.1}, 0.3),  # all lose more
    ],
)
def test_the_forgetting_budget_on_another_dataset(elsewhere, expected):
    assert best_share(STEEP, {share: np.full(3, value) for share, value in elsewhere.items()}) == expected
