"""What does a smaller, faster model cost in quality? Pareto fronts, their table and their figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from embedlab.evaluation.significance import bootstrap_ci
from embedlab.reporting.figures import (
    BASELINE,
    COLOURS,
    DPI,
    LABEL_SIZE,
    Label,
    draw_level,
    label_lines,
    label_points,
    new_axes,
    set_finding,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from embedlab.evaluation.efficiency import Footprint
    from embedlab.evaluation.metrics import Evaluation


METRIC = "ndcg@10"
# Column of a table -> what its axis shows, and whether more of it is better.
COSTS = {
    "bytes_per_document": ("bytes per document", False),
    "texts_per_second": ("texts per second", True),
    "milliseconds_per_query": ("milliseconds per query", False),
    "training_seconds_in_all": ("training, seconds", False),
}
PANELS, TITLE_SIZE = (9.6, 6.6), 10  # inches, points


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


def mark_front(table: pd.DataFrame, quality: str) -> pd.DataFrame:
    """Add the column `front`: no other system is as good in quality and in every cost, and better in one.

    Args:
        table: one row per system, with the columns of `COSTS`; a system without one of them is not compared.
        quality: column of the quality.
    """
    larger = [quality, *(name for name, (_, more) in COSTS.items() if more)]
    smaller = [name for name, (_, more) in COSTS.items() if not more]
    return table.assign(front=pareto_front(table, larger=larger, smaller=smaller))


def cost_panels(table: pd.DataFrame, quality: str, ylabel: str) -> tuple[Figure, pd.DataFrame]:
    """Draw quality against each cost, a panel per cost; systems have numbers, which the legend explains.

    A system on the common front of quality and all costs is a filled mark. The grey line is the front of one panel.

    Args:
        table: one row per system, with the columns `system` and those of `COSTS`. Systems without costs are not drawn.
        quality: column of the quality.
        ylabel: what it is.

    Returns:
        The figure, and the table with the column `front`, see `mark_front`.
    """
    from matplotlib.lines import Line2D

    from embedlab.reporting.figure_fonts import AnyScriptFigure

    marked = mark_front(table, quality)
    systems = marked.dropna(subset=list(COSTS)).sort_values(quality, ascending=False, ignore_index=True)
    figure = AnyScriptFigure(figsize=PANELS, dpi=DPI, layout="constrained")
    panels = figure.subplots(2, 2, sharey=True).flatten()
    for axes, (cost, (xlabel, more)) in zip(panels, COSTS.items(), strict=True):
        style_axes(axes, "", f"{xlabel} (log scale)", ylabel if axes in panels[::2] else "")
        _draw_panel(axes, systems, quality, cost, more_is_better=more)
    handles = [
        Line2D([], [], label=f"{number}  {row['system']}, {row[quality]:.3f}", **_mark(number, row["front"]))
        for number, (_, row) in enumerate(systems.iterrows(), start=1)
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=LABEL_SIZE)
    best, count = systems.iloc[0], int(systems["front"].sum())
    finding = f"{best['system']} has the best quality. {count} of {len(systems)} systems (filled marks) are beaten by"
    title = f"What does quality cost?\n{finding} no other one in quality and all costs."
    figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE_SIZE)
    return figure, marked


def _draw_panel(axes: Axes, systems: pd.DataFrame, quality: str, cost: str, *, more_is_better: bool) -> None:
    if (systems[cost] <= 0).any():
        axes.set_xscale("symlog", linthresh=1)
    else:
        axes.set_xscale("log", base=2 if systems[cost].max() < 30 * systems[cost].min() else 10)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.minorticks_off()
    axes.margins(x=0.1, y=0.1)
    larger, smaller = ((quality, cost), ()) if more_is_better else ((quality,), (cost,))
    line = systems[pareto_front(systems, larger=larger, smaller=smaller).fillna(False).astype(bool)].sort_values(cost)
    axes.plot(line[cost], line[quality], color=BASELINE, linewidth=3, alpha=0.3, zorder=0)
    for number, (_, row) in enumerate(systems.iterrows(), start=1):
        mark = _mark(number, row["front"])
        axes.plot(row[cost], row[quality], **mark)
        offset: dict[str, Any] = {"xytext": (5, 3), "textcoords": "offset points"}
        point = (row[cost], row[quality])
        axes.annotate(str(number), point, **offset, fontsize=LABEL_SIZE, color=mark["color"])


def _mark(number: int, on_front: bool) -> dict[str, Any]:
    """The mark of the system with this number, filled if it is on the common front."""
    colour = COLOURS[(number - 1) % len(COLOURS)]
    face = colour if on_front else "white"
    return {"marker": "o", "linestyle": "", "color": colour, "markerfacecolor": face}
