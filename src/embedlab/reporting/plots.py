"""Two plain kinds of figures, drawn from a table: lines with bands, and intervals one below the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from embedlab.reporting.figures import (
    BASELINE,
    COLOURS,
    Label,
    label_lines,
    label_points,
    new_axes,
    set_finding,
    title_at_left_edge,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME_WIDTH = 34  # letters of a name next to an interval


def draw_lines(
    table: pd.DataFrame,
    title: str,
    x: str,
    y: str,
    *,
    xlabel: str,
    ylabel: str,
    by: str = "",
    band: tuple[str, str] | None = None,
    log: int = 0,
    level: float | None = None,
    finding: str = "",
) -> Figure:
    """Draw a line per group, with its band, named at its end.

    Args:
        table: a row per point.
        title: the question.
        x, y: columns of the points.
        xlabel, ylabel: names of the axes.
        by: the column that tells lines apart; one line when not given.
        band: columns with the ends of the interval.
        log: base of a logarithmic x axis; 0: linear.
        level: a dashed horizontal line.
        finding: the subtitle.
    """
    from matplotlib.ticker import LogLocator

    figure, axes = new_axes(title, xlabel, ylabel)
    if log:
        axes.set_xscale("log", base=log)
        axes.minorticks_off()
        axes.xaxis.set_major_formatter("{x:g}")
        if log == 10:
            axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    labels = []
    groups = list(table.groupby(by, sort=False)) if by else [("", table)]
    for colour, (name, rows) in zip(COLOURS, groups, strict=False):
        rows = rows.dropna(subset=[x, y]).sort_values(x)
        marker = "o-" if len(rows) <= 30 else "-"
        axes.plot(rows[x], rows[y], marker, color=colour)
        if band:
            axes.fill_between(rows[x], rows[band[0]], rows[band[1]], color=colour, alpha=0.15, linewidth=0)
        labels.append(Label(str(name), rows[x].iloc[-1], rows[y].iloc[-1], colour))
    if level is not None:
        axes.axhline(level, color=BASELINE, linestyle="--", linewidth=1.2)
    if by:
        label_lines(axes, labels)
    set_finding(axes, finding)
    return figure


def draw_intervals(
    table: pd.DataFrame,
    title: str,
    name: str,
    value: str,
    *,
    low: str,
    high: str,
    xlabel: str,
    reference: float | None = None,
    finding: str = "",
) -> Figure:
    """Draw a value with its interval per row, the names at the left, in the order of the table.

    Args:
        table: a row per value.
        title: the question.
        name, value, low, high: columns.
        xlabel: name of the axis.
        reference: a dashed vertical line, e.g. 0 for differences.
        finding: the subtitle.
    """
    figure, axes = new_axes(title, xlabel, "", size=(6.6, max(2.4, 1.3 + 0.3 * len(table))))
    heights = range(len(table))
    errors = [table[value] - table[low], table[high] - table[value]]
    axes.errorbar(table[value], heights, xerr=errors, fmt="o", color=COLOURS[0], capsize=3)
    names = [text if len(text) <= NAME_WIDTH else text[: NAME_WIDTH - 1] + "…" for text in table[name].astype(str)]
    axes.set_yticks(heights, names)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", alpha=0.3)
    if reference is not None:
        axes.axvline(reference, color=BASELINE, linestyle="--", linewidth=1.2)
    title_at_left_edge(axes, title, finding)
    return figure


def draw_trade_off(table: pd.DataFrame, *, budget: float | None = None) -> Figure:
    """Draw what a gain in the domain costs elsewhere: a mark per model, weight averages joined by lines.

    Args:
        table: from `trade_off_table`: name, gain, gain_low, gain_high, change, change_low, change_high. Names such as
            "50% contrastive" are steps of averaging with the base model; "+ static" marks the concatenated ones.
        budget: the loss that is allowed elsewhere, as a positive number.
    """
    figure, axes = new_axes(
        "What does a gain in the domain cost elsewhere?",
        "change of nDCG@10 on general text (dev)",
        "gain of nDCG@10 in the domain (dev)",
    )
    step = table["name"].str.contains(r"^\d+% ")
    joined = table["name"].str.contains(r" \+ ")
    kinds = (
        ("weights averaged with the base model", step & ~joined, COLOURS[0]),
        ("the same, concatenated with static", step & joined, COLOURS[1]),
    )
    labels = []
    for name, mask, colour in kinds:
        rows = table[mask]
        axes.plot(rows["change"], rows["gain"], "o-", color=colour)
        _crosses(axes, rows, colour)
        if len(rows):
            top = rows.loc[rows["gain"].idxmax()]
            labels.append(Label(name, top["change"], top["gain"] + 0.004, colour))
            ends = rows.iloc[[-1]]
            labels += [Label(row.name.split(" + ")[0], row.change, row.gain, colour) for row in _rows(ends)]
    for colour, row in zip(COLOURS[2:], _rows(table[~step]), strict=False):
        axes.plot(row.change, row.gain, "o", color=colour)
        _crosses(axes, table[table["name"] == row.name], colour)
        labels.append(Label(row.name, row.change, row.gain, colour))
    axes.axhline(0, color=BASELINE, linewidth=0.8)
    if budget is not None:
        axes.axvline(-budget, color=BASELINE, linestyle="--", linewidth=1.2)
        style: dict[str, Any] = {"color": BASELINE, "fontsize": 8.5, "ha": "right"}
        axes.annotate(f"budget: -{budget:g} ", (-budget, 0.96), xycoords=("data", "axes fraction"), **style)
        allowed = table[table["change"] >= -budget]
        best = allowed.loc[allowed["gain"].idxmax()]
        change = f"{best['change']:+.3f} elsewhere"
        set_finding(axes, f"Within the budget, {best['name']} gains most: {best['gain']:+.3f} in the domain, {change}.")
    label_points(axes, labels)
    return figure


def _rows(table: pd.DataFrame) -> list[Any]:
    return list(table.itertuples(index=False))


def _crosses(axes: Axes, rows: pd.DataFrame, colour: str) -> None:
    """Thin lines for the intervals in both directions."""
    for row in rows.itertuples():
        axes.plot([row.change_low, row.change_high], [row.gain] * 2, color=colour, alpha=0.3, linewidth=1)
        axes.plot([row.change] * 2, [row.gain_low, row.gain_high], color=colour, alpha=0.3, linewidth=1)
