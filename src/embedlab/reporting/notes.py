"""What a reader must know about a table of runs before trusting a difference in it."""

from __future__ import annotations

import pandas as pd

from embedlab.reporting import tables
from embedlab.reporting.sweep_data import Collected
from embedlab.runs import notebooks

NAMED = 3  # run ids that a sentence names
TOLERANCE = 1e-6  # a baseline that moves by more is not the same measurement in all runs


def notes(collected: Collected) -> list[str]:
    """List what makes the runs hard to compare, a sentence each.

    Older notebook code; mixed environments, code, processors, threads or data; moving baselines; missing values; too
    few seeds.
    """
    if collected.runs.empty:
        return []
    mixed = [*tables.mixtures(collected.runs), *_mixed_threads(collected.runs), *_mixed_data(collected.runs)]
    older = _older_code(collected.runs)
    return [*older, *mixed, *_moving_baselines(collected), *_missing(collected), *_seeds(collected.runs)]


def _older_code(runs: pd.DataFrame) -> list[str]:
    """Runs of notebooks whose code has changed since; they stay valid evidence of what that code did."""
    versions = runs[["notebook", "code"]].drop_duplicates().itertuples(index=False)
    older = {(stem, code) for stem, code in versions if notebooks.is_older_code(stem, code)}
    count = sum(pair in older for pair in zip(runs["notebook"], runs["code"], strict=True))
    return [f"older code: {count} of {len(runs)} runs were made before their notebook changed"] if count else []


def _mixed_threads(runs: pd.DataFrame) -> list[str]:
    counts = sorted(runs["threads"].dropna().astype(int).unique())
    return [f"these runs mix thread counts: {', '.join(map(str, counts))}"] if len(counts) > 1 else []


def _mixed_data(runs: pd.DataFrame) -> list[str]:
    """One dataset name with several contents."""
    counts = runs.groupby("dataset")["data"].nunique()
    changed = [f"{name or 'the data'} ({count} versions)" for name, count in counts.items() if count > 1]
    return [f"the data changed between these runs: {', '.join(changed)}"] if changed else []


def _moving_baselines(collected: Collected) -> list[str]:
    view, rows = collected.view, collected.measured
    rows = rows[view.is_baseline(rows) & (rows["metric"] == view.metrics[0])]
    rows = rows.merge(collected.runs, on="run_id")
    keys = ["system", "condition", rows["dim"].fillna(0), "data"]
    keys += [name for name in ("p.model_name",) if name in rows]
    ranges = rows.groupby(keys)["value"].agg(["min", "max"])
    moved = ranges[ranges["max"] - ranges["min"] > TOLERANCE]
    return [
        f"the baseline {key[0]} is not the same in all runs: {view.metrics[0]} {row['min']:.4f} to {row['max']:.4f}"
        for key, row in moved.iterrows()
    ]


def _missing(collected: Collected) -> list[str]:
    """Runs that miss a value of the first metric for any system but a baseline."""
    view, rows = collected.view, collected.measured
    trained = rows[~view.is_baseline(rows) & (rows["metric"] == view.metrics[0])]
    complete = set(trained["run_id"]) - set(trained.loc[trained["value"].isna(), "run_id"])
    incomplete = [run_id for run_id in collected.runs["run_id"] if run_id not in complete]
    if not incomplete:
        return []
    named = ", ".join(incomplete[:NAMED]) + (", ..." if len(incomplete) > NAMED else "")
    return [f"{len(incomplete)} of {len(collected.runs)} runs have no {view.metrics[0]} on {view.split}: {named}"]


def _seeds(runs: pd.DataFrame) -> list[str]:
    fewest, most = (seeds := runs.groupby("combination")["seed"].nunique()).min(), seeds.max()
    if most == 1:
        return ["one seed each: a difference may be chance. Run more seeds"]
    return [f"combinations have {fewest} to {most} seeds"] if fewest != most else []
