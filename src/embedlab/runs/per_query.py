"""The values of every query that a run kept, read back so that runs can be compared query by query."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from embedlab import paths

FILE = "per_query.parquet"

System = tuple[str, int | None]  # model, dimensions kept (None: not an embedding)


def query_values(
    run_id: str, metric: str, *, split: str = "test", task: str = "retrieval", folder: Path | None = None
) -> dict[System, pd.Series]:
    """Values of one metric per query of every system in a run.

    Args:
        run_id: the run.
        metric: e.g. `ndcg@10`.
        split, task: of the evaluation.
        folder: where runs are kept; results/runs when not given.

    Returns:
        (model, dim) -> Series (Q,) by query id, sorted; NaN for queries without positives. Empty when the run kept no
        such values, or when they cannot be read.
    """
    path = (folder or paths.runs_dir()) / run_id / FILE
    try:
        frame = pd.read_parquet(path, columns=["query_id", "task", "split", "model", "dim", metric])
    except (OSError, ValueError, KeyError):  # none, torn, or without this metric
        return {}
    frame = frame[(frame["task"] == task) & (frame["split"] == split)]
    # An evaluation that was noted twice counts once, as it was noted last.
    frame = frame.drop_duplicates(["model", "dim", "query_id"], keep="last")
    return {
        (str(model), None if pd.isna(dim) else int(dim)): rows.set_index("query_id")[metric].astype(float).sort_index()
        for (model, dim), rows in frame.groupby(["model", "dim"], dropna=False, sort=False)
    }


def mean_over_runs(values: Sequence[pd.Series]) -> pd.Series | None:
    """Mean per query over runs (seeds), (Q,) by query id; None when there is no run or their queries differ."""
    if not values or not all(one.index.equals(values[0].index) for one in values):
        return None
    return sum(values[1:], start=values[0]) / len(values)
