"""What does a smaller, faster model cost in quality? Pareto fronts, their table and their figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from embedlab.evaluation.significance import bootstrap_ci
from embedlab.reporting.figures import (
    BASELINE,
    COLOURS,
    Label,
    draw_level,
    label_lines,
    label_points,
    new_axes,
    set_finding,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from embedlab.evaluation.efficiency import Footprint
    from embedlab.evaluation.metrics import Evaluation


METRIC = "ndcg@10"


def pareto_front(frame: pd.DataFrame, larger: Sequence[str] = (), smaller: Sequence[str] = ()) -> pd.Series:
    """Mark the rows on the Pareto front: no other row is as good in every column and better in one.

    Args:
        frame: one row per candidate.
        larger: columns of which more is better.
        smaller: columns of which less is better.

    Returns:
        Nullable booleans. A column without any value is left out of the comparison. A row that lacks a value in one
        of the other columns is missing, and does not count as better than any row.
    """
    costs = pd.concat([-frame[list(larger)], frame[list(smaller)]], axis=1).astype(float).dropna(axis=1, how="all")
    complete = costs.notna().all(axis=1).to_numpy() & bool(len(costs.columns))
    values = costs.to_numpy()[complete]  # (m, k)
    marks = pd.array([None] * len(frame), dtype="boolean")
    marks[complete] = [not _is_dominated(row, values) for row in values]
    return pd.Series(marks, index=frame.index)


def _is_dominated(row: np.ndarray, candidates: np.ndarray) -> bool:
    return bool(((candidates <= row).all(axis=1) & (candidates < row).any(axis=1)).any())


def pareto_table(evaluations: Mapping[str, Evaluation], footprints: Mapping[str, Footprint]) -> pd.DataFrame:
    """Tabulate nDCG@10 with its 95 % interval and the costs of each system.

    Args:
        evaluations: system -> evaluation.
        footprints: system -> parameters, size and speed.

    Returns:
        Columns system, value, ci_low, ci_high, n, parameters, megabytes, texts_per_second, slowest, fastest, front
        (no other system is both better and faster).
    """
    rows = []
    for system, cost in footprints.items():
        interval = bootstrap_ci(evaluations[system].of(METRIC))
        quality = {"value": interval.mean, "ci_low": interval.low, "ci_high": interval.high, "n": interval.n}
        rows.append({"system": system, **quality, **cost.as_dict()})
    table = pd.DataFrame(rows)
    return table.assign(front=pareto_front(table, larger=("value", "texts_per_second")).fillna(False).astype(bool))


def pareto_figure(table: pd.DataFrame, *, bm25: float | None = None) -> Figure:
    """Draw quality against speed: a mark per system with its interval, the Pareto front as a grey line.

    Args:
        table: from `pareto_table`.
        bm25: its quality, drawn as a dashed line; None draws none.
    """
    figure, axes = new_axes("What does speed cost?", "texts per second on this machine (log scale)", f"{METRIC} (test)")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    front = table[table["front"]].sort_values("texts_per_second")
    axes.plot(front["texts_per_second"], front["value"], color=BASELINE, linewidth=3, alpha=0.3, zorder=0)
    labels = []
    for number, row in enumerate(table.itertuples()):
        colour = COLOURS[number % len(COLOURS)]
        errors = [[row.value - row.ci_low], [row.ci_high - row.value]]
        axes.errorbar(row.texts_per_second, row.value, yerr=errors, fmt="o", capsize=3, color=colour, alpha=0.8)
        text = f"{row.system}: {row.parameters / 1e6:.0f} M, {row.megabytes:.0f} MB"
        labels.append(Label(text, row.texts_per_second, row.value, colour))
    axes.set_ylim(bottom=0)
    axes.margins(x=0.12)
    if bm25 is not None:
        label_lines(axes, [draw_level(axes, bm25, "BM25")])
    label_points(axes, labels)
    set_finding(axes, _finding(table))
    return figure


def _finding(table: pd.DataFrame) -> str:
    """The best system, and how much faster than it the fastest on the front is."""
    best = table.loc[table["value"].idxmax()]
    fastest = table.loc[table["texts_per_second"].idxmax()]
    if best["system"] == fastest["system"]:
        return f"{best['system']} is both the best ({best['value']:.3f}) and the fastest."
    times = fastest["texts_per_second"] / best["texts_per_second"]
    ratio = f"{times:.0f}" if times >= 10 else f"{times:.1f}"
    return (
        f"{best['system']} has the best {METRIC} ({best['value']:.3f}). "
        f"{fastest['system']} encodes {ratio} times as fast and reaches {fastest['value']:.3f}."
    )
