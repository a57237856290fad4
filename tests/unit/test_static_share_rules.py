"""Rules that choose the share of the static model: shares by hand, and what a rule loses."""

from __future__ import annotations

import numpy as np
import pytest

from experiments import static_share_rules as rules
from tests.unit.test_static_share import DEV


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("highest on dev", 0.6), ("smallest level one", 0.4), ("middle of the level ones", 0.6), ("parabola", 0.6)],
)
def test_each_rule_by_hand(rule, expected):
    assert rules.RULES[rule](DEV) == expected


def test_loss_is_counted_from_the_best_share_of_test():
    test = {share: np.full(4, value) for share, value in zip(DEV, (0.1, 0.7, 0.6, 0.2, 0.1), strict=True)}
    found = rules.row("x", 0, {"dev": DEV, "test": test})
    assert found["best"] == pytest.approx(0.7) and found["values"]["highest on dev"] == pytest.approx(0.6)
    assert "0.6 (-0.100)" in rules.table([found]) and "0.4 (+0.000)" in rules.table([found])
