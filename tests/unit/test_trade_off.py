"""Gain and change are differences on the same items, and the budget picks what it should from a curve made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from embedlab.data.dataset import Dataset
from embedlab.errors import ParameterError
from embedlab.evaluation.probes import ProbeScore
from embedlab.evaluation.significance import PairedDifference
from embedlab.evaluation.trade_off import (
    Point,
    score_models,
    split_scorer,
    trade_off,
    trade_off_table,
    within_budget,
)

NAN = float("nan")


def difference(mean):
    return PairedDifference(mean, mean - 0.01, mean + 0.01, NAN, NAN, 10, 0, 0, 0)


def curve(*points):
    return [Point(name, difference(gain), difference(change)) for name, gain, change in points]


CURVE = curve(
    ("base", 0.0, 0.0), ("40 %", 0.05, 0.004), ("60 %", 0.08, -0.01), ("80 %", 0.09, -0.02), ("all", 0.1, -0.05)
)


@pytest.mark.parametrize(
    ("budget", "name"), [(0.0, "40 %"), (0.009, "40 %"), (0.01, "60 %"), (0.03, "80 %"), (1.0, "all")]
)
def test_largest_gain_within_the_budget(budget, name):
    assert within_budget(CURVE, budget).name == name
    assert within_budget(CURVE[::-1], budget).name == name


def test_of_equal_gains_the_one_that_forgets_least():
    assert within_budget(curve(("a", 0.1, -0.02), ("b", 0.1, -0.01)), 0.05).name == "b"


def test_a_mixture_that_loses_in_the_domain_is_not_better_than_the_base_model():
    assert within_budget(curve(("base", 0.0, 0.0), ("worse", -0.1, 0.2)), 0.05).name == "base"


@pytest.mark.parametrize("points", [CURVE[2:], []])
def test_no_affordable_model_raises(points):
    with pytest.raises(ParameterError, match="No model stays within a budget of 0.001"):
        within_budget(points, 0.001)


def scorer(**items):
    """Scores a model, here its name, with the given items."""
    scores = {name: ProbeScore("ndcg@10", float(np.mean(values)), np.array(values)) for name, values in items.items()}
    return lambda model, encode=None: scores[model]


def test_trade_off_is_a_difference_to_the_base_model():
    domain, general = scorer(base=[0.1, 0.3], tuned=[0.5, 0.9]), scorer(base=[0.4, 0.4], tuned=[0.3, 0.2])
    same, tuned = trade_off([("same", "base"), ("tuned", "tuned")], "base", domain, general)
    assert (same.gain.mean, same.change.mean) == (0, 0)
    assert tuned.gain.mean == pytest.approx(0.5) and tuned.change.mean == pytest.approx(-0.15)
    table = trade_off_table([same, tuned]).set_index("name")
    assert table.loc["tuned", "gain"] == pytest.approx(0.5) and table.loc["tuned", "change_n"] == 2
    assert table.loc["tuned", "change_low"] <= -0.15 <= table.loc["tuned", "change_high"]


def test_scores_begin_with_the_base_model():
    scored = score_models({"task": scorer(base=[0.2, 0.4], tuned=[0.3, 0.7])}, {"tuned": "tuned"}, "base")
    assert [(row.task, row.system) for row in scored] == [("task", "base"), ("task", "tuned")]
    assert scored[0].difference.mean == 0 and scored[1].difference.mean == pytest.approx(0.2)
    assert scored[1].interval()["ci_low"] <= 0.5 <= scored[1].interval()["ci_high"]


def test_a_correlation_has_no_interval_of_a_mean():
    gold = np.arange(5.0)
    scores = {"base": ProbeScore("cosine_spearman", 1.0, gold, gold), "tuned": ProbeScore("s", -1.0, -gold, gold)}
    scored = score_models({"sts": lambda model, encode=None: scores[model]}, {"tuned": "tuned"}, "base")
    assert scored[1].interval() == {"n": 5}
    assert scored[1].difference.mean == pytest.approx(-2)


def test_split_scorer_scores_the_split_it_names(tiny):
    texts = {"a": "cholera", "b": "fracture", "c": "pneumonia"}
    qrels = {"train": {}, "dev": {"q": {"a": 1}}, "test": {"r": {"c": 1}}}
    data = Dataset("toy", texts, {"q": "cholera", "r": "fracture"}, qrels)
    assert split_scorer(data, "dev")(tiny).value == 1  # the query reads like its document
    assert split_scorer(data, "test")(tiny).value < 1
    assert split_scorer(data, "test", max_docs=1)(tiny).value == 1  # the positive alone is left
