"""Where the runs of a sweep are executed: this machine, a Dask cluster, Slurm. An engine submits, polls and cancels.

Every engine runs a task at least once. That a run counts once is not its promise but that of the record, which only the
first committer can create (see `records.commit`).
"""

from __future__ import annotations

import queue
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from embedlab import paths
from embedlab.errors import EmbedlabError, ParameterError
from embedlab.experiments import delivery, execute
from embedlab.experiments.execute import Outcome, Plan
from embedlab.experiments.guard import Limits
from embedlab.experiments.live import ProgressFile

TOPIC = "embedlab-progress"
CANCEL_LOOK_S = 0.5

# Tokens of submissions that were cancelled; a worker's own copy, filled by the driver through the scheduler.
_CANCELLED: set[str] = set()


@dataclass(frozen=True)
class Job:
    """One run to execute.

    Attributes:
        plan: the run.
        limits: what it may use.
        gpus: how many graphics processors it needs.
        order: earlier ones start first.
        token: names this submission, so that a later one of the same run is not cancelled with it.
    """

    plan: Plan
    limits: Limits = field(default_factory=Limits)
    gpus: int = 0
    order: int = 0
    token: str = field(default_factory=lambda: uuid.uuid4().hex)


class Engine(Protocol):
    """What a sweep needs of the place where its runs are executed."""

    jobs: int

    def submit(self, job: Job) -> None: ...
    def poll(self) -> Iterator[Outcome]:
        """Runs that have ended since the last call."""
        ...

    def reports(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """(run id, progress report) since the last call."""
        ...

    def cancel(self, run_id: str) -> None: ...
    def close(self) -> None: ...


async def _mark_cancelled(token: str) -> None:
    """On a worker; a coroutine, for Dask waits for nothing else's end only with those."""
    _CANCELLED.add(token)


def _dask_task(job: Job, shared: bool) -> Outcome | delivery.Delivery:
    """On a worker: perform the run; where no disk is shared, hand back what it left."""
    from distributed import get_worker

    worker, run_id = get_worker(), job.plan.run_id

    def tell(report: Mapping[str, Any]) -> None:
        worker.log_event(TOPIC, {**report, "run": run_id})

    options = {"on_report": tell, "cancelled": lambda: job.token in _CANCELLED}
    if shared:
        return execute.perform(job.plan, limits=job.limits, warm=True, **options)
    return delivery.perform_away(job.plan, limits=job.limits, warm=True, **options)


class DaskEngine:
    """A Dask cluster: one in this process by default, or a real one behind a scheduler's address.

    Args:
        scheduler: e.g. "tcp://host:8786"; None makes a cluster of `jobs` threads in this process, each of which
            watches over one run (a run is always a process of its own).
        jobs: runs side by side on this machine.
        gpus: this machine's graphics processors, which its runs share out; a real cluster has a worker for each.
        shared: whether workers write to the same disk as this driver; otherwise records and small files come back.
    """

    def __init__(self, scheduler: str | None = None, *, jobs: int = 1, gpus: int = 0, shared: bool = False) -> None:
        self.jobs, self.shared = jobs, shared or scheduler is None
        self._client = _client(scheduler, jobs, gpus)
        self._local = scheduler is None
        self._running: dict[str, tuple[Any, Job]] = {}
        self._reports: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        self._client.subscribe_topic(TOPIC, lambda event: self._reports.put(event[1]))

    def submit(self, job: Job) -> None:
        job = job if self.shared else delivery.portable(job)
        resources = {"gpu": job.gpus} if job.gpus and self._local else None
        future = self._client.submit(
            _dask_task, job, self.shared, pure=False, priority=-job.order, resources=resources, retries=0
        )
        self._running[job.plan.run_id] = (future, job)

    def poll(self) -> Iterator[Outcome]:
        for run_id, (future, job) in list(self._running.items()):
            if future.done():
                del self._running[run_id]
                yield _outcome_of(future, job.plan)

    def reports(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        while not self._reports.empty():
            report = self._reports.get()
            yield report["run"], report

    def cancel(self, run_id: str) -> None:
        """Whether it runs or waits, its run ends as soon as it looks."""
        if run_id in self._running:
            token = self._running[run_id][1].token
            _CANCELLED.add(token)  # the workers' own, where they are threads of this process
            if not self._local:
                self._client.run(_mark_cancelled, token, wait=False)

    def close(self) -> None:
        self._client.close()
        if cluster := self._client.cluster:
            cluster.close()


def _client(scheduler: str | None, jobs: int, gpus: int) -> Any:
    import logging

    from distributed import Client, LocalCluster

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters comes back as an outcome
    if scheduler is None:
        cluster = LocalCluster(
            n_workers=1,
            threads_per_worker=jobs,
            processes=False,
            dashboard_address=None,
            resources={"gpu": gpus},
            memory_limit=0,  # the runs' memory is not this process's
        )
        return Client(cluster)
    try:
        return Client(scheduler, timeout=10)
    except (OSError, TimeoutError, ValueError) as error:
        remedy = "Start one with `dask scheduler`, and workers with `dask worker ADDRESS`"
        raise ParameterError(f"no Dask scheduler answers at {scheduler} ({error})", remedy=remedy) from None


def _outcome_of(future: Any, plan: Plan) -> Outcome:
    """What came of a task; a worker that was lost is nobody's mistake."""
    if future.status == "finished":
        result = future.result()
        return delivery.receive(result, plan) if isinstance(result, delivery.Delivery) else result
    if future.status == "cancelled":
        return Outcome(plan.run_id, plan.folder, cause="cancelled")
    error = future.exception()
    return Outcome(plan.run_id, plan.folder, cause="infrastructure", detail=f"{type(error).__name__}: {error}")


def _slurm_task(job: Job) -> Outcome:
    return execute.perform(job.plan, limits=job.limits, on_report=lambda report: None)


class SlurmEngine:
    """A Slurm cluster, through submitit; the project's folder has to be on the shared disk.

    Args:
        jobs: how many runs may be in Slurm's queue at once.
        options: more of submitit's parameters, e.g. {"slurm_partition": "gpu"}.
        cluster: "slurm"; "local" runs the same jobs as processes here, which is good for a try.
    """

    def __init__(self, *, jobs: int = 64, options: Mapping[str, Any] | None = None, cluster: str = "slurm") -> None:
        try:
            import submitit
        except ImportError:
            raise EmbedlabError("submitit is not installed", remedy="pip install 'embedlab[cluster]'") from None
        self.jobs, self.shared, self._options = jobs, True, dict(options or {})
        try:
            self._executor = submitit.AutoExecutor(folder=paths.cache_dir() / "slurm", cluster=cluster)
        except RuntimeError as error:
            raise ParameterError(str(error), remedy="Run this where sbatch is, or take --engine local") from None
        self._running: dict[str, tuple[Any, Plan]] = {}
        self._files: dict[Path, tuple[str, ProgressFile]] = {}

    def submit(self, job: Job) -> None:
        limits = job.limits
        wanted = {
            "timeout_min": round(limits.wall_min) + 5 if limits.wall_min else None,  # we end it first, and say so
            "cpus_per_task": limits.cpus or None,
            "gpus_per_node": job.gpus or None,
            "mem_gb": round(limits.mem_gb) + 1 if limits.mem_gb else None,
        }
        self._executor.update_parameters(
            name=job.plan.run_id, **{k: v for k, v in wanted.items() if v is not None}, **self._options
        )
        self._running[job.plan.run_id] = (self._executor.submit(_slurm_task, job), job.plan)

    def poll(self) -> Iterator[Outcome]:
        for run_id, (job, plan) in list(self._running.items()):
            if job.done():
                del self._running[run_id]
                yield _slurm_outcome(job, plan)

    def reports(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for _, plan in self._running.values():
            for path in plan.folder.glob(f"attempts/*/scratch/{execute.REPORTS}"):
                _, file = self._files.setdefault(path, (plan.run_id, ProgressFile(path)))
                yield from ((plan.run_id, report) for report in file.news())

    def cancel(self, run_id: str) -> None:
        if run_id in self._running:
            self._running[run_id][0].cancel()

    def close(self) -> None:
        for job, _ in self._running.values():
            job.cancel()


def _slurm_outcome(job: Any, plan: Plan) -> Outcome:
    if error := job.exception():
        cause = "cancelled" if job.state.upper().startswith("CANCEL") else "infrastructure"
        return Outcome(plan.run_id, plan.folder, cause=cause, detail=str(error).strip()[-600:])
    return job.result()


def make_engine(
    kind: str,
    *,
    jobs: int,
    scheduler: str | None = None,
    shared: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Engine:
    """The engine that `embedlab sweep --engine KIND` asks for.

    Raises:
        ParameterError: an unknown kind, or options that do not go with it.
    """
    if (kind == "dask") != (scheduler is not None):
        raise ParameterError("--engine dask and --scheduler belong together", remedy="Give both or neither")
    makers: dict[str, Callable[[], Engine]] = {
        "local": lambda: DaskEngine(jobs=jobs, gpus=count_gpus()),
        "dask": lambda: DaskEngine(scheduler, jobs=jobs, shared=shared),
        "slurm": lambda: SlurmEngine(jobs=jobs, options=options),
    }
    if kind not in makers:
        raise ParameterError(f"there is no engine {kind!r}", remedy=f"Engines are {', '.join(makers)}", field="engine")
    return makers[kind]()


def count_gpus() -> int:
    """Graphics processors of this machine, without importing torch into the driver."""
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def wait(engine: Engine, seconds: float = 0.2) -> None:
    """Pause between two polls."""
    time.sleep(seconds)
