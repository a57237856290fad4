"""Which system is best? One dot per system with its interval, from one run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from embedlab.evaluation.comparison import metric_table
from embedlab.reporting.figures import BASELINE, COLOURS, new_axes, set_finding

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from embedlab.evaluation.metrics import Evaluation

BASE = "base"
TITLE = "Which system finds the right document?"


def quality_by_system(evaluations: Mapping[str, Evaluation]) -> tuple[Figure, pd.DataFrame]:
    """Draw each system's mean nDCG@10 with its 95 % interval, the first system at the top.

    The mean of the base model, if it is among them, is a dashed line.

    Args:
        evaluations: system -> evaluation of the same queries, at most eight of them.

    Returns:
        The figure, and its table with columns system, metric, value, ci_low, ci_high, n.
    """
    table = metric_table(evaluations, ["ndcg@10"])
    return draw_quality_by_system(table), table


def draw_quality_by_system(table: pd.DataFrame) -> Figure:
    """Draw the table of `quality_by_system`."""
    figure, axes = new_axes(TITLE, f"{table['metric'].iloc[0]} (test)", "", size=(6.6, 1.4 + 0.55 * len(table)))
    positions = list(range(len(table)))[::-1]
    for colour, position, row in zip(COLOURS, positions, table.itertuples(), strict=False):
        axes.hlines(position, row.ci_low, row.ci_high, color=colour, linewidth=3, alpha=0.5)
        axes.plot(row.value, position, "o", color=colour, markersize=8)
        axes.annotate(f"{row.value:.3f}", (row.value, position), (0, 8), textcoords="offset points", ha="center")
    axes.set_yticks(positions, list(table["system"]))
    axes.set_ylim(-0.6, len(table) - 0.3)
    axes.grid(axis="x", alpha=0.3)
    axes.grid(axis="y", visible=False)
    values = dict(zip(table["system"], table["value"], strict=True))
    if level := values.get(BASE):
        axes.axvline(level, color=BASELINE, linestyle="--", linewidth=1, zorder=0)
        best = max(values, key=lambda system: values[system])
        if best != BASE:
            set_finding(axes, f"{best} is best: {values[best] / level - 1:+.0%} over {BASE}.")
    return figure
