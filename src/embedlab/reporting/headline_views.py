"""The headline as readers see it: a table in README and two figures, all written anew from the records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from embedlab import paths
from embedlab.errors import RecordError
from embedlab.reporting import publish, tables
from embedlab.reporting.figures import BASELINE, COLOURS, MARKERS, new_axes
from embedlab.reporting.front import pareto_front
from embedlab.reporting.headline import BASELINES, headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "headline"
LEGEND_LINE = 0.16  # inches
# Cost -> whether more of it is better, the question, the axis.
COSTS = {
    "bytes": (False, "What does a smaller index cost?", "bytes per document in memory (log scale)"),
    "texts_per_second": (True, "What does encoding speed cost?", "texts encoded per second (log scale)"),
}
PUBLISHED = {
    "system": "system",
    "dim": "dim",
    "seeds": "seeds",
    "nDCG@10": "nDCG@10",
    "minus base": "minus base",
    "bytes": "bytes per document",
    "texts_per_second": "texts per second",
    "runs": "runs",
}


def readable(rows: pd.DataFrame) -> pd.DataFrame:
    """The table of README: every system at its full width, `value [low, high]`, empty where nothing is known."""
    plain = rows[rows["form"] == ""].sort_values("dim", ascending=False, kind="stable", na_position="last")
    shown = plain.drop_duplicates("system").sort_index().reset_index(drop=True)
    cells = {
        "nDCG@10": _cells("{:.3f} [{:.3f}, {:.3f}]", shown[["value", "ci_low", "ci_high"]]),
        "minus base": _cells("{:+.3f} [{:+.3f}, {:+.3f}]", shown[["difference", "difference_low", "difference_high"]]),
        "bytes": _cells("{:,.0f}", shown[["bytes"]]),
        "texts_per_second": _cells("{:,.0f}", shown[["texts_per_second"]]),
    }
    seeds = shown["seeds"].astype("Int64").astype(str).where(~shown["system"].isin(BASELINES), "")
    dims = shown["dim"].astype(str).where(shown["dim"].notna(), "")
    table = shown.assign(**cells, seeds=seeds, dim=dims)
    return table[list(PUBLISHED)].rename(columns=PUBLISHED)


def _cells(pattern: str, numbers: pd.DataFrame) -> list[str]:
    """One text per row; only the first number where others are missing, nothing where that is missing."""
    short = pattern.partition(" [")[0]
    rows = numbers.astype(float).itertuples(index=False)
    return ["" if pd.isna(row[0]) else (short if any(map(pd.isna, row)) else pattern).format(*row) for row in rows]


def caption(rows: pd.DataFrame, dataset: str) -> str:
    """How the table's numbers were made."""
    counts = rows["n"].dropna().unique()
    queries = f"{counts[0]:,} test queries" if len(counts) == 1 else "the test queries"
    return (
        f"`{dataset}`, {queries}. Brackets: 95 % bootstrap intervals over queries, after each query's mean over seeds; "
        "*minus base* is paired by query. Speeds are multiples of the base model's in the same run, at its median."
    )


def quality_figure(rows: pd.DataFrame, cost: str) -> tuple[Figure, pd.DataFrame]:
    """What does quality cost? Of every system the best at each cost, and the front of those that none beats as a line.

    Args:
        rows: from `headline`.
        cost: "bytes" or "texts_per_second".

    Returns:
        The figure, and all points, drawn or not: columns of `headline` and front, whether any other point is better
        in both. BM25 and the hybrid, which have neither cost, are dashed lines.
    """
    more_is_better, question, xlabel = COSTS[cost]
    points = rows.dropna(subset=["value", cost]).reset_index(drop=True)
    larger, smaller = (("value", cost), ()) if more_is_better else (("value",), (cost,))
    points = points.assign(front=pareto_front(points, larger=larger, smaller=smaller).fillna(False).astype(bool))
    figure, axes = new_axes(question, xlabel, "nDCG@10 (test)")
    axes.set_xscale("log", base=2 if cost == "bytes" else 10)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.minorticks_off()
    best = points.sort_values("value").drop_duplicates(["system", cost], keep="last").sort_values(cost)
    for number, system in enumerate(points["system"].unique()):
        style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        _draw(axes, best[best["system"] == system], cost, style | ({"color": BASELINE} if system == "base" else {}))
    front = points[points["front"]].sort_values(cost)
    axes.plot(front[cost], front["value"], color=BASELINE, linewidth=3, alpha=0.3, zorder=0, label="not beaten")
    placeless = rows[rows["system"].isin(BASELINES) & ~rows["system"].isin(points["system"])]
    for line, row in zip(("--", ":", "-."), placeless.drop_duplicates("system").itertuples(), strict=False):
        axes.axhline(row.value, color=BASELINE, linestyle=line, label=row.system)
    if points.empty:
        axes.text(0.5, 0.5, "no record tells this cost yet", transform=axes.transAxes, ha="center")
    entries = len(axes.get_legend_handles_labels()[0])
    figure.set_size_inches(8, 4.2 + LEGEND_LINE * entries / 2)  # the legend takes its room from no point
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=7)
    return figure, points


def _draw(axes: Axes, best: pd.DataFrame, cost: str, style: dict[str, str]) -> None:
    """A system's points with their intervals, joined; what is more than a cut of its plain vectors is hollow."""
    errors = [(best["value"] - best["ci_low"]).fillna(0), (best["ci_high"] - best["value"]).fillna(0)]
    system = best["system"].iloc[0]
    axes.errorbar(best[cost], best["value"], yerr=errors, capsize=2, alpha=0.8, linewidth=1, label=system, **style)
    fewer = best[best["form"] != ""]
    axes.plot(fewer[cost], fewer["value"], linestyle="", markerfacecolor="white", zorder=3, **style)


def write_headline(dataset: str = "icd10cm:full", folder: Path | None = None) -> list[Path]:
    """Write the table, both figures with their points, and README's block; returns what was written.

    Raises:
        RecordError: no record of `dataset`.
    """
    rows = headline(dataset, folder)
    if rows.empty:
        remedy = "Run one: make study, or embedlab run 03_contrastive -p dataset=icd10cm:full"
        raise RecordError(f"no record measured anything on {dataset}", remedy=remedy)
    written = [tables.write_table(readable(rows), NAME, hide=("runs",), caption=caption(rows, dataset))]
    paths.figures_dir().mkdir(parents=True, exist_ok=True)
    for cost in COSTS:
        figure, points = quality_figure(rows, cost)
        path = paths.figures_dir() / f"{NAME}_quality_by_{cost}.png"
        figure.savefig(path, metadata={"Software": None})
        points.to_csv(path.with_suffix(".csv"), index=False, lineterminator="\n")
        written += [path, path.with_suffix(".csv")]
    return [*written, *publish.refresh()]
