"""Read what a table of many runs needs, in one pass and in little memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from embedlab.reporting import tables
from embedlab.runs.notebooks import flat
from embedlab.runs.records import MetricRow, Record
from embedlab.runs.run_id import without_seeds
from embedlab.runs.summary import HEADLINE
from embedlab.sweeps.spec import varying_where_known
from embedlab.training.outcome import NOTHING_LEARNED

BYTES = "bytes_per_document"  # a metric row of this name: what one document takes in an index
SECONDS = "training_seconds"  # a metric row of this name: what training a system took
COSTS = (BYTES, SECONDS)
NOT_VARIED = ("seed", "dataset")  # runs differ in these too, but they do not define a combination
SYSTEM_COLUMNS = ["system", "condition", "dim"]  # what one measured row of a run is about


@dataclass(frozen=True)
class View:
    """What a table shows of the runs.

    Attributes:
        metrics: the first one decides significance and the Pareto marks.
        task, stage, split: of the evaluations.
        baselines: systems that training does not change, shown first, in this order.
        against: the baseline that every combination is compared with, query by query.
        all_dims: a row for every dimension measured, not only for a system's largest.
    """

    metrics: tuple[str, ...] = HEADLINE
    task: str = "retrieval"
    stage: str = "retrieval"
    split: str = "test"
    baselines: tuple[str, ...] = ("bm25", "base")
    against: str = "base"
    all_dims: bool = False

    def shows(self, row: MetricRow) -> bool:
        """Tell whether a row is a system's score on this task, stage and split."""
        matches = (row.task, row.stage, row.split) == (self.task, self.stage, self.split)
        return matches and row.statistic == "value" and row.metric in self.metrics

    def is_baseline(self, frame: pd.DataFrame) -> pd.Series:
        """Mark the rows of baselines; under a condition ("truncated", "teacher") a baseline is a system to compare."""
        return frame["system"].isin(self.baselines) & frame["condition"].fillna("").eq("")


@dataclass(frozen=True)
class Collected:
    """The part of many records that a view shows.

    Attributes:
        view: what was kept.
        runs: one row per run, in order of its id: columns of `tables.run_of`, combination (0, 1, ...; runs that
            differ only in the seed share it), dataset, data (fingerprint), code, threads, untrained (names of the
            trainings of which no step beat the base; "" where a run trained one model).
        measured: one row per run, system, condition, dim and metric: run_id, system, condition, dim, metric, value.
            Besides the view's metrics it holds BYTES and SECONDS, where a run has them.
        parameters: names of the parameters that vary between combinations. The dataset is never one of them.
    """

    view: View
    runs: pd.DataFrame
    measured: pd.DataFrame
    parameters: list[str]


def collect(records: Iterable[Record], view: View | None = None) -> Collected:
    """Go through the records once, in any order, and keep what `view` shows."""
    view, runs, measured, settings = view or View(), [], [], {}
    for record in records:
        settings[record.run_id] = setting = _setting(record)
        parts = [record.notebook, record.source_hash, _dataset(record), record.data_fingerprint, setting]
        combination = json.dumps(parts, sort_keys=True)
        runs.append({**tables.run_of(record), **_facts(record), **_columns(setting), "combination": combination})
        measured += [(record.run_id, *values) for values in _measured(record, view)]
    return Collected(view, _run_frame(runs), _metric_frame(measured), _varying(settings))


def _setting(record: Record) -> dict[str, object]:
    """Parameters without seed and dataset; a run that a value names (an earlier stage's model) loses its seed."""
    values = {name: value for name, value in flat(record.parameters).items() if name not in NOT_VARIED}
    return {name: without_seeds(value) if isinstance(value, str) else value for name, value in values.items()}


def _dataset(record: Record) -> str:
    return str(record.parameters.get("dataset") or "")


def _varying(settings: Mapping[str, Mapping[str, object]]) -> list[str]:
    """Parameters with several values."""
    return varying_where_known([settings[run_id] for run_id in sorted(settings)])


def _untrained(record: Record) -> tuple[str, ...]:
    """Trainings of which no step beat the base, as `Run.log_history` noted them."""
    trainings = record.notes.get("training") or {}
    return tuple(name for name, findings in trainings.items() if NOTHING_LEARNED in findings)


def _columns(setting: dict[str, object]) -> dict[str, object]:
    return {f"p.{name}": value for name, value in setting.items() if isinstance(value, str)}


def _facts(record: Record) -> dict[str, object]:
    threads = record.hardware.get("threads")
    return {
        "dataset": _dataset(record),
        "data": record.data_fingerprint,
        "code": record.source_hash,
        "threads": threads,
        "untrained": _untrained(record),
    }


def _measured(record: Record, view: View) -> Iterator[tuple[str, str, int | None, str, float | None]]:
    """(system, condition, dim, metric, value) that the view shows; of equal ones, the last that was recorded."""
    rows = {
        (row.system, row.condition, row.dim, row.metric): row.value
        for row in record.metrics
        if row.statistic == "value" and (row.metric in COSTS or view.shows(row))
    }
    largest: dict[tuple[str, str], int] = {}
    for system, condition, dim, metric in rows:
        if metric not in COSTS:
            largest[system, condition] = max(dim or 0, largest.get((system, condition), 0))
    for (system, condition, dim, metric), value in rows.items():
        if view.all_dims or metric in COSTS or (dim or 0) == largest[system, condition]:
            yield system, condition, dim, metric, value


def _run_frame(rows: list[dict[str, object]]) -> pd.DataFrame:
    """Sorted by run, every run once, combinations numbered in the order of their first run."""
    facts = ("combination", "data", "code", "threads", "untrained")
    frame = pd.DataFrame(rows) if rows else pd.DataFrame(columns=[*tables.RUN_COLUMNS, *facts])
    frame = frame.drop_duplicates("run_id").sort_values("run_id", ignore_index=True)
    return frame.assign(combination=pd.factorize(frame["combination"])[0])


def _metric_frame(rows: list[tuple[str, str, str, int | None, str, float | None]]) -> pd.DataFrame:
    keys = ["run_id", *SYSTEM_COLUMNS, "metric"]
    frame = pd.DataFrame(rows, columns=[*keys, "value"])
    return frame.astype({"dim": "Int64", "value": float}).drop_duplicates(keys)
