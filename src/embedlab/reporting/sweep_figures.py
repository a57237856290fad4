"""Figures of a sweep, drawn from its table; each answers one question and comes with the numbers behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from embedlab.reporting.figures import BASELINE, COLOURS, MARKERS, new_axes
from embedlab.reporting.front import pareto_front
from embedlab.reporting.sweep_table import CAPS, SweepTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LINES = 12  # more lines in one figure cannot be told apart
COSTS = {"seconds": "training, s", "bytes": "bytes per document"}


def quality_by_parameter(table: SweepTable, parameter: str) -> tuple[Figure, pd.DataFrame]:
    """Does this parameter matter, all else equal? A line joins combinations that differ in nothing but it.

    Bars show the spread over seeds. A combination that stands alone says nothing about the parameter and is left out.

    Args:
        table: the sweep.
        parameter: one of `table.parameters`.

    Returns:
        The figure, and its points: model, the parameter, value, sd, and line, which says what is equal.
    """
    metric = table.view.metrics[0]
    rows = _full_size(table.combinations).dropna(subset=[f"p.{parameter}", metric])
    points = pd.DataFrame({"model": rows["model"], parameter: rows[f"p.{parameter}"], "value": rows[metric]})
    points = points.assign(sd=rows[f"{metric} sd"], line=_all_else(rows, table.parameters, parameter))
    points = points[points.groupby("line")[parameter].transform("nunique") > 1].reset_index(drop=True)
    figure, axes = new_axes(f"Does {parameter} matter, all else equal?", parameter, f"{metric} ({table.view.split})")
    places = _places(axes, points[parameter])
    lines = points.groupby("line", sort=False)
    for number, (colour, (line, own)) in enumerate(zip(_colours(), lines, strict=False)):
        own = own.assign(place=own[parameter].map(places)).sort_values("place")
        style = {"color": colour, "fmt": f"{MARKERS[number // len(COLOURS)]}-", "capsize": 2, "label": line}
        axes.errorbar(own["place"], own["value"], yerr=own["sd"].fillna(0), **style)
    if points.empty:
        axes.text(0.5, 0.5, "no two combinations differ in it alone", transform=axes.transAxes, ha="center")
    _baselines(axes, table)
    _legend(axes, fontsize=7)
    return figure, points


def _all_else(rows: pd.DataFrame, parameters: list[str], parameter: str) -> pd.Series:
    """What every row is but for one parameter: its model, and those others that vary; missing where it stands alone."""
    columns = ["model", *(f"p.{name}" for name in parameters if name != parameter)]
    group = rows.groupby(columns, sort=False, dropna=False).ngroup()
    shown = rows[group.duplicated(keep=False)]
    varying = [column for column in columns[1:] if shown[column].nunique(dropna=False) > 1]
    told = rows["model"].astype(str)
    for column in varying:
        told = told + f", {column.removeprefix('p.')} " + rows[column].astype(str)
    return told.where(group.duplicated(keep=False))


def _places(axes: Axes, values: pd.Series) -> Mapping[object, int]:
    """Value -> place: evenly spaced whatever the scale, for parameters are tried on any of them.

    A cap of 0 is none, and stands behind all others.
    """
    uncapped = values.name in CAPS
    known = sorted(values.unique(), key=lambda value: (isinstance(value, str), uncapped and value == 0, value))
    names = [f"{value:g}" if _is_number(value) else str(value) for value in known]
    axes.set_xticks(range(len(known)), ["all" if uncapped and name == "0" else name for name in names])
    axes.margins(x=0.1)
    return {value: place for place, value in enumerate(known)}


def _is_number(value: object) -> bool:
    return pd.api.types.is_number(value) and not pd.api.types.is_bool(value)


def quality_by_cost(table: SweepTable, cost: str) -> tuple[Figure, pd.DataFrame]:
    """What does quality cost? A mark per combination, the front of those that none beats in both as a line.

    Args:
        table: the sweep.
        cost: "seconds" or "bytes", a column of its table.
    """
    metric = table.view.metrics[0]
    points = table.combinations[["model", "dim", metric, f"{metric} sd", cost, "runs"]].dropna(subset=[metric, cost])
    points = points.assign(front=pareto_front(points, larger=(metric,), smaller=(cost,)))
    figure, axes = new_axes("What does quality cost?", COSTS[cost], f"{metric} ({table.view.split})")
    for colour, (model, own) in zip(_colours(), points.groupby("model", sort=False), strict=False):
        spread = own[f"{metric} sd"].fillna(0)
        axes.errorbar(own[cost], own[metric], yerr=spread, fmt="o", color=colour, alpha=0.6, capsize=2, label=model)
    front = points[points["front"].fillna(False)].sort_values(cost)
    axes.plot(front[cost], front[metric], "-", color=BASELINE, linewidth=1, label="not beaten")
    if len(points) and points[cost].max() > 10 * points[cost].min() > 0:
        axes.set_xscale("log")
    _baselines(axes, table)
    _legend(axes)
    return figure, points.reset_index(drop=True)


def varying_costs(table: SweepTable) -> list[str]:
    """The costs that differ between combinations and so can be traded for quality."""
    return [cost for cost in COSTS if table.combinations[cost].nunique() > 1]


def spread_over_seeds(table: SweepTable) -> tuple[Figure, pd.DataFrame]:
    """Is the luck of the seed smaller than the differences? Every run's value, the mean of its combination as a bar."""
    metric, runs = table.view.metrics[0], table.source.runs[["run_id", "seed", "combination"]]
    rows = table.combinations.drop_duplicates("runs").reset_index(drop=True)
    places = {run_id: place for place, row in rows.iterrows() for run_id in row["runs"].split()}
    values = table.source.measured.query("metric == @metric and model not in @table.view.baselines")
    values = (
        _full_size(values.rename(columns={"run_id": "runs"}))
        .rename(columns={"runs": "run_id"})
        .merge(runs, on="run_id")
        .assign(place=lambda frame: frame["run_id"].map(places))
    )
    figure, axes = new_axes("How much is luck of the seed?", "combination, as in the table", metric)
    for colour, (model, own) in zip(_colours(), values.groupby("model", sort=False), strict=False):
        means = own.groupby("place")["value"].mean()
        axes.plot(own["place"] + 1, own["value"], "o", color=colour, alpha=0.6, label=f"{model}, one seed")
        axes.plot(means.index + 1, means, "_", color=colour, markersize=14, label=f"{model}, mean")
    _baselines(axes, table)
    _legend(axes)
    return figure, values.drop(columns="place")


def learning_curves(histories: Mapping[str, pd.DataFrame]) -> tuple[Figure, pd.DataFrame]:
    """Which runs are still learning? The dev metric by training step; the training loss where no run has one.

    Args:
        histories: label -> what `Run.log_history` kept (step, dev, loss); the first twelve are drawn.
    """
    column = "dev" if any("dev" in history for history in histories.values()) else "loss"
    ylabel = "nDCG@10 (dev)" if column == "dev" else "training loss"
    figure, axes = new_axes("Are they still learning?", "training step", ylabel)
    drawn = [pd.DataFrame(columns=["run", "step", column])]
    for colour, (label, history) in zip(_colours(), list(histories.items())[:MAX_LINES], strict=False):
        if column in history and "step" in history:
            known = history.dropna(subset=[column])
            axes.plot(known["step"], known[column], ".-", color=colour, label=label)
            drawn.append(known[["step", column]].assign(run=label))
    _legend(axes, fontsize=7)
    return figure, pd.concat(drawn[1:] or drawn, ignore_index=True)


def _full_size(rows: pd.DataFrame) -> pd.DataFrame:
    """Of every model its largest dimension only: truncated copies would blur the mean."""
    order = rows["dim"].fillna(0).sort_values(ascending=False, kind="stable").index
    return rows.loc[order].drop_duplicates(["runs", "model"]).sort_index()


def _legend(axes: Axes, **style: float) -> None:
    """Inside, or below where there are too many lines to leave room."""
    lines = len(axes.get_legend_handles_labels()[1])
    if lines > len(COLOURS):
        axes.figure.legend(loc="outside lower center", ncols=2, frameon=False, **style)
    elif lines:
        axes.legend(frameon=False, **style)


def _baselines(axes: Axes, table: SweepTable) -> None:
    """Dashed lines at the baselines, at their largest dimension."""
    metric = table.view.metrics[0]
    rows = table.frame[table.frame["model"].isin(table.view.baselines)].dropna(subset=[metric])
    for style, row in zip((":", "--", "-."), rows.drop_duplicates("model").to_dict("records"), strict=False):
        axes.axhline(row[metric], color=BASELINE, linestyle=style, label=row["model"])


def _colours() -> list[str]:
    return list(COLOURS) * (MAX_LINES // len(COLOURS) + 1)
