"""Metric rows as people read them: `value [low, high]` cells and the table at the end of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from embedlab.runs.records import MetricRow

HEADLINE = ("ndcg@10", "recall@10")


def format_value(value: float | None, low: float | None = None, high: float | None = None, *, sign: str = "") -> str:
    """`0.562 [0.551, 0.573]`, without the interval where there is none; "missing" without a value.

    Args:
        value, low, high: the number and the ends of its interval.
        sign: "+" to show the sign of positive numbers too, as differences do.
    """
    if value is None or math.isnan(value):
        return "missing"
    text = f"{value:{sign}.3f}"
    return text if low is None or high is None or math.isnan(low) else f"{text} [{low:{sign}.3f}, {high:{sign}.3f}]"


def format_row(row: MetricRow) -> str:
    """The value of a row with its interval, with a sign where it is a difference."""
    sign = "+" if row.statistic in ("difference", "relative_difference") else ""
    return format_value(row.value, row.ci_low, row.ci_high, sign=sign)


def summarise(rows: Sequence[MetricRow], metrics: Sequence[str] = HEADLINE) -> pd.DataFrame:
    """System (and dimensions) x metric, each cell `value [low, high]`, in the order in which the rows were noted.

    Differences follow as "contrastive − base". Stage, task, split and condition are columns where they vary.

    Args:
        rows: of one run.
        metrics: the metrics to show, as columns.

    Returns:
        One row per system, condition and dimension; no row when no row of the run has these metrics.
    """
    shown_rows = [row for row in rows if row.metric in metrics and row.statistic in ("value", "difference")]
    if not shown_rows:
        return pd.DataFrame(columns=list(metrics))
    columns = ["stage", "task", "split", "condition"]
    frame = pd.DataFrame(
        {
            **{name: [getattr(row, name) for row in shown_rows] for name in columns},
            "system": [f"{row.system} − {row.against}" if row.against else row.system for row in shown_rows],
            "dim": ["" if row.dim is None else str(row.dim) for row in shown_rows],
            "metric": [row.metric for row in shown_rows],
            "cell": [format_row(row) for row in shown_rows],
        }
    )
    varying = [name for name in columns if frame[name].nunique() > 1]
    leading = [name for name in varying if name != "condition"]
    trailing = [name for name in varying if name == "condition"]
    index = [*leading, "system", *trailing, "dim"]
    wide = frame.pivot_table(index=index, columns="metric", values="cell", aggfunc="last", sort=False)
    wide = wide.reindex(columns=[metric for metric in metrics if metric in wide])
    return wide.fillna("").reset_index().rename_axis(columns=None)
