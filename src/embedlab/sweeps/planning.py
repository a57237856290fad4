"""Plan the runs of a sweep file: their ids, which are finished, and how long the others may take."""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from embedlab import paths
from embedlab.errors import ParameterError
from embedlab.io import confined
from embedlab.runs import execute, filters, notebooks, provenance, record_index, records
from embedlab.runs.execute import Plan
from embedlab.runs.inputs import data_fingerprint
from embedlab.runs.records import Record
from embedlab.runs.run import FAILED
from embedlab.runs.run_id import RunId, topic_of, without_seeds
from embedlab.sweeps.older import OlderRuns
from embedlab.sweeps.spec import REFERENCE, Metric, Stage, StagedSweep, SweepSpec, expand


@dataclass(frozen=True)
class Planned:
    """One run of a sweep, and whether it is finished.

    Attributes:
        plan: the run, with the current code of the notebook.
        values: the parameters that the sweep sets.
        record: its record if it is finished, or that of a run of older code with the same parameters and data.
        failure: why its last attempt failed, if it is not finished.
    """

    plan: Plan
    values: dict[str, Any]
    record: Record | None = None
    failure: str = ""

    @property
    def is_older(self) -> bool:
        """Whether the record comes from an older version of the notebook."""
        return self.record is not None and self.record.run_id != self.plan.run_id

    @property
    def run_id(self) -> str:
        """The id of the record if there is one, else the id that the run will have."""
        return self.record.run_id if self.record else self.plan.run_id

    @property
    def folder(self) -> Path:
        """The folder of the run with this id."""
        return self.plan.folder.with_name(self.run_id)

    def state(self) -> str:
        """Describe the state in a few words: finished, failed or to do."""
        if self.record:
            return f"finished (older code: {self.run_id})" if self.is_older else "finished"
        return f"failed: {self.failure}" if self.failure else "to do"


def plan_values(stage: Stage, runs: Iterable[Mapping[str, Any]], output_dir: str = "") -> list[Planned]:
    """Plan one run per set of parameter values, without duplicates.

    A run without a record uses the record of an older version of the notebook that has the same seed, data and
    parameters, if there is one.
    """
    path = notebooks.find_notebook(stage.notebook)
    planned: dict[str, Planned] = {}
    for values in runs:
        plan = execute.plan(path, values, output_dir=output_dir)
        record = records.read_or_quarantine(plan.folder)
        failure = "" if record else last_failure(plan.folder)
        planned.setdefault(plan.run_id, Planned(plan, dict(values), record, failure))
    return _with_older(list(planned.values()))


def _with_older(planned: list[Planned]) -> list[Planned]:
    """Give runs without a record the matching record of older code."""
    if not planned or all(item.record for item in planned):
        return planned
    notebook, folder = planned[0].plan.notebook, planned[0].plan.folder.parent
    older = OlderRuns(notebook.stem, notebooks.parameters(notebook), folder)
    fingerprint = lru_cache(data_fingerprint)
    with_records = []
    for item in planned:
        data = "" if item.record else fingerprint(item.plan.values.get("dataset", ""))
        run_id = None if item.record else older.find(item.plan.values, data)
        record = records.read_or_quarantine(folder / run_id) if run_id else None
        with_records.append(replace(item, record=record, failure="") if record else item)
    return with_records


def last_failure(folder: Path) -> str:
    """Return why the run last failed; "" if no attempt has recorded a failure."""
    for path in sorted(folder.glob(f"attempts/*/{FAILED}"), reverse=True):
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["cause"])
        except (OSError, ValueError, LookupError, TypeError):
            return "incomplete"
    return ""


def only(planned: Sequence[Planned], conditions: Sequence[str]) -> list[Planned]:
    """Select the runs for which every condition `name=value` is true.

    Raises:
        ParameterError: a parameter does not exist, or no run matches.
    """
    if not conditions:
        return list(planned)
    import pandas as pd

    frame = pd.DataFrame(notebooks.with_defaults([item.plan.values for item in planned]))
    matching = filters.select(frame, conditions)
    if matching.empty:
        remedy = "Check the values with --dry-run"
        raise ParameterError("no run of the sweep matches", remedy=remedy, field=f"--only {' '.join(conditions)}")
    return [planned[position] for position in matching.index]


def is_stale(record: Record) -> bool:
    """Return whether code or packages have changed since the run."""
    commit, dirty = provenance.code_version()
    return bool(dirty) or (record.commit, record.dirty, record.versions) != (commit, dirty, provenance.versions())


def seconds_of(record: Record) -> float:
    """Return the duration of a run in seconds."""
    began, ended = (datetime.fromisoformat(text) for text in (record.started, record.finished))
    return (ended - began).total_seconds()


def estimate_s(planned: Sequence[Planned], jobs: int) -> float | None:
    """Estimate how long the unfinished runs take, from the median time of past runs of the notebook on the same data.

    Args:
        planned: runs of a sweep; finished ones take no time.
        jobs: number of runs at a time.

    Returns:
        Seconds; None if a notebook has no past run with the same data and number of steps.
    """
    past: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for record in record_index.indexed_records(()):
        if record.started and record.finished:
            past[_workload(record.notebook, record.parameters)].append(seconds_of(record))
    workloads = [_workload(item.plan.notebook.stem, item.plan.values) for item in planned if item.record is None]
    if any(workload not in past for workload in workloads):
        return None
    return sum(statistics.median(past[workload]) for workload in workloads) / jobs


def _workload(stem: str, values: Mapping[str, Any]) -> tuple[Any, ...]:
    """Runs with the same workload take about the same time."""
    return topic_of(stem), *(values.get(name) for name in ("dataset", "max_steps", "max_examples"))


def metric_of(record: Record, metric: Metric) -> float | None:
    """Return a run's value of the deciding metric at full dimension; None if the record has none.

    Raises:
        ParameterError: several systems have the metric, and `metric.system` is empty.
    """
    rows = [
        row
        for row in record.metrics
        if (row.metric, row.split, row.statistic, row.stage) == (metric.metric, metric.split, "value", "retrieval")
        and metric.system in ("", row.system)
    ]
    systems = sorted({row.system for row in rows})
    if len(systems) > 1:
        problem = f"{record.run_id} has {metric.metric} on {metric.split} of several systems: {', '.join(systems)}"
        raise ParameterError(problem, remedy=f"Name one, for example pick: {{system: {systems[0]}}}", field="pick")
    full = max(rows, key=lambda row: row.dim or 0, default=None)
    return full.value if full else None


def values_of(items: Iterable[Planned], metric: Metric) -> list[float]:
    """The value of the deciding metric of every run that has one."""
    values = (metric_of(item.record, metric) for item in items if item.record)
    return [value for value in values if value is not None]


def best(stage: Stage, finished: Sequence[Planned]) -> dict[int, Planned]:
    """Return the runs of the stage's best combination (seed -> run), by the mean of the deciding metric over seeds.

    Only combinations with the largest number of finished seeds compete: with fewer, one could win by luck.

    Raises:
        ParameterError: no run has the deciding metric.
    """
    groups: dict[str, list[Planned]] = defaultdict(list)
    for item in {item.run_id: item for item in finished}.values():  # a search may try the same values twice
        groups[json.dumps(_setting(item.values), sort_keys=True)].append(item)
    pick, most = stage.decides, max(map(len, groups.values()))
    winner = max((items for items in groups.values() if len(items) == most), key=lambda items: _score(items, pick))
    if len(groups) > 1 and _score(winner, pick) == -math.inf:
        system = f" of {pick.system}" if pick.system else ""
        problem = f"no combination of stage {stage.name!r} has {pick.metric}{system} on {pick.split} in all runs"
        remedy = "Choose what decides, for example pick: {metric: ndcg@10, split: test, system: contrastive}"
        raise ParameterError(problem, remedy=remedy, field="pick")
    return {item.values["seed"]: item for item in winner}


def _setting(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values without the seed and the seeds in paths: equal for all runs of a combination."""
    return {
        name: without_seeds(value) if isinstance(value, str) else value
        for name, value in values.items()
        if name != "seed"
    }


def _score(items: Sequence[Planned], metric: Metric) -> float:
    """Return the mean over seeds, negated if smaller is better; minus infinity if a run has no value."""
    numbers = values_of(items, metric)
    if len(numbers) < len(items):
        return -math.inf
    return statistics.fmean(numbers) * (1 if metric.direction == "maximize" else -1)


def follow(runs: Sequence[Mapping[str, Any]], earlier: Mapping[str, Mapping[int, Planned]]) -> list[dict[str, Any]]:
    """Replace every reference to an earlier stage by the path or parameter that it names.

    The path does not have to exist yet: `require_inputs` checks the runs that will be executed.

    Args:
        runs: values of the runs of a stage.
        earlier: stage name -> seed -> best run.

    Raises:
        ParameterError: the earlier run does not have the parameter.
    """
    return [{name: _follow(value, values["seed"], earlier) for name, value in values.items()} for values in runs]


def _follow(value: Any, seed: int, earlier: Mapping[str, Mapping[int, Planned]]) -> Any:
    match = REFERENCE.match(value) if isinstance(value, str) else None
    if not match or match["stage"] not in earlier:
        return value
    by_seed = earlier[match["stage"]]
    run = by_seed.get(seed) or by_seed[min(by_seed)]
    name = match["what"]
    if not name.startswith("p."):
        return paths.shown(confined(run.folder, name, field=value, single=False))
    parameter = name.removeprefix("p.")
    if parameter not in run.plan.values:
        remedy = f"Choose one of {', '.join(run.plan.values)}"
        raise ParameterError(f"{value}: there is no parameter {parameter!r}", remedy=remedy, field=value)
    return run.plan.values[parameter]


def require_inputs(planned: Iterable[Planned]) -> None:
    """Check that files of earlier runs exist; model weights, for example, are not in git.

    Raises:
        ParameterError: a run needs a file or folder of an earlier run that does not exist.
    """
    for item in planned:
        for name, value in item.values.items():
            of_a_run = isinstance(value, str) and "/" in value and RunId.find_all(value)
            if of_a_run and not (path := paths.project_root() / value).exists():
                names = ", ".join(sorted(entry.name for entry in path.parent.glob("*") if entry.name != "attempts"))
                problem = (
                    f"{item.plan.run_id} needs {value}, which does not exist. Its folder has {names or 'no files'}"
                )
                remedy = "Weights are not in git. --rerun-stale repeats the earlier stages and writes them"
                raise ParameterError(problem, remedy=remedy, field=name)


def can_plan_ahead(stage: Stage, earlier: Mapping[str, Any]) -> bool:
    """Return whether the run ids of a stage can be computed now, given the finished stages."""
    return stage.search is None and stage.references() <= earlier.keys()


def is_built_on(stage: Stage, stages: Iterable[Stage]) -> bool:
    """Return whether another stage uses results of this one."""
    return any(stage.name in later.references() for later in stages)


def expanded(stage: Stage, path: Path | None, earlier: Mapping[str, Mapping[int, Planned]]) -> list[dict[str, Any]]:
    """Return the values of the stage's runs, with references replaced."""
    return follow(expand(stage, path), earlier)


def all_planned(spec: SweepSpec | StagedSweep, path: Path, output_dir: str = "") -> list[Planned]:
    """Plan all runs of a sweep whose ids can be computed from its file and the finished runs."""
    earlier: dict[str, dict[int, Planned]] = {}
    all_runs: list[Planned] = []
    for stage in spec.stages:
        if not can_plan_ahead(stage, earlier):
            continue
        planned = plan_values(stage, expanded(stage, path, earlier), output_dir)
        all_runs += planned
        finished = [item for item in planned if item.record]
        if finished and is_built_on(stage, spec.stages):
            earlier[stage.name] = best(stage, finished)
    return all_runs
