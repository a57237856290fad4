"""What a table needs of many records, gathered in one pass: ten thousand of them fit in little memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from embedlab.reporting import tables
from embedlab.runs.records import MetricRow, Record
from embedlab.runs.run import HEADLINE
from embedlab.sweeps.spec import varying_where_known

BYTES = "bytes_per_document"  # a metric row of this name says what a document takes in an index
SECONDS = "training_seconds"  # what training a model took: such a metric row, else the timings, see `training_seconds`
TRAINING = ("train", "pretrain", "fine-tune")  # timings of every model that a run trains
COSTS = (BYTES, SECONDS)
RUN_OF_SEED = re.compile(r"(\w+-[0-9a-f]{8})-s\d+")


@dataclass(frozen=True)
class View:
    """What of the runs a table shows.

    Attributes:
        metrics: the first one decides significance and the Pareto marks.
        task, split: of the evaluations.
        baselines: models that training does not touch, shown first, in this order.
        against: the baseline that every combination is compared with, query by query.
        all_dims: a row for every dimension kept, not only for a model's largest.
    """

    metrics: tuple[str, ...] = HEADLINE
    task: str = "retrieval"
    split: str = "test"
    baselines: tuple[str, ...] = ("bm25", "base")
    against: str = "base"
    all_dims: bool = False

    def shows(self, row: MetricRow) -> bool:
        """Whether it is a system's score; differences between systems have " - " in their name."""
        wanted = (row.task, row.split) == (self.task, self.split) and row.metric in self.metrics
        return wanted and " - " not in row.model


@dataclass(frozen=True)
class Collected:
    """The part of many records that a view shows.

    Attributes:
        view: what was kept.
        runs: one row per run, in order of its id: columns of `tables.run_of`, combination (0, 1, ...; runs that
            differ in nothing but the seed share it), data, code, threads.
        measured: one row per run, model, dim and metric: run_id, model, dim, metric, value. Beside the view's metrics
            there are BYTES and SECONDS, where known.
        parameters: names of the parameters that vary between combinations.
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
        key = json.dumps([record.notebook, record.source_hash, record.data_fingerprint, setting], sort_keys=True)
        runs.append({**tables.run_of(record), **_facts(record), **_columns(setting), "combination": key})
        measured += [(record.run_id, *row) for row in _measured(record, view)]
    return Collected(view, _run_frame(runs), _metric_frame(measured), _varying(settings))


def _setting(record: Record) -> dict[str, object]:
    """Parameters without the seed, and without the seed of a run that a value names: an earlier stage's model."""
    values = {name: value for name, value in record.parameters.items() if name != "seed"}
    return {name: RUN_OF_SEED.sub(r"\1", value) if isinstance(value, str) else value for name, value in values.items()}


def _varying(settings: Mapping[str, Mapping[str, object]]) -> list[str]:
    """Parameters with several values."""
    return varying_where_known([settings[run_id] for run_id in sorted(settings)])


def _columns(setting: dict[str, object]) -> dict[str, object]:
    return {f"p.{name}": value for name, value in setting.items() if isinstance(value, str)}


def _facts(record: Record) -> dict[str, object]:
    threads = record.hardware.get("threads")
    return {"data": record.data_fingerprint, "code": record.source_hash, "threads": threads}


def training_seconds(record: Record, model: str) -> float | None:
    """Seconds of the stages that made a model; None when no timing is its own.

    Its stages are called `train`, `pretrain` or `fine-tune` where a run trains one model, and `NAME`, `NAME, part` or
    `train NAME` where it trains several; "tuned, 3 layers" was made with "tuned". "pretrained" is scored before its
    run's fine-tune. A note `STAGE_seconds` says what a stage took whose result came from a cache.
    """
    family = model.partition(",")[0]
    common = TRAINING[:-1] if model == "pretrained" else TRAINING
    exact = {model, f"train {model}"} & record.timings.keys()
    own = exact or {
        stage for stage in record.timings if stage == f"train {family}" or stage.partition(",")[0] == family
    }
    real = {stage: record.notes.get(f"{stage}_seconds", measured) for stage, measured in record.timings.items()}
    seconds = [taken for stage, taken in real.items() if stage in own or stage in common]
    return sum(seconds) if seconds else None


def _measured(record: Record, view: View) -> Iterator[tuple[str, int | None, str, float | None]]:
    """(model, dim, metric, value) that the view shows; of equal ones, the last that was noted."""
    rows = {(row.model, row.dim, row.metric): row.value for row in record.metrics if _kept(row, view)}
    largest: dict[str, int] = {}
    for model, dim, metric in rows:
        if metric not in COSTS:
            largest[model] = max(dim or 0, largest.get(model, 0))
    for (model, dim, metric), value in rows.items():
        if view.all_dims or metric in COSTS or (dim or 0) == largest[model]:
            yield model, dim, metric, value
    for model in largest:
        # A truncated base model ("base 64d") is not trained either.
        if (model, None, SECONDS) not in rows and model.split()[0].rstrip(",") not in view.baselines:
            yield model, None, SECONDS, training_seconds(record, model)


def _kept(row: MetricRow, view: View) -> bool:
    return row.metric in COSTS or view.shows(row)


def _run_frame(rows: list[dict[str, object]]) -> pd.DataFrame:
    """Sorted by run, every run once, combinations numbered in the order of their first run."""
    facts = ("combination", "data", "code", "threads")
    frame = pd.DataFrame(rows) if rows else pd.DataFrame(columns=[*tables.RUN_COLUMNS, *facts])
    frame = frame.drop_duplicates("run_id").sort_values("run_id", ignore_index=True)
    return frame.assign(combination=pd.factorize(frame["combination"])[0])


def _metric_frame(rows: list[tuple]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["run_id", "model", "dim", "metric", "value"])
    return frame.astype({"dim": "Int64", "value": float}).drop_duplicates(["run_id", "model", "dim", "metric"])
