"""The values of every query of a run, which allow a comparison of runs query by query."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from embedlab import paths
from embedlab.io import atomic_path, confined

FILE = "per_query.parquet"

KEY = ["system", "condition", "dim"]
TEXTS = ("system", "stage", "task", "split", "condition")


class Measured(NamedTuple):
    """What the values of a run belong to.

    Attributes:
        system: a declared name.
        condition: what else was varied; "" when nothing was.
        dim: dimensions of the vectors; None without vectors.
    """

    system: str
    condition: str = ""
    dim: int | None = None


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write the per-query values of a run, as small as they go without changing a value.

    Args:
        frame: a row per query and system: query_id, a column per metric, system, stage, task, split, condition, dim.
        path: the file.
    """
    texts = {name: "category" for name in ("query_id", *TEXTS) if name in frame}
    with atomic_path(path) as temporary:
        frame.astype(texts).to_parquet(temporary, index=False, compression="zstd", compression_level=22)


def query_values(
    run_id: str,
    metric: str,
    *,
    split: str = "test",
    task: str = "retrieval",
    stage: str = "retrieval",
    folder: Path | None = None,
) -> dict[Measured, pd.Series]:
    """Values of one metric per query, of every system in a run.

    Args:
        run_id: the run.
        metric: e.g. `ndcg@10`.
        split, task, stage: of the evaluation.
        folder: where runs are kept; results/runs when not given.

    Returns:
        (system, condition, dim) -> Series (Q,) by query id, sorted; NaN for queries without relevant documents. Empty
        when the run kept no such values, or when they cannot be read.
    """
    path = confined(folder or paths.runs_dir(), run_id, field="run") / FILE
    try:
        frame = pd.read_parquet(path, columns=["query_id", "stage", "task", "split", *KEY, metric])
    except (OSError, ValueError, KeyError):  # no file, a torn one, or one without this metric
        return {}
    frame = frame[(frame["task"] == task) & (frame["split"] == split) & (frame["stage"] == stage)]
    # Of an evaluation that was kept twice, the last counts.
    frame = frame.drop_duplicates([*KEY, "query_id"], keep="last")
    groups = frame.groupby(KEY, dropna=False, sort=False, observed=True)
    return {
        Measured(str(system), str(condition), None if pd.isna(dim) else int(dim)): _series(rows, metric)
        for (system, condition, dim), rows in groups
    }


def _series(rows: pd.DataFrame, metric: str) -> pd.Series:
    return rows.assign(query_id=rows["query_id"].astype(str)).set_index("query_id")[metric].astype(float).sort_index()


def mean_over_runs(values: Sequence[pd.Series]) -> pd.Series | None:
    """Mean per query over runs (seeds), (Q,) by query id; None when there is no run or their queries differ."""
    if not values or not all(series.index.equals(values[0].index) for series in values):
        return None
    return sum(values[1:], start=values[0]) / len(values)
