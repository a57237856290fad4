"""Which candidate wins: the best on dev that beats its parts and keeps the limits; values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from embedlab.errors import ParameterError
from embedlab.evaluation.metrics import Evaluation
from embedlab.search.vectors import Vectors
from embedlab.tuning.candidate import METRIC, Candidate
from embedlab.tuning.choice import choose, lead, not_better


def candidate(name, values, parts=(), dim=2):
    values = np.array(values, dtype=float)
    queries = tuple(f"q{i}" for i in range(len(values)))
    vectors = Vectors(queries, ("d",), np.ones((len(values), dim)), np.ones((1, dim)))
    return Candidate(name, "base", "", vectors, Evaluation(queries, {METRIC: values}, 0), lambda: None, parts)


BASE = candidate("base", [0.5, 0.5, 0.5, 0.5])


def anything(_):
    return ""


def test_lead_is_the_mean_difference_and_its_standard_error():
    mean, error = lead(candidate("a", [0.6, 0.5, 0.7, 0.6]), BASE)
    assert mean == pytest.approx(0.1) and error == pytest.approx(np.sqrt(0.02 / 3 / 4))


def test_queries_without_a_value_do_not_count():
    mean, error = lead(candidate("a", [0.6, np.nan, 0.8, np.nan]), BASE)
    assert mean == pytest.approx(0.2) and error == pytest.approx(np.sqrt(0.02 / 2))


@pytest.mark.parametrize("values", [[0.9], [0.9, np.nan]])
def test_one_query_shows_nothing(values):
    one = candidate("base", [0.5] * len(values))
    mean, error = lead(candidate("a", values), one)
    assert mean == pytest.approx(0.4) and error == np.inf
    assert choose([one, candidate("a", values, ("base",))], anything).winner is one


def test_the_best_mean_wins():
    better, best = candidate("a", [0.6] * 4, ("base",)), candidate("b", [0.7] * 4, ("base",))
    choice = choose([BASE, better, best], anything)
    assert choice.winner is best and choice.why_not == {}


def test_a_higher_mean_is_enough_against_the_base_model_and_a_standard_error_against_other_parts():
    noisy = candidate("linear", [0.9, 0.2, 0.9, 0.2], ("base",))  # +0.05 on average, error 0.202
    assert lead(noisy, BASE) == (pytest.approx(0.05), pytest.approx(np.sqrt(0.49 / 3 / 4)))
    assert choose([BASE, noisy], anything).winner is noisy
    start = candidate("start", [0.5] * 4)
    assert choose([BASE, start, candidate("tuned", noisy.values, ("base", "start"))], anything).winner is BASE


def test_equal_candidates_leave_the_simpler_one():
    assert choose([BASE, candidate("a", [0.5] * 4)], anything).winner is BASE


def test_a_combination_that_does_not_beat_its_part_never_wins():
    part = candidate("static", [0.6, 0.8, 0.4, 0.6], ("base",))
    joined = candidate("joined", [0.9, 0.6, 0.5, 0.5], ("base", "static"))  # +0.025 on average, error 0.111
    assert lead(joined, part)[0] == pytest.approx(0.025)
    choice = choose([BASE, part, joined], anything)
    assert choice.winner is part
    assert choice.why_not["joined"].startswith("+0.0250 against static, which is simpler")


def test_a_combination_that_beats_its_parts_wins():
    part = candidate("static", [0.6, 0.6, 0.6, 0.6], ("base",))
    joined = candidate("joined", [0.7, 0.7, 0.8, 0.7], ("base", "static"))
    assert choose([BASE, part, joined], anything).winner is joined


def test_parts_that_were_not_made_are_not_compared():
    assert not_better(candidate("a", [0.1] * 4, ("missing",)), {"base": BASE}, "base") == ""


def test_limits_are_asked_from_the_best_down_and_only_as_far_as_needed():
    asked = []

    def too_slow(candidate):
        asked.append(candidate.name)
        return "too slow" if candidate.name == "c" else ""

    ladder = [BASE, candidate("a", [0.6] * 4), candidate("b", [0.7] * 4), candidate("c", [0.8] * 4)]
    choice = choose(ladder, too_slow)
    assert choice.winner.name == "b" and asked == ["c", "b"] and choice.why_not == {"c": "too slow"}


def test_nothing_has_to_beat_a_part_that_breaks_a_limit():
    """With `min_speed` above 1 the base model breaks it, and a student that is a little worse must win."""
    limits = {"base": "too slow", "linear": "forgets"}
    student = candidate("student", [0.4] * 4, ("base",))
    choice = choose([BASE, student], lambda candidate: limits.get(candidate.name, ""))
    assert choice.winner is student and choice.why_not == {"base": "too slow"}
    linear = candidate("linear", [0.7, 0.6, 0.7, 0.6], ("base",))
    tuned = candidate("tuned", [0.6, 0.7, 0.6, 0.7], ("base", "linear"))  # level with the linear map
    merged = candidate("merged", [0.6] * 4, ("base", "tuned"))
    choice = choose([BASE, linear, tuned, merged], lambda candidate: limits.get(candidate.name, ""))
    assert choice.winner is tuned and choice.why_not == {"linear": "forgets"}
    limits["tuned"] = "forgets"
    choice = choose([BASE, linear, tuned, merged], lambda candidate: limits.get(candidate.name, ""))
    assert choice.winner is merged


def test_no_candidate_within_the_limits_is_one_clear_error():
    with pytest.raises(ParameterError, match="no candidate keeps the limits.*base: too wide.*max_bytes"):
        choose([BASE], lambda candidate: "too wide")


def test_bytes_are_those_of_float32():
    assert candidate("a", [1.0, 1.0], dim=384).bytes == 1536
