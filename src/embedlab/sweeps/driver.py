"""Drive a sweep to its end: what is finished is skipped, what failed is passed over, what was interrupted goes on."""

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
from embedlab.runs.execute import Outcome
from embedlab.runs.limits import CANCELLED, Limits
from embedlab.sweeps import planning
from embedlab.sweeps.engine import Engine
from embedlab.sweeps.job import Job
from embedlab.sweeps.optuna_search import Study
from embedlab.sweeps.planning import Planned
from embedlab.sweeps.spec import Metric, Stage, StagedSweep, SweepSpec

POLL_S = 0.2
RECORD_LOOK_EVERY = 10  # polls between two looks for records that others committed


@dataclass(frozen=True)
class Options:
    """What a person asks of one call.

    Attributes:
        output_dir: where runs are kept; empty for results/runs.
        only: filters `name=value` on the parameters of the runs.
        retry_failed: run again what failed by its own doing.
        rerun_stale: run again what other code or other packages recorded.
    """

    output_dir: str = ""
    only: tuple[str, ...] = ()
    retry_failed: bool = False
    rerun_stale: bool = False


class View(Protocol):
    """Where a sweep shows how it goes."""

    def begin(self, total: int, done: int) -> None: ...
    def show(self, run_id: str, report: Mapping[str, Any]) -> None: ...
    def ended(self, outcome: Outcome, note: str = "") -> None: ...


@dataclass
class Result:
    """How a sweep ended.

    Attributes:
        outcomes: run id -> how it ended, in the order of the sweep.
        cancelled: a person ended it.
    """

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    cancelled: bool = False

    @property
    def failed(self) -> list[Outcome]:
        """Runs without a record."""
        return [outcome for outcome in self.outcomes.values() if outcome.record is None]


class Driver:
    """One sweep on one engine.

    Args:
        spec: the sweep.
        engine: where its runs are executed.
        view: where it shows how it goes.
        options: what the person asked for.
        path: the sweep's file, for messages.
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
        """Execute all stages; a Ctrl-C ends the runs and keeps what they finished.

        Raises:
            ParameterError: a run needs more than the engine has, or what no earlier run left.
        """
        self._check_gpus()
        try:
            earlier: dict[str, dict[int, Planned]] = {}
            for stage in self.spec.stages:
                finished = self._stage(stage, earlier)
                if not finished:
                    break  # a later stage has nothing to build on
                if planning.is_built_on(stage, self.spec.stages):
                    earlier[stage.name] = planning.best(stage, finished)
        except KeyboardInterrupt:
            self._cancel_all()
        ended = self.result.outcomes  # as they ended; runs side by side do so in any order
        self.result.outcomes = {run_id: ended[run_id] for run_id in self._order if run_id in ended}
        return self.result

    def _check_gpus(self) -> None:
        """Check that the engine has enough GPUs; a run that needs more would wait forever."""
        needed, available = max(stage.resources.gpus for stage in self.spec.stages), self.engine.gpus
        if available is not None and needed > available:
            problem, remedy = f"a run needs {needed} GPUs, and there are {available}", "Set a smaller number"
            raise ParameterError(problem, remedy=remedy, file=self.path, field="resources.gpus")

    def _stage(self, stage: Stage, earlier: Mapping[str, Mapping[int, Planned]]) -> list[Planned]:
        """Execute a stage; returns its finished runs."""
        base = planning.expanded(stage, self.path, earlier)
        if stage.search is None:
            return self._execute(stage, self._chosen(stage, base))
        finished, study = [], Study(stage.search)
        while values := study.ask():
            trials = [self._chosen(stage, [{**run, **trial} for run in base]) for trial in values]
            self._execute(stage, [item for trial in trials for item in trial])
            scores = [self._score(stage.search, trial) for trial in trials]
            study.tell(scores)
            finished += [item for trial in trials for item in self._refreshed(trial)]
        return finished

    def _chosen(self, stage: Stage, runs: Sequence[Mapping[str, Any]]) -> list[Planned]:
        planned = planning.only(planning.plan_values(stage, runs, self.options.output_dir), self.options.only)
        return [self._unless_stale(item) for item in planned]

    def _score(self, metric: Metric, trial: Sequence[Planned]) -> float | None:
        """Mean over the trial's runs; None when one of them lacks the number."""
        numbers = planning.values_of(self._refreshed(trial), metric)
        return fmean(numbers) if numbers and len(numbers) == len(trial) else None

    def _refreshed(self, planned: Sequence[Planned]) -> list[Planned]:
        """Those that are finished by now, with their records."""
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
        for order, item in enumerate(todo):
            self._submit(Job(item.plan, self._limits(stage), stage.resources.gpus, order))
        self._wait()
        return self._refreshed(planned)

    def _unless_stale(self, item: Planned) -> Planned:
        """Forget a record of older code or packages where the person asked to run such runs again."""
        if item.record is None or item.run_id in self.result.outcomes or not self.options.rerun_stale:
            return item
        if not item.is_older:
            if not planning.is_stale(item.record):
                return item
            records.set_aside(item.folder)
        return replace(item, record=None)

    def _is_to_do(self, item: Planned) -> bool:
        """Note the outcome of a run that need not run, and tell whether it has to."""
        if item.run_id in self.result.outcomes:  # two trials with the same values
            return False
        if item.record:
            self.result.outcomes[item.run_id] = Outcome(item.run_id, item.folder, item.record, skipped=True)
            return False
        if not item.failure or item.failure in planning.RERUN_CAUSES or self.options.retry_failed:
            return True
        failed = Outcome(item.plan.run_id, item.plan.folder, cause=item.failure, skipped=True)
        self.result.outcomes[item.plan.run_id] = failed
        self.view.ended(failed, "failed before; --retry-failed runs it again")
        return False

    def _limits(self, stage: Stage) -> Limits:
        wanted = stage.resources
        cpus = wanted.cpus or (max(1, (os.cpu_count() or 1) // self.engine.jobs) if self.engine.jobs > 1 else 0)
        return Limits(wall_min=wanted.wall_min, mem_gb=wanted.mem_gb, cpus=cpus)

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
                self._take(outcome)
            if (polls := polls + 1) % RECORD_LOOK_EVERY == 0:
                for outcome in self._committed_by_others():
                    self.engine.cancel(outcome.run_id)
                    self._take(outcome)
            time.sleep(POLL_S)

    def _committed_by_others(self) -> Iterator[Outcome]:
        """Runs that wait or run here although another driver, or a task believed lost, has committed them."""
        for run_id, job in list(self._running.items()):
            folder = job.plan.folder
            ours = attempts.running_in(folder)  # on this disk: it will see for itself
            if not ours and (record := records.read_or_quarantine(folder)):
                yield Outcome(run_id, folder, record, skipped=True)

    def _take(self, outcome: Outcome) -> None:
        """Note an outcome, or try again."""
        job = self._running.pop(outcome.run_id, None)
        if job is None:  # taken before
            return
        tries = self._attempts[outcome.run_id]
        if outcome.record is None and tries <= self.spec.retries_after(outcome.cause):
            self.view.ended(outcome, f"try {tries + 1} follows")
            self._submit(job)
            return
        self.result.outcomes[outcome.run_id] = outcome
        self.view.ended(outcome)

    def _cancel_all(self) -> None:
        """End what runs, and take in what finished meanwhile."""
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
        for run_id, job in self._running.items():  # among them one that ended just as the order came
            record = records.read_or_quarantine(job.plan.folder)
            cause = "" if record else CANCELLED
            self.result.outcomes[run_id] = Outcome(run_id, job.plan.folder, record, cause=cause)
