"""Run a sweep: skip finished runs and runs that failed before, and execute the others."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from embedlab.errors import ParameterError
from embedlab.runs import attempts, records
from embedlab.runs.causes import CANCELLED, INTERRUPTIONS
from embedlab.runs.execute import Outcome
from embedlab.runs.limits import Limits, asked_gpus
from embedlab.sweeps import planning
from embedlab.sweeps.engine import Engine
from embedlab.sweeps.job import Job
from embedlab.sweeps.optuna_search import Study
from embedlab.sweeps.planning import Planned
from embedlab.sweeps.spec import Metric, Stage, StagedSweep, SweepSpec

POLL_S = 0.2
RECORD_CHECK_EVERY = 10  # polls between two checks for records that other processes committed


@dataclass(frozen=True)
class Options:
    """The options of one call.

    Attributes:
        output_dir: folder of the runs; empty for results/runs.
        only: filters `name=value` on the parameters of the runs.
        retry_failed: repeat runs that failed because of their own code or limits.
        rerun_stale: repeat runs recorded by other code or packages.
    """

    output_dir: str = ""
    only: tuple[str, ...] = ()
    retry_failed: bool = False
    rerun_stale: bool = False


class View(Protocol):
    """Shows the progress of a sweep."""

    def begin(self, total: int, done: int) -> None:
        """Add `total` runs, of which `done` are finished already."""

    def show(self, run_id: str, report: Mapping[str, Any]) -> None:
        """Show a progress report of a run."""

    def ended(self, outcome: Outcome, note: str = "") -> None:
        """Show how a run ended; `note` says what follows."""


@dataclass
class Result:
    """How a sweep ended.

    Attributes:
        outcomes: run id -> how the run ended, in the order of the sweep.
        cancelled: whether Ctrl-C or SIGTERM ended the sweep.
    """

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    cancelled: bool = False

    @property
    def failed(self) -> list[Outcome]:
        """The runs without a record."""
        return [outcome for outcome in self.outcomes.values() if outcome.record is None]


class Driver:
    """One sweep on one engine.

    Args:
        spec: the sweep.
        engine: where its runs are executed.
        view: shows the progress.
        options: the options of this call.
        path: the sweep's file, for error messages.
    """

    def __init__(
        self,
        spec: SweepSpec | StagedSweep,
        engine: Engine,
        view: View,
        options: Options = Options(),
        path: Path | None = None,
    ) -> None:
        self.spec, self.engine, self.view, self.options, self.path = spec, engine, view, options, path
        self.result = Result()
        self._attempts: Counter[str] = Counter()
        self._running: dict[str, Job] = {}
        self._order: dict[str, None] = {}  # run ids as the sweep lists them

    def run(self) -> Result:
        """Execute all stages. Ctrl-C stops the runs and keeps the finished ones.

        Raises:
            ParameterError: a run needs more GPUs than the engine has, or a file that no earlier run has written.
        """
        self._check_gpus(max(stage.resources.gpus for stage in self.spec.stages))
        try:
            earlier: dict[str, dict[int, Planned]] = {}
            for stage in self.spec.stages:
                finished = self._stage(stage, earlier)
                if not finished:
                    break  # later stages need its results
                if planning.is_built_on(stage, self.spec.stages):
                    earlier[stage.name] = planning.best(stage, finished)
        except KeyboardInterrupt:
            self._cancel_all()
        ended = self.result.outcomes  # in the order in which they ended, which varies
        self.result.outcomes = {run_id: ended[run_id] for run_id in self._order if run_id in ended}
        return self.result

    def _check_gpus(self, needed: int) -> None:
        """Check that the engine has enough GPUs; a run that needs more would wait forever."""
        available = self.engine.gpus
        if available is not None and needed > available:
            problem, remedy = f"a run needs {needed} GPUs, but the engine has {available}", "Set a smaller number"
            raise ParameterError(problem, remedy=remedy, file=self.path, field="resources.gpus")

    def _stage(self, stage: Stage, earlier: Mapping[str, Mapping[int, Planned]]) -> list[Planned]:
        """Execute a stage and return its finished runs."""
        base = planning.expanded(stage, self.path, earlier)
        if stage.search is None:
            return self._execute(stage, self._plan(stage, base))
        finished, study = [], Study(stage.search)
        while values := study.ask():
            trials = [self._plan(stage, [{**run, **trial} for run in base]) for trial in values]
            self._execute(stage, [item for trial in trials for item in trial])
            scores = [self._score(stage.search, trial) for trial in trials]
            study.tell(scores)
            finished += [item for trial in trials for item in self._refreshed(trial)]
        return finished

    def _plan(self, stage: Stage, runs: Sequence[Mapping[str, Any]]) -> list[Planned]:
        planned = planning.only(planning.plan_values(stage, runs, self.options.output_dir), self.options.only)
        return [self._unless_stale(item) for item in planned]

    def _score(self, metric: Metric, trial: Sequence[Planned]) -> float | None:
        """Return the mean of the metric over the trial's runs; None if a run has no value."""
        numbers = planning.values_of(self._refreshed(trial), metric)
        return fmean(numbers) if numbers and len(numbers) == len(trial) else None

    def _refreshed(self, planned: Sequence[Planned]) -> list[Planned]:
        """Return the runs that are finished now, with their records."""
        now = [replace(item, record=self._record(item)) for item in planned]
        return [item for item in now if item.record]

    def _record(self, item: Planned) -> records.Record | None:
        outcome = self.result.outcomes.get(item.run_id)
        return outcome.record if outcome else item.record

    def _execute(self, stage: Stage, planned: Sequence[Planned]) -> list[Planned]:
        self._order |= dict.fromkeys(item.run_id for item in planned)
        todo = [item for item in planned if self._is_to_do(item)]
        planning.require_inputs(todo)
        self.view.begin(len(planned), len(planned) - len(todo))
        gpus = [max(stage.resources.gpus, asked_gpus(item.plan.values)) for item in todo]
        self._check_gpus(max(gpus, default=0))
        for order, (item, count) in enumerate(zip(todo, gpus, strict=True)):
            self._submit(Job(item.plan, self._limits(stage), count, order))
        self._wait()
        return self._refreshed(planned)

    def _unless_stale(self, item: Planned) -> Planned:
        """With `rerun_stale`, drop a record that other code or packages made, which repeats the run."""
        if item.record is None or item.run_id in self.result.outcomes or not self.options.rerun_stale:
            return item
        if not item.is_older:
            if not planning.is_stale(item.record):
                return item
            records.set_aside(item.folder)
        return replace(item, record=None)

    def _is_to_do(self, item: Planned) -> bool:
        """Return whether a run must be executed; if not, store its outcome."""
        if item.run_id in self.result.outcomes:  # two trials with the same values
            return False
        if item.record:
            self.result.outcomes[item.run_id] = Outcome(item.run_id, item.folder, item.record, skipped=True)
            return False
        is_repeated = item.failure in INTERRUPTIONS or self.spec.retries_after(item.failure) > 0
        if not item.failure or is_repeated or self.options.retry_failed:
            return True
        failed = Outcome(item.plan.run_id, item.plan.folder, cause=item.failure, skipped=True)
        self.result.outcomes[item.plan.run_id] = failed
        self.view.ended(failed, "failed before; --retry-failed repeats it")
        return False

    def _limits(self, stage: Stage) -> Limits:
        resources = stage.resources
        cpus = resources.cpus or (max(1, (os.cpu_count() or 1) // self.engine.jobs) if self.engine.jobs > 1 else 0)
        return Limits(wall_min=resources.wall_min, mem_gb=resources.mem_gb, cpus=cpus)

    def _submit(self, job: Job) -> None:
        self._running[job.plan.run_id] = job
        self._attempts[job.plan.run_id] += 1
        self.engine.submit(job)

    def _wait(self) -> None:
        polls = 0
        while self._running:
            for run_id, report in self.engine.reports():
                self.view.show(run_id, report)
            for outcome in self.engine.poll():
                self._store(outcome)
            if (polls := polls + 1) % RECORD_CHECK_EVERY == 0:
                for outcome in self._committed_by_others():
                    self.engine.cancel(outcome.run_id)
                    self._store(outcome)
            time.sleep(POLL_S)

    def _committed_by_others(self) -> Iterator[Outcome]:
        """Find pending or running runs that another driver, or a task believed lost, has committed."""
        for run_id, job in list(self._running.items()):
            folder = job.plan.folder
            # An attempt on this disk finds the record itself.
            runs_locally = [attempt for attempt in attempts.running_in(folder) if not attempt.is_away]
            if not runs_locally and (record := records.read_or_quarantine(folder)):
                yield Outcome(run_id, folder, record, skipped=True)

    def _store(self, outcome: Outcome) -> None:
        """Store an outcome, or submit the run again after a failure that allows it."""
        job = self._running.pop(outcome.run_id, None)
        if job is None:  # stored already
            return
        tries = self._attempts[outcome.run_id]
        if outcome.record is None and tries <= self.spec.retries_after(outcome.cause):
            self.view.ended(outcome, f"try {tries + 1} follows")
            self._submit(job)
            return
        self.result.outcomes[outcome.run_id] = outcome
        self.view.ended(outcome)

    def _cancel_all(self) -> None:
        """Cancel all running runs; keep those that finished in the meantime."""
        self.result.cancelled = True
        for run_id in self._running:
            self.engine.cancel(run_id)
        for _ in range(50):
            for outcome in self.engine.poll():
                if self._running.pop(outcome.run_id, None):
                    self.result.outcomes[outcome.run_id] = outcome
            if not self._running:
                return
            time.sleep(POLL_S)
        for run_id, job in self._running.items():  # one of them may have finished just before the cancellation
            record = records.read_or_quarantine(job.plan.folder)
            cause = "" if record else CANCELLED
            self.result.outcomes[run_id] = Outcome(run_id, job.plan.folder, record, cause=cause)
