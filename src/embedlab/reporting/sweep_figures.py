"""Figures of a sweep, drawn from its table. Each answers one question and comes with the table behind it.

A figure shows one dataset: baselines and Pareto fronts mean nothing across datasets. Of a table with several datasets
the one with most runs is drawn; `SweepTable.for_dataset` chooses another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from embedlab.reporting.figures import (
    BASELINE,
    COLOURS,
    MAX_SERIES,
    Label,
    draw_level,
    label_lines,
    label_points,
    new_axes,
    set_finding,
)
from embedlab.reporting.pareto import pareto_front
from embedlab.reporting.sweep_table import CAPS, SweepTable
from embedlab.training.outcome import NOTHING_LEARNED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COSTS = {"seconds": "training time, s", "bytes": "bytes per document"}
BASELINE_STYLES = (":", "--", "-.")
NAMED_POINTS = 4  # points of a front that are named in the figure


def quality_by_parameter(table: SweepTable, parameter: str) -> tuple[Figure, pd.DataFrame]:
    """Draw whether a parameter matters, all else equal: a line joins combinations that differ in nothing but it.

    Bars show the spread over seeds. A combination without a partner says nothing about the parameter and is left out.
    Of more than eight lines, those with the best values are drawn.

    Args:
        table: the sweep.
        parameter: one of `table.parameters`.

    Returns:
        The figure, and its points: system, the parameter, value, sd, and line, which says what is equal.
    """
    table = table.for_dataset()
    metric = table.view.metrics[0]
    points = parameter_points(table, parameter)
    figure, axes = new_axes(f"Does {parameter} matter, all else equal?", parameter, f"{metric} ({table.view.split})")
    positions = _positions(axes, points[parameter])
    best_first = points.groupby("line", sort=False)["value"].max().sort_values(ascending=False, kind="stable").index
    labels = []
    for colour, line in zip(COLOURS, best_first, strict=False):
        rows = points[points["line"] == line]
        rows = rows.assign(x=rows[parameter].map(positions)).sort_values("x")
        axes.errorbar(rows["x"], rows["value"], yerr=rows["sd"].fillna(0), color=colour, fmt="o-", capsize=2)
        labels.append(Label(str(line), rows["x"].iloc[-1], rows["value"].iloc[-1], colour))
    labels += _baselines(axes, table)
    if points.empty:
        axes.text(0.5, 0.5, "no two combinations differ in it alone", transform=axes.transAxes, ha="center")
    label_lines(axes, labels)
    set_finding(axes, _parameter_finding(points, parameter, best_first))
    return figure, points


def parameter_points(table: SweepTable, parameter: str) -> pd.DataFrame:
    """Tabulate the combinations that differ in one parameter alone; see `quality_by_parameter`."""
    metric = table.view.metrics[0]
    rows = _full_size(table.combinations).dropna(subset=[f"p.{parameter}", metric])
    points = pd.DataFrame({"system": rows["system"], parameter: rows[f"p.{parameter}"], "value": rows[metric]})
    points = points.assign(sd=rows[f"{metric} sd"], line=_all_else(rows, table.parameters, parameter))
    varied = points.groupby("line")[parameter].transform("nunique") > 1
    return points[varied].reset_index(drop=True)


def _parameter_finding(points: pd.DataFrame, parameter: str, lines: pd.Index) -> str:
    """What the best line says: the best and the worst value of the parameter."""
    if points.empty:
        return ""
    rows = points[points["line"] == lines[0]]
    best, worst = rows.loc[rows["value"].idxmax()], rows.loc[rows["value"].idxmin()]
    gap, luck = best["value"] - worst["value"], rows["sd"].max()
    seeds = f"; seeds vary by up to {luck:.3f} (sd)" if pd.notna(luck) else "; one seed each"
    cap = points[parameter].name in CAPS
    names = [_value_text(row[parameter], cap) for row in (best, worst)]
    hidden = f" {len(lines) - MAX_SERIES} lower lines are not drawn." if len(lines) > MAX_SERIES else ""
    return f"{lines[0]}: {names[0]} is ahead of {names[1]} by {gap:.3f}{seeds}.{hidden}"


def _all_else(rows: pd.DataFrame, parameters: list[str], parameter: str) -> pd.Series:
    """What every row is but for one parameter: its system and the others that vary; missing without a partner."""
    columns = ["system", "condition", *(f"p.{name}" for name in parameters if name != parameter)]
    group = rows.groupby(columns, sort=False, dropna=False).ngroup()
    compared = rows[group.duplicated(keep=False)]
    text = rows["system"].astype(str) + rows["condition"].fillna("").map(lambda name: f", {name}" if name else "")
    for column in columns[2:]:
        if compared[column].nunique(dropna=False) > 1:
            text = text + f", {column.removeprefix('p.')} " + rows[column].astype(str)
    return text.where(group.duplicated(keep=False))


def _positions(axes: Axes, values: pd.Series) -> Mapping[object, int]:
    """Value -> position on the axis: evenly spaced, because parameters are tried on every scale.

    A cap of 0 means no limit, and stands last.
    """
    uncapped = values.name in CAPS
    ordered = sorted(values.unique(), key=lambda value: (isinstance(value, str), uncapped and value == 0, value))
    names = [_value_text(value, uncapped).replace(" ", "\n") for value in ordered]
    axes.set_xticks(range(len(ordered)), names)
    axes.margins(x=0.1)
    return {value: position for position, value in enumerate(ordered)}


def _value_text(value: object, cap: bool) -> str:
    is_number = pd.api.types.is_number(value) and not pd.api.types.is_bool(value)
    text = f"{value:g}" if is_number else str(value)
    return "all" if cap and text == "0" else text


def quality_by_cost(table: SweepTable, cost: str) -> tuple[Figure, pd.DataFrame]:
    """Draw what quality costs: a mark per combination, the Pareto front as a line.

    Args:
        table: the sweep.
        cost: "seconds" or "bytes", a column of its table.

    Returns:
        The figure, and its points: system, condition, dim, the metric, its sd, the cost, runs, front.
    """
    table = table.for_dataset()
    metric = table.view.metrics[0]
    columns = ["system", "condition", "dim", metric, f"{metric} sd", cost, "runs"]
    named = table.combinations.assign(name=_short_names(table))
    points = named[[*columns, "name"]].dropna(subset=[metric, cost])
    competing = points[named["outcome"].reindex(points.index) != NOTHING_LEARNED]
    front = pareto_front(competing, larger=(metric,), smaller=(cost,))
    points = points.assign(front=front.reindex(points.index))
    figure, axes = new_axes("What does quality cost?", COSTS[cost], f"{metric} ({table.view.split})")
    by_system = list(points.groupby("system", sort=False))
    colours = {system: COLOURS[number % len(COLOURS)] for number, (system, _) in enumerate(by_system)}
    for system, rows in by_system:
        sd = rows[f"{metric} sd"].fillna(0)
        axes.errorbar(rows[cost], rows[metric], yerr=sd, fmt="o", color=colours[system], alpha=0.6, capsize=2)
    front = points[points["front"].fillna(False).astype(bool)].sort_values(cost)
    axes.plot(front[cost], front[metric], "-", color=BASELINE, linewidth=3, alpha=0.3, zorder=0)
    if len(points) and points[cost].max() > 10 * points[cost].min() > 0:
        axes.set_xscale("log")
    axes.margins(x=0.1)
    label_lines(axes, _baselines(axes, table))
    ends = front.drop_duplicates([metric, cost]).tail(NAMED_POINTS)
    label_points(axes, [Label(row.name, row[cost], row[metric], colours[row["system"]]) for row in _named(ends)])
    if len(front):
        set_finding(axes, _cost_finding(front, metric, cost))
    return figure, points.drop(columns="name").reset_index(drop=True)


def _named(rows: pd.DataFrame) -> list[pd.Series]:
    """The rows as series whose name is the text next to their mark."""
    return [row.rename(row["name"]) for _, row in rows.iterrows()]


def _short_names(table: SweepTable) -> pd.Series:
    """System and the parameter values that set a combination apart from most others."""
    rows = table.combinations
    text = rows["system"].astype(str)
    for parameter in table.parameters:
        column = rows[f"p.{parameter}"]
        usual = column.mode(dropna=True)
        differs = column.notna() & (column != (usual.iloc[0] if len(usual) else None)).fillna(False)
        values = column.map(lambda value, cap=parameter in CAPS: _value_text(value, cap))
        text = text.where(~differs.astype(bool), text + f", {parameter} " + values)
    return text


def _cost_finding(front: pd.DataFrame, metric: str, cost: str) -> str:
    unit = " s of training" if cost == "seconds" else " bytes per document"
    best, cheapest = front.iloc[-1], front.iloc[0]
    first = f"The best, {best['name']}, reaches {best[metric]:.3f} with {best[cost]:,.0f}{unit}"
    if best["name"] == cheapest["name"]:
        return f"{first}."
    return f"{first}; the cheapest on the front reaches {cheapest[metric]:.3f} with {cheapest[cost]:,.0f}."


def varying_costs(table: SweepTable) -> list[str]:
    """List the costs that differ between combinations, which can be traded for quality."""
    rows = table.for_dataset().combinations
    return [cost for cost in COSTS if rows[cost].nunique() > 1]


def spread_over_seeds(table: SweepTable) -> tuple[Figure, pd.DataFrame]:
    """Draw how much the seed changes: every run's value, the mean of its combination as a bar.

    Returns:
        The figure, and its points: run_id, system, condition, dim, metric, value, seed, combination.
    """
    table = table.for_dataset()
    metric, runs = table.view.metrics[0], table.source.runs[["run_id", "seed", "combination"]]
    rows = table.combinations.drop_duplicates("runs").reset_index(drop=True)
    positions = {run_id: number for number, row in rows.iterrows() for run_id in row["runs"].split()}
    measured = table.source.measured
    values = measured[(measured["metric"] == metric) & ~table.view.is_baseline(measured)]
    values = (
        _full_size(values.rename(columns={"run_id": "runs"}))
        .rename(columns={"runs": "run_id"})
        .merge(runs, on="run_id")
        .assign(position=lambda frame: frame["run_id"].map(positions))
    )
    figure, axes = new_axes("How much does the seed change?", "combination, as in the table", metric)
    axes.locator_params(axis="x", integer=True)
    labels = []
    for colour, (system, of_system) in zip(COLOURS, values.groupby("system", sort=False), strict=False):
        means = of_system.groupby("position")["value"].mean()
        axes.plot(of_system["position"] + 1, of_system["value"], "o", color=colour, alpha=0.6)
        axes.plot(means.index + 1, means, "_", color=colour, markersize=14)
        labels.append(Label(str(system), means.index[-1] + 1, means.iloc[-1], colour))
    label_lines(axes, [*labels, *_baselines(axes, table)])
    by_combination = values.groupby(["system", "condition", "combination"])["value"]
    luck, between = by_combination.std().median(), by_combination.mean().std()
    if pd.notna(luck) and pd.notna(between):
        text = f"A dot per run. Seeds of a combination vary by {luck:.3f} (median sd), combinations by {between:.3f}."
        set_finding(axes, text)
    return figure, values.drop(columns="position")


def learning_curves(histories: Mapping[str, pd.DataFrame]) -> tuple[Figure, pd.DataFrame]:
    """Draw which runs are still learning: the dev metric by training step, the training loss where no run has one.

    Args:
        histories: label -> what `Run.log_history` kept (step, dev, loss). Of more than eight, those with the best last
            value are drawn.

    Returns:
        The figure, and its points: step, dev or loss, run.
    """
    column = "dev" if any("dev" in history for history in histories.values()) else "loss"
    ylabel = "nDCG@10 (dev)" if column == "dev" else "training loss"
    figure, axes = new_axes("Are they still learning?", "training step", ylabel)
    usable = {label: history for label, history in histories.items() if {column, "step"} <= set(history)}
    curves = {label: history.dropna(subset=[column])[["step", column]] for label, history in usable.items()}
    curves = {label: curve for label, curve in curves.items() if len(curve)}
    best_first = sorted(curves, key=lambda label: curves[label][column].iloc[-1], reverse=column == "dev")
    labels, points = [], [pd.DataFrame(columns=["step", column, "run"])]
    for colour, label in zip(COLOURS, best_first, strict=False):
        curve = curves[label]
        axes.plot(curve["step"], curve[column], ".-", color=colour)
        labels.append(Label(label, curve["step"].iloc[-1], curve[column].iloc[-1], colour))
        points.append(curve.assign(run=label))
    label_lines(axes, labels)
    if column == "dev" and labels:
        still = sum(curves[label][column].idxmax() == curves[label].index[-1] for label in best_first[:MAX_SERIES])
        set_finding(axes, f"{still} of {min(len(curves), MAX_SERIES)} were best at their last step.")
    return figure, pd.concat(points[1:] or points, ignore_index=True)


def _full_size(rows: pd.DataFrame) -> pd.DataFrame:
    """Of every system its largest dimension only: truncated copies would blur the mean."""
    order = rows["dim"].fillna(0).sort_values(ascending=False, kind="stable").index
    return rows.loc[order].drop_duplicates(["runs", "system", "condition"]).sort_index()


def _baselines(axes: Axes, table: SweepTable) -> list[Label]:
    """Dashed lines at the baselines, at their largest dimension, and their labels."""
    metric = table.view.metrics[0]
    rows = table.frame[table.view.is_baseline(table.frame)].dropna(subset=[metric])
    rows = rows.drop_duplicates("system").to_dict("records")
    return [
        draw_level(axes, row[metric], row["system"], style) for style, row in zip(BASELINE_STYLES, rows, strict=False)
    ]
