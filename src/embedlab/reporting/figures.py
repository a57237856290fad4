"""Figures that answer one question each: the question as title, the finding as subtitle, labels next to the lines.

Every function returns the figure and the table behind it; `Run.figure` saves both. Figures are made for a width of
about 800 pixels, with at most eight series.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import wcwidth

from embedlab.evaluation.significance import bootstrap_ci

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from embedlab.evaluation.metrics import Evaluation

# Okabe and Ito's palette, readable in print and for colour-blind readers.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C6D31", "#000000")
BASELINE = "#666666"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MAX_SERIES = len(COLOURS)

METRIC = "ndcg@10"  # of the figures by dimension
SIZE = (6.6, 4.2)  # inches
DPI = 120
LABEL_SIZE = 8.5  # points
LABEL_GAP = 0.058  # of the height of the axes; two labels closer than this overlap
LABEL_WIDTH = 26  # letters of a label at the right edge, before it is broken; a Chinese one counts twice
LETTER = 0.0115  # width of a label's letter, of the width of the axes
SUBTITLE_COLOUR = "#444444"


def new_axes(title: str, xlabel: str, ylabel: str, *, size: tuple[float, float] = SIZE) -> tuple[Figure, Axes]:
    """Create one set of axes in the house style.

    Args:
        title: the question that the figure answers.
        xlabel, ylabel: what the axes show, with units.
        size: width and height in inches.
    """
    from embedlab.reporting.figure_fonts import AnyScriptFigure

    figure = AnyScriptFigure(figsize=size, dpi=DPI, layout="constrained")
    axes = figure.subplots()
    style_axes(axes, title, xlabel, ylabel)
    return figure, axes


def style_axes(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    """Give axes the house style: no frame at the top and right, a light grid, the title at the left."""
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)


def _letters_of_line(axes: Axes) -> int:
    """Letters of a subtitle that fit in the width of the figure."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    return int(figure.get_size_inches()[0] * 14)


def set_finding(axes: Axes, finding: str) -> None:
    """Write the finding as subtitle, in small letters between the title and the axes.

    Args:
        axes: made by `new_axes`.
        finding: one short sentence, computed from the numbers that are drawn.
    """
    lines = wcwidth.wrap(finding, _letters_of_line(axes))
    if not lines:
        return
    axes.set_title(axes.get_title(loc="left"), loc="left", fontsize=11.5, fontweight="bold", pad=6 + 12.5 * len(lines))
    axes.annotate(
        "\n".join(lines),
        xy=(0, 1),
        xycoords="axes fraction",
        xytext=(0, 5),
        textcoords="offset points",
        va="bottom",
        fontsize=9,
        color=SUBTITLE_COLOUR,
    )


def title_at_left_edge(axes: Axes, title: str, finding: str) -> None:
    """Start title and finding at the left edge of the figure, where long names leave the axes too narrow for them."""
    lines = wcwidth.wrap(finding, _letters_of_line(axes))
    options: dict[str, Any] = {"xy": (0.01, 1), "xycoords": ("figure fraction", "axes fraction"), "va": "bottom"}
    options["textcoords"] = "offset points"
    axes.set_title("")
    axes.set_title("", loc="left")
    axes.annotate("\n".join(lines), xytext=(0, 5), fontsize=9, color=SUBTITLE_COLOUR, **options)
    axes.annotate(title, xytext=(0, 8 + 12.5 * len(lines)), fontsize=11.5, fontweight="bold", **options)


@dataclass(frozen=True)
class Label:
    """A name that stands next to a line or a mark.

    Attributes:
        text: the name.
        x, y: the point it belongs to, in data coordinates.
        colour: that of the line or mark.
    """

    text: str
    x: float
    y: float
    colour: str


def label_lines(axes: Axes, labels: Iterable[Label]) -> None:
    """Name lines at the right edge of the axes, at the height of their last point, moved apart where they overlap.

    Call it after everything is drawn: it freezes the limits of the axes.
    """
    ordered = sorted(labels, key=lambda label: label.y)
    texts = ["\n".join(wcwidth.wrap(label.text, LABEL_WIDTH)) for label in ordered]
    lines = max((text.count("\n") + 1 for text in texts), default=1)
    heights = spread([_fraction(axes, label)[1] for label in ordered], LABEL_GAP * (0.85 * lines + 0.15))
    for label, text, height in zip(ordered, texts, heights, strict=True):
        position = axes.transAxes
        axes.text(1.015, height, text, color=label.colour, fontsize=LABEL_SIZE, va="center", transform=position)


def label_points(axes: Axes, labels: Iterable[Label]) -> None:
    """Write names next to marks, to the left in the right part of the axes, moved apart where names would overlap.

    A thin line leads from a name that was moved to its mark. Call it after everything is drawn.
    """
    placed: list[tuple[float, float, float]] = []  # left end, right end and height of the names so far
    for label in sorted(labels, key=lambda label: -label.y):
        x, y = _fraction(axes, label)
        width = LETTER * wcwidth.width(label.text)
        on_left = x + width > 0.98
        start = x - 0.018 - width if on_left else x + 0.018
        height = y
        for left, right, other in sorted(placed, key=lambda name: -name[2]):
            if left < start + width and start < right and abs(other - height) < LABEL_GAP:
                height = other - LABEL_GAP
        placed.append((start, start + width, height))
        arrow = (
            {"arrowstyle": "-", "color": label.colour, "linewidth": 0.6} if abs(height - y) > LABEL_GAP / 2 else None
        )
        axes.annotate(
            label.text,
            xy=(x, y),
            xycoords="axes fraction",
            xytext=(start + width if on_left else start, height),
            textcoords="axes fraction",
            ha="right" if on_left else "left",
            va="center",
            color=label.colour,
            fontsize=LABEL_SIZE,
            arrowprops=arrow,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        )


def _fraction(axes: Axes, label: Label) -> tuple[float, float]:
    """A point in fractions of the axes; the limits do not change afterwards."""
    axes.set_xlim(axes.get_xlim())
    axes.set_ylim(axes.get_ylim())
    x, y = axes.transAxes.inverted().transform(axes.transData.transform((label.x, label.y)))
    return float(x), float(y)


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move ascending numbers apart until neighbours are `gap` apart, each as little as possible, between 0 and 1.

    Overlapping numbers form a block around their mean; blocks that touch are merged.
    """
    blocks: list[list[float]] = []  # each block: the numbers it holds
    for height in heights:
        blocks.append([height])
        while len(blocks) > 1 and _low(blocks[-1], gap) - _high(blocks[-2], gap) < gap:
            last = blocks.pop()
            blocks[-1] = [*blocks[-1], *last]
    moved = [_low(block, gap) + gap * number for block in blocks for number in range(len(block))]
    count = len(moved)
    moved = [min(height, 0.97 - gap * (count - 1 - number)) for number, height in enumerate(moved)]
    return [max(height, gap * number) for number, height in enumerate(moved)]


def _low(block: list[float], gap: float) -> float:
    return float(np.mean(block)) - gap * (len(block) - 1) / 2


def _high(block: list[float], gap: float) -> float:
    return float(np.mean(block)) + gap * (len(block) - 1) / 2


def draw_level(axes: Axes, level: float, text: str, style: str = "--") -> Label:
    """Draw a baseline as a horizontal line over the whole axes; returns its label for `label_lines`."""
    axes.axhline(level, color=BASELINE, linestyle=style, linewidth=1.2, zorder=1)
    return Label(text, axes.get_xlim()[1], level, BASELINE)


def interval_table(evaluations: Mapping[str, Mapping[int, Evaluation]], metric: str) -> pd.DataFrame:
    """Tabulate systems and dimensions with their 95 % intervals.

    Args:
        evaluations: system -> dimension -> evaluation.
        metric: e.g. "ndcg@10".

    Returns:
        Columns system, dim, value, ci_low, ci_high, n; largest dimension first.
    """
    rows = []
    for system, by_dim in evaluations.items():
        for dim, evaluation in sorted(by_dim.items(), reverse=True):
            interval = bootstrap_ci(evaluation.values[metric])
            numbers = {"value": interval.mean, "ci_low": interval.low, "ci_high": interval.high, "n": interval.n}
            rows.append({"system": system, "dim": dim, **numbers})
    return pd.DataFrame(rows)


def quality_by_dimension(
    evaluations: Mapping[str, Mapping[int, Evaluation]], *, bm25: Evaluation
) -> tuple[Figure, pd.DataFrame]:
    """Draw what truncated embeddings cost: a line per system with its 95 % band, BM25 as a dashed line.

    Args:
        evaluations: system -> dimension -> evaluation.
        bm25: the evaluation of BM25.
    """
    level = pd.DataFrame([{"system": "bm25", "value": bm25.mean(METRIC)}])
    table = pd.concat([interval_table(evaluations, METRIC), level], ignore_index=True)
    return draw_quality_by_dimension(table), table


def draw_quality_by_dimension(table: pd.DataFrame) -> Figure:
    """Draw the table of `quality_by_dimension`."""
    figure, axes = new_axes("What does a smaller embedding cost?", "dimensions kept", f"{METRIC} (test)")
    lines = table.dropna(subset="dim")
    axes.set_xscale("log", base=2)
    dims = sorted(lines["dim"].unique())
    axes.set_xticks(dims, [f"{dim:.0f}" for dim in dims])
    axes.minorticks_off()
    labels, shares = [], []
    for colour, (system, rows) in zip(COLOURS, lines.groupby("system", sort=False), strict=False):
        axes.plot(rows["dim"], rows["value"], "o-", color=colour)
        axes.fill_between(rows["dim"], rows["ci_low"], rows["ci_high"], color=colour, alpha=0.15, linewidth=0)
        full = rows.loc[rows["dim"].idxmax()]
        labels.append(Label(str(system), full["dim"], full["value"], colour))
        shares += [f"{system} {share:.0%}" for share in rows.loc[rows["dim"] == 64, "value"] / full["value"]]
    axes.set_ylim(bottom=0)
    labels += [draw_level(axes, level, "BM25") for level in table.loc[table["dim"].isna(), "value"]]
    label_lines(axes, labels)
    if shares:
        set_finding(axes, f"With 64 dimensions, {' and '.join(shares[:2])} of the full {METRIC} remain.")
    return figure


def learning_curve(history: Sequence[Mapping[str, float]]) -> tuple[Figure, pd.DataFrame]:
    """Draw training loss (left axis) and dev nDCG@10 (right axis) by training step."""
    table = pd.DataFrame(history)
    return draw_learning_curve(table), table


def draw_learning_curve(table: pd.DataFrame) -> Figure:
    """Draw the table of `learning_curve`: columns step, loss, dev."""
    figure, axes = new_axes("Is it learning, and when was it best?", "training step", "training loss")
    _line(axes, table, "loss", COLOURS[0])
    axes.yaxis.label.set_color(COLOURS[0])
    right = axes.twinx()
    right.set_ylabel("nDCG@10 (dev)", color=COLOURS[4])
    right.spines["top"].set_visible(False)
    _line(right, table, "dev", COLOURS[4], marker="o")
    if "dev" in table and table["dev"].notna().any():
        best = table.loc[table["dev"].idxmax()]
        last = table["step"].max()
        best_step = "at the last step" if best["step"] == last else f"at step {best['step']:.0f} of {last:.0f}"
        set_finding(axes, f"Dev nDCG@10 was best {best_step}: {best['dev']:.3f}.")
    return figure


def _line(axes: Axes, table: pd.DataFrame, column: str, colour: str, **style: Any) -> None:
    if column in table:
        measured = table.dropna(subset=[column])
        axes.plot(measured["step"], measured[column], color=colour, **style)
