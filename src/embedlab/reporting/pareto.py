"""What does a smaller, faster model cost in quality?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from embedlab.evaluation.significance import bootstrap_ci
from embedlab.reporting.figures import BASELINE, COLOURS, new_axes
from embedlab.reporting.front import pareto_front

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from embedlab.evaluation.efficiency import Footprint
    from embedlab.evaluation.metrics import Evaluation


def pareto_table(
    evaluations: Mapping[str, Evaluation], footprints: Mapping[str, Footprint], metric: str = "ndcg@10"
) -> pd.DataFrame:
    """One row per model: quality with its 95 % interval, cost, and whether any other is better in both.

    Returns:
        Columns model, value, ci_low, ci_high, n, parameters, megabytes, texts_per_second, slowest, fastest, front.
    """
    rows = []
    for model, cost in footprints.items():
        interval = bootstrap_ci(evaluations[model].of(metric))
        quality = {"value": interval.mean, "ci_low": interval.low, "ci_high": interval.high, "n": interval.n}
        rows.append({"model": model, **quality, **cost.as_dict()})
    table = pd.DataFrame(rows)
    return table.assign(front=pareto_front(table, larger=("value", "texts_per_second")).fillna(False).astype(bool))


def pareto_figure(table: pd.DataFrame, *, bm25: float, metric: str = "ndcg@10") -> Figure:
    """Quality against speed: a mark per model with its interval, its area the size on disk; a thin line is the front.

    Args:
        table: from `pareto_table`.
        bm25: its quality, drawn dashed, as it has no place on the other axis.
        metric: what the table's values are.
    """
    figure, axes = new_axes("What does speed cost?", "texts per second on this machine (log scale)", f"{metric} (test)")
    axes.set_xscale("log")
    axes.axhline(bm25, color=BASELINE, linestyle="--", label="BM25")
    front = table[table["front"]].sort_values("texts_per_second")
    axes.plot(front["texts_per_second"], front["value"], color=BASELINE, linewidth=0.8, zorder=0, label="front")
    for number, row in enumerate(table.itertuples()):
        errors = [[row.value - row.ci_low], [row.ci_high - row.value]]
        style = {"color": COLOURS[number % len(COLOURS)], "markersize": np.sqrt(2 * row.megabytes), "alpha": 0.7}
        label = f"{row.model}: {row.parameters / 1e6:.0f} M, {row.megabytes:.0f} MB"
        axes.errorbar(row.texts_per_second, row.value, yerr=errors, fmt="o", capsize=3, label=label, **style)
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, markerscale=0.5)
    return figure
