"""The headline as readers see it: README's short table, the full table and two figures, all written from records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from embedlab import paths
from embedlab.escaping import csv_frame
from embedlab.reporting import publish, tables
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
from embedlab.reporting.headline import BASE, COMPRESSED, HeadlineGroup, headline, read_headline
from embedlab.reporting.pareto import pareto_front

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "headline"
# Cost -> whether more of it is better, the question, the axis.
COSTS = {
    "bytes": (False, "What does a smaller index cost?", "bytes per document in memory (log scale)"),
    "texts_per_second": (True, "What does encoding speed cost?", "texts encoded per second (log scale)"),
}
VALUE, GAIN = "nDCG@10", "gain over base"
FULL = {
    "label": "system",
    "dim": "dim",
    "seeds": "seeds",
    VALUE: VALUE,
    GAIN: GAIN,
    "bytes": "bytes per document",
    "texts_per_second": "texts per second",
    "runs": "runs",
}
SHORT = {"plain": "system", VALUE: VALUE, GAIN: GAIN, "bytes": "bytes per document", "speed": "encoding speed"}
UNTRAINED = ("bm25", "base", "hybrid")  # systems for which a number of seeds means nothing


def full_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Format every declared row: `value [low, high]`, empty where nothing was measured."""
    return _formatted(rows)[list(FULL)].rename(columns=FULL)


def readme_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Format the rows that README shows; speed is a multiple of the base model's."""
    return _formatted(rows[rows["readme"]])[list(SHORT)].rename(columns=SHORT)


def _formatted(rows: pd.DataFrame) -> pd.DataFrame:
    declared = rows.drop_duplicates("label").reset_index(drop=True)
    base = rows.loc[rows["system"] == BASE, "texts_per_second"].max()
    cells = {
        VALUE: _cells("{:.3f} [{:.3f}, {:.3f}]", declared[["value", "ci_low", "ci_high"]]),
        GAIN: _cells("{:+.3f} [{:+.3f}, {:+.3f}]", declared[["difference", "difference_low", "difference_high"]]),
        "bytes": _cells("{:,.0f}", declared[["bytes"]]),
        "texts_per_second": _cells("{:,.0f}", declared[["texts_per_second"]]),
        "speed": [_times(speed / base) for speed in declared["texts_per_second"].astype(float)],
    }
    seeds = declared["seeds"].astype(str).where(~declared["system"].isin(UNTRAINED), "")
    dims = declared["dim"].astype(str).where(declared["dim"].notna(), "")
    return declared.assign(**cells, seeds=seeds, dim=dims)


def _times(ratio: float) -> str:
    """A speed-up for people: 1.0 ×, 1.9 ×, 375 ×; empty when it was not measured."""
    if pd.isna(ratio):
        return ""
    return f"{ratio:,.0f} ×" if ratio >= 10 else f"{ratio:.1f} ×"


def _cells(pattern: str, numbers: pd.DataFrame) -> list[str]:
    """One text per row; only the first number where others are missing, nothing where that is missing."""
    short = pattern.partition(" [")[0]
    lines = numbers.astype(float).itertuples(index=False)
    return ["" if pd.isna(line[0]) else (short if any(map(pd.isna, line)) else pattern).format(*line) for line in lines]


def caption(rows: pd.DataFrame, group: HeadlineGroup) -> str:
    """Say how the table's numbers were computed."""
    counts = rows["n"].dropna().unique()
    queries = f"{counts[0]:,} test queries" if len(counts) == 1 else "the test queries"
    return (
        f"{group.title} (`{group.dataset}`), {queries}. Brackets: 95 % bootstrap intervals over queries, after"
        " averaging each query over seeds. The gain is paired by query. Encoding speed is measured against the base"
        " model in the same run."
    )


def quality_figure(rows: pd.DataFrame, cost: str) -> tuple[Figure, pd.DataFrame]:
    """Draw what quality costs: the declared systems, and the Pareto front of all points as a grey line.

    Args:
        rows: from `headline`.
        cost: "bytes" or "texts_per_second".

    Returns:
        The figure, and all points, drawn or not: columns of `headline` and front (no other point is better in both).
        Systems without this cost are dashed lines.
    """
    more_is_better, question, xlabel = COSTS[cost]
    points = rows.dropna(subset=["value", cost]).reset_index(drop=True)
    larger, smaller = (("value", cost), ()) if more_is_better else (("value",), (cost,))
    points = points.assign(front=pareto_front(points, larger=larger, smaller=smaller).fillna(False).astype(bool))
    figure, axes = new_axes(question, xlabel, "nDCG@10 (test)")
    axes.set_xscale("log", base=2 if cost == "bytes" else 10)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.minorticks_off()
    best = points[points["figure"]].sort_values("value").drop_duplicates(["label", cost], keep="last").sort_values(cost)
    labels = []
    colours = iter(COLOURS)
    for label, of_label in best.groupby("label", sort=False):
        colour = BASELINE if (of_label["system"] == BASE).any() else next(colours)
        labels.append(_draw(axes, of_label, cost, colour, str(label)))
    front = points[points["front"]].sort_values(cost)
    axes.plot(front[cost], front["value"], color=BASELINE, linewidth=4, alpha=0.25, zorder=0)
    axes.margins(x=0.06)
    levels = rows[rows["figure"] & ~rows["label"].isin(points["label"])].drop_duplicates("label")
    lines = [
        draw_level(axes, row.value, row.label, style)
        for style, row in zip(("--", ":", "-."), levels.itertuples(), strict=False)
    ]
    if points.empty:
        axes.text(0.5, 0.5, "no record has this cost yet", transform=axes.transAxes, ha="center")
    label_lines(axes, [*lines, *(labels if cost == "bytes" else ())])
    if cost != "bytes":
        label_points(axes, labels)
    set_finding(axes, _finding(points, cost))
    return figure, points


def _draw(axes: Axes, best: pd.DataFrame, cost: str, colour: str, label: str) -> Label:
    """A system's points with their intervals, its dimensions joined by a line; compressed indexes are hollow marks."""
    errors = [(best["value"] - best["ci_low"]).fillna(0), (best["ci_high"] - best["value"]).fillna(0)]
    axes.errorbar(best[cost], best["value"], yerr=errors, capsize=2, alpha=0.8, linewidth=1.2, fmt="o", color=colour)
    compressed = best["stage"] == COMPRESSED
    axes.plot(best.loc[~compressed, cost], best.loc[~compressed, "value"], color=colour, linewidth=1.2)
    axes.plot(best.loc[compressed, cost], best.loc[compressed, "value"], "o", color=colour, markerfacecolor="white")
    last = best.iloc[-1]
    return Label(label, float(last[cost]), float(last["value"]), colour)


def _finding(points: pd.DataFrame, cost: str) -> str:
    """How far the cheapest point of the front is from the best system."""
    if points.empty:
        return ""
    best = points.loc[points["value"].idxmax()]
    front = points[points["front"]]
    if cost == "bytes":
        near = front[front["value"] >= best["value"] - 0.01]
        small = near.loc[near["bytes"].idxmin()]
        how = "search with few bits, then rescoring (hollow marks), " if small["stage"] == COMPRESSED else ""
        return f"With {how}{small['bytes']:,.0f} bytes per document lose less than 0.01 nDCG@10."
    fast = front.loc[front[cost].idxmax()]
    if fast["label"] == best["label"]:
        return f"{best['label']} is both the best and the fastest."
    times, loss = fast[cost] / best[cost], best["value"] - fast["value"]
    return f"{fast['label']} encodes {times:,.0f} times as fast as {best['label']}, and loses {loss:.3f} nDCG@10."


def write_headline() -> list[Path]:
    """Write the tables, both figures with their points, and README's block; returns what was written.

    Raises:
        ParameterError: experiments/headline.yaml does not fit the records.
    """
    groups = read_headline()
    measured = [headline(group) for group in groups]
    written = [
        *_write_full(groups, measured),
        tables.write_table(
            readme_table(measured[0]),
            f"readme-{NAME}",
            caption=caption(measured[0], groups[0]),
            with_code=["system"],
        ),
    ]
    paths.figures_dir().mkdir(parents=True, exist_ok=True)
    for cost in COSTS:
        figure, points = quality_figure(measured[0], cost)
        path = paths.figures_dir() / f"{NAME}_quality_by_{cost}.png"
        figure.savefig(path, metadata={"Software": None})
        csv_frame(points).to_csv(path.with_suffix(".csv"), index=False, lineterminator="\n")
        written += [path, path.with_suffix(".csv")]
    return [*written, *publish.refresh()]


def _write_full(groups: list[HeadlineGroup], measured: list[pd.DataFrame]) -> list[Path]:
    """headline.csv with a dataset column, headline.md with a part per dataset."""
    path = paths.tables_dir() / f"{NAME}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    csv_frame(all_groups(groups, measured)).to_csv(path, index=False, lineterminator="\n")
    parts = [
        f"### {group.title}\n\n{tables.markdown(full_table(rows).drop(columns='runs'))}\n\n{caption(rows, group)}"
        for group, rows in zip(groups, measured, strict=True)
    ]
    path.with_suffix(".md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return [path, path.with_suffix(".md")]


def all_groups(groups: list[HeadlineGroup], measured: list[pd.DataFrame]) -> pd.DataFrame:
    """Stack the full tables of all groups, the dataset first."""
    stacked = [full_table(rows).assign(dataset=group.dataset) for group, rows in zip(groups, measured, strict=True)]
    table = pd.concat(stacked, ignore_index=True)
    return table[["dataset", *FULL.values()]]
