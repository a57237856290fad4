"""The front of quality and several costs, and the figure with a panel per cost."""

from __future__ import annotations

import numpy as np
import pandas as pd

from embedlab.reporting.pareto import COSTS, cost_panels, mark_front

TABLE = pd.DataFrame(
    [  # quality, bytes, texts per second, milliseconds per query, training seconds
        ("base", 0.40, 100.0, 10.0, 5.0, 0.0),  # no training
        ("tuned", 0.60, 100.0, 10.0, 5.0, 50.0),  # best
        ("slower", 0.60, 100.0, 9.0, 5.0, 50.0),  # tuned, but slower
        ("static", 0.55, 100.0, 999.0, 1.0, 20.0),  # fast
        ("fused", 0.70, np.nan, np.nan, np.nan, 70.0),  # costs unknown
    ],
    columns=["system", "quality", *COSTS],
)


def test_front_of_quality_and_all_costs_by_hand():
    marked = mark_front(TABLE, "quality").set_index("system")["front"]
    assert marked.drop("fused").tolist() == [True, True, False, True]
    assert pd.isna(marked["fused"])


def test_direction_of_each_cost():
    for cost, (_, more_is_better) in COSTS.items():
        better = TABLE.loc[1, cost] * (2 if more_is_better else 0.5)
        changed = TABLE.copy()
        changed.loc[2, "texts_per_second"] = TABLE.loc[1, "texts_per_second"]
        changed.loc[2, cost] = better
        marks = mark_front(changed, "quality").set_index("system")["front"]
        assert (marks["slower"], marks["tuned"]) == (True, False), cost


def test_a_panel_per_cost_with_a_filled_mark_for_the_front():
    figure, marked = cost_panels(TABLE, "quality", "nDCG@10")
    assert marked.equals(mark_front(TABLE, "quality"))
    assert [axes.get_xlabel().partition(" (")[0] for axes in figure.axes] == [name for name, _ in COSTS.values()]
    for axes in figure.axes:
        faces = [line.get_markerfacecolor() for line in axes.lines if line.get_marker() == "o"]
        assert faces.count("white") == 1 and len(faces) == 4  # `slower`; `fused` is left out
        assert sorted(text.get_text() for text in axes.texts if text.get_text().isdigit()) == ["1", "2", "3", "4"]
    assert figure.axes[3].get_xscale() == "symlog"  # shows 0 seconds
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "1  tuned, 0.600" in legend and len(legend) == 4
    assert "3 of 4 systems" in figure.get_suptitle()
