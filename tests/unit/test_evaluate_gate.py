"""The gate's rule at its edges: budget, chance, too few queries, corrections, sign."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from embedlab.errors import ParameterError
from embedlab.evaluation.budgets import Budgets
from embedlab.evaluation.gate import FAIL, PASS, UNSURE, Gate, difference_checks, judge, slice_checks
from embedlab.evaluation.metrics import Evaluation
from embedlab.evaluation.significance import PairedDifference, paired_difference


def evaluation(values):
    values = np.array(values, dtype=float)
    return Evaluation(tuple(f"q{i}" for i in range(len(values))), {"ndcg@10": values}, int(np.isnan(values).sum()))


def difference(mean, low, high, p):
    return PairedDifference(mean, low, high, math.nan, p, 100, 0, 0, 0)


def verdicts(*differences, budget=0.02):
    table = judge([difference_checks({str(i): d for i, d in enumerate(differences)}, budget)]).table
    return table.set_index("check")["verdict"].to_dict()


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (difference(0.05, 0.03, 0.07, 0.001), PASS),
        (difference(-0.01, -0.019, -0.001, 0.01), PASS),  # surely worse, surely within budget
        (difference(-0.05, -0.07, -0.03, 0.001), FAIL),
        (difference(-0.05, -0.11, 0.01, 0.2), UNSURE),  # beyond budget, but chance explains it
        (difference(-0.015, -0.03, -0.001, 0.01), UNSURE),  # within budget, but it may be more
        (difference(0.01, -0.05, 0.07, 0.6), UNSURE),  # better, but nobody can say
        (difference(math.nan, math.nan, math.nan, math.nan), UNSURE),
        (difference(-0.5, math.nan, math.nan, math.nan), UNSURE),  # a single query
    ],
)
def test_the_rule(outcome, verdict):
    assert verdicts(outcome) == {"0": verdict}


def test_the_budget_is_a_drop_and_its_edge_is_tolerated():
    edge = difference(-0.02, -0.02, -0.02, 0.0001)
    assert verdicts(edge) == {"0": PASS}
    assert verdicts(edge, budget=0.0199) == {"0": FAIL}


def test_many_checks_need_stronger_evidence():
    one = difference(-0.05, -0.09, -0.01, 0.02)
    assert verdicts(one) == {"0": FAIL}
    assert set(verdicts(*[one] * 5).values()) == {UNSURE}  # Holm: 5 x 0.02


def test_passed_and_strictly_passed():
    fine, vague, bad = difference(0, -0.01, 0.01, 1), difference(0, -0.1, 0.1, 1), difference(-0.1, -0.2, -0.05, 0.0001)
    for differences, lenient, strict in (
        ([fine], True, True),
        ([fine, vague], True, False),
        ([fine, bad], False, False),
    ):
        gate = judge([difference_checks({str(i): d for i, d in enumerate(differences)}, 0.02)])
        assert (gate.passed(), gate.passed(strict=True)) == (lenient, strict)


def test_worst_first_and_named_in_the_summary():
    named = {"fine": difference(0, -0.01, 0.01, 1), "bad": difference(-0.1, -0.2, -0.05, 0.0001)}
    gate = judge([difference_checks(named, 0.02)])
    assert gate.table["check"].tolist() == ["bad", "fine"]
    assert gate.summary() == "2 checks: 1 pass, 0 unsure, 1 fail (bad -0.100): do not ship the model"


def test_a_slice_fails_although_the_mean_is_better():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.3, 0.6, 200)
    tuned = base + np.where(np.arange(200) < 150, 0.2, -0.2) + rng.normal(0, 0.02, 200)
    fields = {f"q{i}": {"kind": "A" if i < 150 else "B"} for i in range(200)}
    overall = paired_difference(tuned, base)
    checks = [
        difference_checks({"overall": overall}, 0.0),
        slice_checks(evaluation(tuned), evaluation(base), fields, ["kind"], "ndcg@10", Budgets()),
    ]
    gate = judge(checks)
    assert overall.mean > 0.05
    assert gate.table[["check", "slice", "verdict"]].to_numpy().tolist() == [
        ["kind", "B", FAIL],
        ["overall", "", PASS],
        ["kind", "A", PASS],
    ]
    swapped = judge([slice_checks(evaluation(base), evaluation(tuned), fields, ["kind"], "ndcg@10", Budgets())])
    assert swapped.table.set_index("slice")["verdict"].to_dict() == {"A": FAIL, "B": PASS}


def test_the_high_risk_slice_has_a_budget_of_its_own():
    fields = {f"q{i}": {"risk": "high-risk" if i % 2 else "other"} for i in range(8)}
    budgets = Budgets(slice=0.2, high_risk=0.1)
    table = slice_checks(evaluation([1] * 8), evaluation([1] * 8), fields, ["risk"], "ndcg@10", budgets)
    assert table.set_index("slice")["budget"].to_dict() == {"high-risk": 0.1, "other": 0.2}


def test_three_losing_queries_are_no_proof():
    fields = {f"q{i}": {"kind": "A"} for i in range(3)}
    gate = judge([slice_checks(evaluation([0] * 3), evaluation([1] * 3), fields, ["kind"], "ndcg@10", Budgets())])
    assert gate.table["verdict"].tolist() == [UNSURE]


def test_identical_models_pass_even_without_any_budget():
    values = np.random.default_rng(0).random(50)
    none = Budgets(slice=0, high_risk=0, probe=0)
    fields = {f"q{i}": {"kind": "AB"[i % 2]} for i in range(50)}
    assert judge([slice_checks(evaluation(values), evaluation(values), fields, ["kind"], "ndcg@10", none)]).passed(
        strict=True
    )


def test_impossible_budgets_and_an_empty_gate():
    with pytest.raises(ParameterError, match="must be 0 or more, got -0.1"):
        Budgets(slice=-0.1)
    with pytest.raises(ParameterError, match="must be 0 or more, got nan"):
        Budgets(probe=math.nan)
    with pytest.raises(ParameterError, match="between 0 and 1, got 1"):
        Budgets(alpha=1)
    with pytest.raises(ParameterError, match="The gate has no check"):
        judge([difference_checks({}, 0.1)])


@pytest.mark.parametrize(
    ("verdicts", "conclusion"),
    [(["pass"], "ship the model"), (["pass", "unsure"], "more test queries"), (["unsure", "fail"], "do not ship")],
)
def test_summary_ends_with_a_conclusion(verdicts, conclusion):
    rows = [{"check": "overall", "slice": "", "difference": -0.1, "verdict": verdict} for verdict in verdicts]
    assert conclusion in Gate(pd.DataFrame(rows)).summary().rpartition(": ")[2]
