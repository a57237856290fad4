"""What must be said beside a table of runs before anybody believes a difference in it."""

from __future__ import annotations

import pandas as pd

from embedlab.reporting import tables
from embedlab.reporting.sweep_data import Collected

NAMED = 3  # run ids that a sentence names
SAME = 1e-6  # a baseline that moves by more is not the same measurement in all runs


def notes(found: Collected) -> list[str]:
    """One sentence each: mixed environments, code, processors, threads or data; missing values; too few seeds."""
    if found.runs.empty:
        return []
    mixed = [*tables.mixtures(found.runs), *_mixed_threads(found.runs), *_mixed_data(found.runs)]
    return [*mixed, *_moving_baselines(found), *_missing(found), *_seeds(found.runs)]


def _mixed_threads(runs: pd.DataFrame) -> list[str]:
    counts = sorted(runs["threads"].dropna().astype(int).unique())
    return [f"these runs mix thread counts: {', '.join(map(str, counts))}"] if len(counts) > 1 else []


def _mixed_data(runs: pd.DataFrame) -> list[str]:
    """One dataset name with several contents; different names are a parameter that anybody can see."""
    names = runs["p.dataset"] if "p.dataset" in runs else pd.Series("", index=runs.index)
    counts = runs.groupby(names.fillna(""))["data"].nunique()
    changed = [f"{name or 'the data'} ({count} versions)" for name, count in counts.items() if count > 1]
    return [f"the data changed between these runs: {', '.join(changed)}"] if changed else []


def _moving_baselines(found: Collected) -> list[str]:
    view = found.view
    rows = found.measured[found.measured["model"].isin(view.baselines) & (found.measured["metric"] == view.metrics[0])]
    rows = rows.merge(found.runs, on="run_id")
    keys = ["model", rows["dim"].fillna(0), "data", *[name for name in ("p.model_name",) if name in rows]]
    ranges = rows.groupby(keys)["value"].agg(["min", "max"])
    moved = ranges[ranges["max"] - ranges["min"] > SAME]
    return [
        f"the baseline {key[0]} is not the same in all runs: {view.metrics[0]} {row['min']:.4f} to {row['max']:.4f}"
        for key, row in moved.iterrows()
    ]


def _missing(found: Collected) -> list[str]:
    """Runs that miss a value of the first metric for any system but a baseline."""
    view, rows = found.view, found.measured
    own = rows[~rows["model"].isin(view.baselines) & (rows["metric"] == view.metrics[0])]
    complete = set(own["run_id"]) - set(own.loc[own["value"].isna(), "run_id"])
    lacking = [run_id for run_id in found.runs["run_id"] if run_id not in complete]
    if not lacking:
        return []
    named = ", ".join(lacking[:NAMED]) + (", ..." if len(lacking) > NAMED else "")
    return [f"{len(lacking)} of {len(found.runs)} runs lack a {view.metrics[0]} on {view.split}: {named}"]


def _seeds(runs: pd.DataFrame) -> list[str]:
    fewest, most = (seeds := runs.groupby("combination")["seed"].nunique()).min(), seeds.max()
    if most == 1:
        return ["one seed each: how much of a difference is luck of the seed is not known"]
    return [f"combinations have {fewest} to {most} seeds"] if fewest != most else []
