"""Execute runs as Slurm jobs, through submitit. Needs the extra `cluster`."""

from __future__ import annotations

import math
import signal
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from embedlab import paths
from embedlab.errors import EmbedlabError, ParameterError
from embedlab.runs import attempts, execute
from embedlab.runs.causes import CANCELLED, INFRASTRUCTURE
from embedlab.runs.execute import Outcome, Plan
from embedlab.runs.run_progress import ProgressFile
from embedlab.sweeps.job import Job

JOBS = 64  # in Slurm's queue at a time
MINUTES = 24 * 60  # time limit of a run without a limit of its own; submitit's default is 5 minutes

# How the texts of `--slurm name=value` are read; all other values stay texts, as sbatch takes them.
TYPES: dict[str, type] = {
    **dict.fromkeys(("timeout_min", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node"), int),
    "mem_gb": float,
    **dict.fromkeys(("slurm_exclusive", "slurm_use_srun", "stderr_to_stdout"), bool),
}
BOOLEANS = {"true": True, "false": False}
# Submitit takes lists or dicts for these, or every job has its own value.
REFUSED = {
    **dict.fromkeys(("slurm_setup", "slurm_teardown"), "Put the commands into the shell that starts the sweep"),
    **dict.fromkeys(("slurm_additional_parameters", "slurm_srun_args"), "Set SBATCH_… variables instead"),
    **dict.fromkeys(("name", "slurm_job_name"), "Every job has the id of its run as its name"),
    "slurm_map_count": "Use --jobs",
}


def _perform(job: Job) -> Outcome:
    """Execute a run in a Slurm job; `scancel` ends it as Ctrl-C would."""

    def cancel(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, cancel)
    return execute.perform(job.plan, limits=job.limits, on_report=lambda report: None)


def typed_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the texts of `--slurm name=value` to the types that submitit takes.

    Raises:
        ParameterError: a value of another type, or an option that cannot be set like this.
    """
    return {name: _typed(name, value) for name, value in options.items()}


def _typed(name: str, value: Any) -> Any:
    if name in REFUSED:
        raise ParameterError(f"{name} cannot be set here", remedy=REFUSED[name], field="--slurm")
    kind = TYPES.get(name, str)
    try:
        return BOOLEANS[str(value).lower()] if kind is bool else kind(value)
    except (ValueError, KeyError):
        examples = {int: "1", float: "4.5", bool: "true"}
        problem = f"{name} must be {kind.__name__}, got {value!r}"
        raise ParameterError(problem, remedy=f"Write {name}={examples[kind]}, for example", field="--slurm") from None


class SlurmEngine:
    """Runs as jobs of a Slurm cluster; see `engine.Engine`. The project folder must be on a shared disk.

    Args:
        jobs: how many jobs may be in Slurm's queue at a time; 0 for the default of 64.
        options: submitit's parameters, e.g. {"slurm_partition": "gpu"}.
        cluster: "slurm", or "local" to try the same jobs as processes on this machine.

    Raises:
        EmbedlabError: submitit is not installed.
        ParameterError: Slurm is not available, or an option is unknown.
    """

    jobs: int = 0
    gpus: int | None = None

    def __init__(self, *, jobs: int = 0, options: Mapping[str, Any] | None = None, cluster: str = "slurm") -> None:
        if find_spec("submitit") is None:
            remedy = "Install it: pip install 'embedlab[cluster]'"
            raise EmbedlabError("the package submitit is not installed", remedy=remedy)
        self._max_jobs, self._options, self._cluster = jobs or JOBS, typed_options(options or {}), cluster
        try:
            self._executor()
        except RuntimeError as error:
            remedy = "Run this on a machine that has sbatch, or use --engine local"
            raise ParameterError(str(error), remedy=remedy) from None
        except (
            NameError,
            TypeError,
            ValueError,
            AssertionError,
        ) as error:  # what submitit raises for a bad name or value
            remedy = "Use submitit's names, such as slurm_partition=gpu"
            raise ParameterError(str(error).splitlines()[0], remedy=remedy, field="--slurm") from None
        self._ended: list[Outcome] = []
        self._waiting: deque[Job] = deque()
        self._running: dict[str, tuple[Any, Plan]] = {}
        self._files: dict[Path, ProgressFile] = {}

    def _executor(self, **requests: Any) -> Any:
        """Create a submitit executor for one job; a shared one would keep the requests of the job before."""
        import submitit

        executor = submitit.AutoExecutor(folder=paths.cache_dir() / "slurm", cluster=self._cluster)
        executor.update_parameters(**{**requests, **self._options})
        return executor

    def submit(self, job: Job) -> None:
        """Queue a run.

        Raises:
            EmbedlabError: Slurm rejects the job.
        """
        self._waiting.append(job)
        self._fill_queue()

    def _fill_queue(self) -> None:
        """Submit waiting jobs until Slurm's queue holds as many as allowed."""
        while self._waiting and len(self._running) < self._max_jobs:
            job = self._waiting.popleft()
            try:
                handle = self._executor(**_requests(job)).submit(_perform, job)
            except (OSError, RuntimeError, TypeError, ValueError) as error:
                problem = f"Slurm rejects the job ({' '.join(str(error).split())[-300:]})"
                remedy = "Change the sweep's resources or the --slurm options"
                raise EmbedlabError(problem, remedy=remedy) from None
            self._running[job.plan.run_id] = (handle, job.plan)

    def poll(self) -> Iterator[Outcome]:
        """Yield the runs that have ended since the last call."""
        for run_id, (handle, plan) in list(self._running.items()):
            if handle.done():
                del self._running[run_id]
                yield _outcome_of(handle, plan)
        yield from self._ended
        self._ended.clear()
        self._fill_queue()

    def reports(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield (run id, progress report) of everything reported since the last call."""
        for _, plan in self._running.values():
            yield from attempts.reports(attempts.running_in(plan.folder), self._files)

    def cancel(self, run_id: str) -> None:
        """Cancel a run's Slurm job, or drop a run that is not in Slurm's queue yet."""
        for job in [job for job in self._waiting if job.plan.run_id == run_id]:
            self._waiting.remove(job)
            self._ended.append(Outcome(run_id, job.plan.folder, cause=CANCELLED))
        if run_id in self._running:
            self._running[run_id][0].cancel()

    def close(self) -> None:
        """Cancel all jobs."""
        for handle, _ in self._running.values():
            handle.cancel()


def _requests(job: Job) -> dict[str, Any]:
    """Return what to ask Slurm for: slightly more than the run's limits, so that we stop it first and know why."""
    limits = job.limits
    return {
        "name": job.plan.run_id,
        "timeout_min": math.ceil(limits.wall_min) + 5 if limits.wall_min else MINUTES,
        "cpus_per_task": limits.cpus or None,
        "gpus_per_node": job.gpus or None,
        "mem_gb": math.ceil(limits.mem_gb) + 1 if limits.mem_gb else None,
    }


def _outcome_of(handle: Any, plan: Plan) -> Outcome:
    if error := handle.exception():
        cause = CANCELLED if handle.state.upper().startswith("CANCEL") else INFRASTRUCTURE
        return Outcome(plan.run_id, plan.folder, cause=cause, detail=str(error).strip()[-600:])
    outcome: Outcome = handle.result()
    return outcome
