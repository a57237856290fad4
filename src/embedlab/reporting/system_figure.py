"""Which system is best? One dot per system with its interval, from one run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from embedlab.evaluation.comparison import metric_table
from embedlab.reporting.figures import BASELINE, COLOURS, new_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from embedlab.evaluation.metrics import Evaluation


def quality_by_system(
    evaluations: Mapping[str, Evaluation], metric: str = "ndcg@10", *, baseline: str = "base"
) -> tuple[Figure, pd.DataFrame]:
    """Draw each system's mean with its 95 % interval, the first system at the top.

    Args:
        evaluations: system -> evaluation of the same queries, at most eight of them.
        metric: which metric to draw.
        baseline: the system whose mean is drawn as a dashed line, if it is among them.

    Returns:
        The figure, and its table with columns system, metric, value, ci_low, ci_high, n.
    """
    table = metric_table(evaluations, [metric])
    figure, axes = new_axes("Which system finds the right document?", f"{metric} (test)", "")
    positions = range(len(table))[::-1]
    for colour, position, row in zip(COLOURS * 2, positions, table.itertuples(), strict=False):
        axes.hlines(position, row.ci_low, row.ci_high, color=colour, linewidth=3, alpha=0.5)
        axes.plot(row.value, position, "o", color=colour, markersize=8)
        axes.annotate(f"{row.value:.3f}", (row.value, position), (0, 9), textcoords="offset points", ha="center")
    if baseline in evaluations:
        axes.axvline(evaluations[baseline].mean(metric), color=BASELINE, linestyle="--", linewidth=1)
    axes.set_yticks(list(positions), list(table["system"]))
    axes.set_ylim(-0.6, len(table) - 0.3)
    axes.grid(axis="x", alpha=0.3)
    axes.grid(axis="y", visible=False)
    return figure, table
