"""Slurm as an engine of sweeps: each run is a job, submitted through submitit."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from embedlab import paths
from embedlab.errors import EmbedlabError, ParameterError
from embedlab.runs import attempts, execute
from embedlab.runs.execute import Outcome, Plan
from embedlab.runs.limits import CANCELLED
from embedlab.runs.run_progress import ProgressFile
from embedlab.sweeps.job import Job

JOBS = 64  # in Slurm's queue at once
MINUTES = 24 * 60  # of a run without a limit; submitit would ask for five


def _perform(job: Job) -> Outcome:
    return execute.perform(job.plan, limits=job.limits, on_report=lambda report: None)


class SlurmEngine:
    """A Slurm cluster, through submitit; the project's folder has to be on the shared disk.

    Args:
        jobs: how many runs may be in Slurm's queue at once.
        options: more of submitit's parameters, e.g. {"slurm_partition": "gpu"}.
        cluster: "slurm"; "local" runs the same jobs as processes here, which is good for a try.

    Raises:
        EmbedlabError: there is no submitit, no Slurm, or no such option.
    """

    jobs, gpus = 0, None

    def __init__(self, *, jobs: int = JOBS, options: Mapping[str, Any] | None = None, cluster: str = "slurm") -> None:
        if find_spec("submitit") is None:
            raise EmbedlabError("submitit is not installed", remedy="pip install 'embedlab[cluster]'") from None
        self._most, self._options, self._cluster = jobs, dict(options or {}), cluster
        try:
            self._executor()
        except RuntimeError as error:
            raise ParameterError(str(error), remedy="Run this where sbatch is, or take --engine local") from None
        except (NameError, ValueError, AssertionError) as error:  # how submitit refuses a name or a value
            remedy = "Write options as submitit calls them, such as slurm_partition=gpu"
            raise ParameterError(str(error).splitlines()[0], remedy=remedy, field="--slurm") from None
        self._ended: list[Outcome] = []
        self._waiting: deque[Job] = deque()
        self._running: dict[str, tuple[Any, Plan]] = {}
        self._files: dict[Path, ProgressFile] = {}

    def _executor(self, **wishes: Any) -> Any:
        """One that knows these wishes only; submitit's remember those of the job before."""
        import submitit

        executor = submitit.AutoExecutor(folder=paths.cache_dir() / "slurm", cluster=self._cluster)
        executor.update_parameters(**{**wishes, **self._options})
        return executor

    def submit(self, job: Job) -> None:
        self._waiting.append(job)
        self._fill()

    def _fill(self) -> None:
        """Keep Slurm's queue as long as it may be."""
        while self._waiting and len(self._running) < self._most:
            job = self._waiting.popleft()
            try:
                handle = self._executor(**_wishes(job)).submit(_perform, job)
            except (OSError, RuntimeError) as error:
                problem = f"Slurm refuses the job ({str(error).strip()[-300:]})"
                raise EmbedlabError(" ".join(problem.split()), remedy="Mend resources or --slurm") from None
            self._running[job.plan.run_id] = (handle, job.plan)

    def poll(self) -> Iterator[Outcome]:
        for run_id, (job, plan) in list(self._running.items()):
            if job.done():
                del self._running[run_id]
                yield _outcome_of(job, plan)
        yield from self._ended
        self._ended.clear()
        self._fill()

    def reports(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for _, plan in self._running.values():
            yield from attempts.reports(attempts.at_work(plan.folder), self._files)

    def cancel(self, run_id: str) -> None:
        """End its job, or let go of one that is not in Slurm's queue yet."""
        for job in [job for job in self._waiting if job.plan.run_id == run_id]:
            self._waiting.remove(job)
            self._ended.append(Outcome(run_id, job.plan.folder, cause=CANCELLED))
        if run_id in self._running:
            self._running[run_id][0].cancel()

    def close(self) -> None:
        for job, _ in self._running.values():
            job.cancel()


def _wishes(job: Job) -> dict[str, Any]:
    """What Slurm is asked for: a little more than the run's limits, so that we end it first, and say so."""
    limits = job.limits
    return {
        "name": job.plan.run_id,
        "timeout_min": math.ceil(limits.wall_min) + 5 if limits.wall_min else MINUTES,
        "cpus_per_task": limits.cpus or None,
        "gpus_per_node": job.gpus or None,
        "mem_gb": math.ceil(limits.mem_gb) + 1 if limits.mem_gb else None,
    }


def _outcome_of(job: Any, plan: Plan) -> Outcome:
    if error := job.exception():
        cause = CANCELLED if job.state.upper().startswith("CANCEL") else "infrastructure"
        return Outcome(plan.run_id, plan.folder, cause=cause, detail=str(error).strip()[-600:])
    return job.result()
