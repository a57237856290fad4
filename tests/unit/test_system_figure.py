"""One dot per system."""

import numpy as np

from embedlab.evaluation.metrics import Evaluation
from embedlab.reporting.system_figure import quality_by_system


def test_draws_each_system_and_returns_its_numbers():
    values = {"base": [0.2, 0.4, 0.6], "tuned": [0.4, 0.6, 0.8]}
    evaluations = {s: Evaluation(("a", "b", "c"), {"ndcg@10": np.array(v)}, 0) for s, v in values.items()}
    figure, table = quality_by_system(evaluations)
    assert table["system"].tolist() == ["base", "tuned"] and table["value"].round(3).tolist() == [0.4, 0.6]
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["base", "tuned"]
    assert axes.get_title(loc="left")
