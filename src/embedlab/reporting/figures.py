"""Figures that answer one question each: labelled axes, the baseline drawn, intervals shown, the numbers beside them.

Every function returns the figure and the table it was drawn from; `Run.figure` saves both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from embedlab.evaluation.significance import bootstrap_ci

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from embedlab.evaluation.metrics import Evaluation

# Okabe and Ito's palette: told apart in print and by colour-blind readers.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
BASELINE = "#666666"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def new_axes(title: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """One set of axes in the house style; the title is the question the figure answers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    return figure, axes


def interval_table(evaluations: Mapping[str, Mapping[int, Evaluation]], metric: str) -> pd.DataFrame:
    """Rows model, dim, value, ci_low, ci_high, n, largest dimension first."""
    rows = []
    for model, by_dim in evaluations.items():
        for dim, evaluation in sorted(by_dim.items(), reverse=True):
            interval = bootstrap_ci(evaluation.values[metric])
            row = {"model": model, "dim": dim, "value": interval.mean, "ci_low": interval.low, "ci_high": interval.high}
            rows.append({**row, "n": interval.n})
    return pd.DataFrame(rows)


def quality_by_dimension(
    evaluations: Mapping[str, Mapping[int, Evaluation]], *, bm25: Evaluation, metric: str = "ndcg@10"
) -> tuple[Figure, pd.DataFrame]:
    """What does a smaller embedding cost? One line per model with its 95 % band, BM25 as the dashed baseline."""
    table = interval_table(evaluations, metric)
    figure, axes = new_axes("What does a smaller embedding cost?", "dimensions kept", f"{metric} (test)")
    for colour, (model, rows) in zip(COLOURS, table.groupby("model", sort=False), strict=False):
        axes.plot(rows["dim"], rows["value"], "o-", color=colour, label=model)
        axes.fill_between(rows["dim"], rows["ci_low"], rows["ci_high"], color=colour, alpha=0.15, linewidth=0)
    level = bm25.mean(metric)
    axes.axhline(level, color=BASELINE, linestyle="--", label="BM25")
    _dimension_axis(axes, sorted(table["dim"].unique()))
    axes.legend(frameon=False)
    return figure, pd.concat([table, pd.DataFrame([{"model": "bm25", "value": level}])], ignore_index=True)


def _dimension_axis(axes: Axes, dims: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(dims, [str(dim) for dim in dims])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)


def learning_curve(history: Sequence[Mapping[str, float]]) -> tuple[Figure, pd.DataFrame]:
    """Is it learning, and when was it best on dev? Training loss on the left axis, dev nDCG@10 on the right."""
    table = pd.DataFrame(history)
    figure, axes = new_axes("When was it best?", "training step", "training loss")
    _line(axes, table, "loss", COLOURS[0], "training loss")
    right = axes.twinx()
    right.set_ylabel("nDCG@10 (dev)")
    right.spines["top"].set_visible(False)
    _line(right, table, "dev", COLOURS[1], "dev nDCG@10", marker="o")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure, table


def _line(axes: Axes, table: pd.DataFrame, column: str, colour: str, label: str, **style: str) -> None:
    if column in table:
        known = table.dropna(subset=[column])
        axes.plot(known["step"], known[column], color=colour, label=label, **style)
