"""Intervals and tests against exact values, their promise on simulated data, and the edge cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from embedlab.errors import DataError
from embedlab.evaluation.significance import (
    bootstrap_ci,
    holm,
    minimum_detectable_effect,
    paired_difference,
    paired_t_test,
    randomisation_p,
)


def exact_p(differences):
    """Share of all sign patterns whose |mean| reaches the observed one."""
    patterns = itertools.product((1, -1), repeat=len(differences))
    means = [np.mean(np.multiply(signs, differences)) for signs in patterns]
    return np.mean([abs(mean) >= abs(np.mean(differences)) - 1e-12 for mean in means])


def test_randomisation_by_hand():
    """Of the 8 sign patterns of (1, 2, 3) only +++ and --- reach a mean of 2."""
    assert randomisation_p(np.array([1.0, 2.0, 3.0])) == pytest.approx(2 / 8)
    assert randomisation_p(np.array([3.0, -1.0, 1.0])) == pytest.approx(6 / 8)


@pytest.mark.parametrize("seed", range(5))
def test_randomisation_is_exact_for_few_queries(seed):
    differences = np.random.default_rng(seed).normal(0.4, 1, size=7)
    assert randomisation_p(differences) == pytest.approx(exact_p(differences))


def test_randomisation_by_sampling_agrees_with_the_t_test_on_normal_data():
    differences = np.random.default_rng(0).normal(0.1, 1, size=400)
    assert randomisation_p(differences) == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_randomisation_by_sampling_agrees_with_scipy_where_many_differences_are_alike(seed):
    rng = np.random.default_rng(seed)
    differences = np.where(rng.random(60) < 0.6, 0.0, rng.choice([-1.0, 0.5, 0.5], size=60))
    slow = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=4999, rng=rng)
    assert randomisation_p(differences) == pytest.approx(slow.pvalue, abs=0.03)


@pytest.mark.parametrize("n", [8, 20])
@pytest.mark.parametrize("scale", [0.1, 1e-9])
def test_randomisation_does_not_see_the_unit_of_the_values(n, scale):
    """Sums of whole numbers are exact; those of their multiples differ in the last digits and must still tie."""
    for seed in range(20):
        whole = np.random.default_rng(seed).integers(-5, 6, size=n).astype(float)
        options = {"samples": 2000, "seed": 1}
        assert randomisation_p(whole * scale, **options) == randomisation_p(whole, **options)


def test_randomisation_is_exact_as_long_as_the_patterns_are_no_more_than_the_samples():
    """Eight patterns of three values: exact with eight samples, k / 8 of them plus the observed one with seven."""
    values = np.array([1.0, 2.0, 3.0])
    assert randomisation_p(values, samples=8) == 2 / 8
    assert {randomisation_p(values, samples=7, seed=seed) for seed in range(20)} > {2 / 8}
    assert randomisation_p(np.array([1.0, 1.0])) == 2 / 4


def test_randomisation_never_says_impossible():
    assert randomisation_p(np.ones(200)) == 1 / 10_000
    assert randomisation_p(np.zeros(200)) == 1


def test_randomisation_keeps_its_level_under_the_null():
    rng = np.random.default_rng(1)
    rejected = [randomisation_p(rng.normal(size=30), samples=400, seed=run) < 0.1 for run in range(300)]
    assert 0.05 < np.mean(rejected) < 0.15


def test_bootstrap_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(2)
    intervals = [bootstrap_ci(rng.exponential(size=150), level=0.9, samples=500, seed=run) for run in range(300)]
    assert 0.84 < np.mean([interval.low <= 1 <= interval.high for interval in intervals]) < 0.95


def test_bootstrap_interval_has_the_width_of_theory():
    values = np.random.default_rng(3).normal(5, 2, size=900)
    interval = bootstrap_ci(values, samples=4000)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * values.std() / 30, rel=0.06)
    narrow = bootstrap_ci(values, level=0.5, samples=4000)  # quartiles of the normal distribution lie at 0.6745 sd
    assert narrow.high - narrow.low == pytest.approx(2 * 0.6745 * values.std() / 30, rel=0.06)
    assert bootstrap_ci(values, samples=500) != bootstrap_ci(values)
    assert bootstrap_ci(values) == bootstrap_ci(values, level=0.95, samples=2000, seed=0)


def test_bootstrap_is_reproducible_and_shifts_with_the_data():
    values = np.random.default_rng(4).random(50)
    first = bootstrap_ci(values, seed=1)
    assert first == bootstrap_ci(values, seed=1)
    assert first != bootstrap_ci(values, seed=2)
    shifted = bootstrap_ci(values + 10, seed=1)
    assert (shifted.low, shifted.high) == pytest.approx((first.low + 10, first.high + 10))


def test_bootstrap_edge_cases():
    constant = bootstrap_ci(np.full(10, 0.25))
    assert (constant.mean, constant.low, constant.high, constant.n) == (0.25, 0.25, 0.25, 10)
    single = bootstrap_ci(np.array([0.5, np.nan]))
    assert (single.mean, single.n) == (0.5, 1)
    assert math.isnan(single.low)
    assert math.isnan(single.high)
    empty = bootstrap_ci(np.array([np.nan]))
    assert empty.n == 0
    assert math.isnan(empty.mean)
    gaps = bootstrap_ci(np.array([1.0, np.nan, 2.0, 3.0]))
    assert (gaps.mean, gaps.n) == (2.0, 3)


def test_paired_difference_by_hand():
    outcome = paired_difference(np.array([0.5, 1.0, 0.5, 0.0]), np.array([0.25, 0.5, 0.5, 0.25]))
    assert outcome.mean == pytest.approx(0.125)
    assert outcome.relative == pytest.approx(0.125 / 0.375)
    assert (outcome.wins, outcome.ties, outcome.losses, outcome.n) == (2, 1, 1, 4)
    assert outcome.low <= outcome.mean <= outcome.high


def test_seed_reaches_the_interval_and_the_p_value():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.2, 1, size=60), np.zeros(60)
    outcomes = [paired_difference(a, b, seed=seed) for seed in (0, 1)]
    for seed, outcome in enumerate(outcomes):
        interval = bootstrap_ci(a, seed=seed)
        assert (outcome.low, outcome.high) == (interval.low, interval.high)
        assert outcome.p_value == randomisation_p(a, seed=seed)
    assert outcomes[0].low != outcomes[1].low and outcomes[0].p_value != outcomes[1].p_value
    assert paired_difference(a, b) == outcomes[0]
    assert randomisation_p(a) == outcomes[0].p_value


@pytest.mark.parametrize("n", [8, 200])
def test_swapping_the_systems_only_changes_the_sign(n):
    rng = np.random.default_rng(n)
    a, b = rng.random(n), rng.random(n)
    forward, backward = paired_difference(a, b, seed=3), paired_difference(b, a, seed=3)
    assert backward.mean == pytest.approx(-forward.mean)
    assert (backward.low, backward.high) == pytest.approx((-forward.high, -forward.low))
    assert backward.p_value == pytest.approx(forward.p_value)
    assert (backward.wins, backward.losses) == (forward.losses, forward.wins)


def test_pairing_sees_a_small_steady_gain_that_the_spread_hides():
    rng = np.random.default_rng(5)
    b = rng.random(300)
    a = b + rng.normal(0.02, 0.05, size=300)
    outcome = paired_difference(a, b)
    assert outcome.p_value < 0.001
    assert outcome.low > 0
    assert stats.ttest_ind(a, b).pvalue > 0.2


def test_queries_missing_from_one_system_are_left_out_of_all_numbers():
    outcome = paired_difference(np.array([1.0, np.nan, 0.5, 0.5]), np.array([0.5, 9.0, np.nan, 0.25]))
    assert (outcome.n, outcome.wins, outcome.ties, outcome.losses) == (2, 2, 0, 0)
    assert outcome.mean == pytest.approx(0.375)
    assert outcome.relative == pytest.approx(0.375 / 0.375)


def test_paired_edge_cases():
    same = paired_difference(np.array([0.1, 0.2, 0.3]), np.array([0.1, 0.2, 0.3]))
    assert (same.mean, same.low, same.high, same.p_value, same.ties) == (0, 0, 0, 1, 3)
    single = paired_difference(np.array([0.75]), np.array([0.5]))
    assert (single.mean, single.n, single.wins) == (0.25, 1, 1)
    assert math.isnan(single.p_value)
    assert math.isnan(single.low)
    assert math.isnan(paired_difference(np.ones(3), np.zeros(3)).relative)
    nothing = paired_difference(np.array([np.nan]), np.array([1.0]))
    assert nothing.n == 0
    assert math.isnan(nothing.mean)
    assert math.isnan(nothing.relative)
    with pytest.raises(DataError, match="one value per query"):
        paired_difference(np.ones(3), np.ones(4))


def test_paired_t_test():
    a, b = np.array([1.0, 2.0, 4.0, np.nan]), np.array([0.0, 0.0, 1.0, 1.0])
    t = 2 / (1 / math.sqrt(3))  # differences 1, 2, 3: mean 2, sd 1
    assert paired_t_test(a, b) == pytest.approx(2 * stats.t.sf(t, df=2))
    assert paired_t_test(b, a) == pytest.approx(paired_t_test(a, b))
    assert paired_t_test(b[:3], b[:3]) == 1
    assert paired_t_test(np.full(4, 2.0), np.ones(4)) == 0
    assert math.isnan(paired_t_test(np.ones(1), np.zeros(1)))
    two = paired_t_test(np.array([1.0, 3.0]), np.zeros(2))  # mean 2, sd √2, so t = 2; one degree of freedom: Cauchy
    assert two == pytest.approx(1 - 2 / math.pi * math.atan(2))


def test_holm_by_hand():
    """Sorted: 0.01 * 4, 0.02 * 3, 0.03 * 2 (raised to 0.06), 0.5 * 1."""
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.4, 0.6]) == pytest.approx([0.8, 0.8])
    assert holm([0.7, 0.9]) == pytest.approx([1.0, 1.0])
    np.testing.assert_allclose(holm([0.02, math.nan, 0.01]), [0.02, math.nan, 0.02])
    assert holm([]).shape == (0,)


def test_minimum_detectable_effect():
    differences = np.array([-1.0, 1.0] * 50)
    sd = differences.std(ddof=1)
    assert minimum_detectable_effect(differences) == pytest.approx((1.959964 + 0.841621) * sd / 10, rel=1e-6)
    assert math.isnan(minimum_detectable_effect(np.array([1.0])))
    assert minimum_detectable_effect(np.array([0.0, 2.0])) == pytest.approx(1.959964 + 0.841621)  # sd / √n is 1


def test_an_effect_of_that_size_is_found_four_times_in_five():
    rng = np.random.default_rng(6)
    pilot = rng.normal(size=100)
    effect = minimum_detectable_effect(pilot / pilot.std(ddof=1))
    found = [stats.ttest_1samp(rng.normal(effect, 1, size=100), 0).pvalue < 0.05 for _ in range(500)]
    assert 0.74 < np.mean(found) < 0.86
