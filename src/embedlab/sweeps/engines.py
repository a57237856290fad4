"""Where the runs of a sweep are executed: this machine, a Dask cluster, Slurm. An engine submits, polls and cancels.

Every engine runs a task at least once. That a run counts once is not its promise but that of the record, which only the
first committer can create (see `records.commit`).
"""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from embedlab.errors import EmbedlabError, ParameterError
from embedlab.runs import execute
from embedlab.runs.execute import Outcome, Plan
from embedlab.sweeps import remote
from embedlab.sweeps.job import Job

TOPIC = "embedlab-progress"
CONNECT_S = 10.0  # to a scheduler; as long again before one that was lost is given up

# Tokens of submissions that were cancelled; a worker's own copy, filled by the driver through the scheduler.
_CANCELLED: set[str] = set()

# This machine's graphics processors that no run holds; Dask counts them too, so that no run waits here for one.
_FREE_GPUS: queue.SimpleQueue[str] = queue.SimpleQueue()


class Engine(Protocol):
    """What a sweep needs of the place where its runs are executed.

    Attributes:
        jobs: how many runs share this machine; 0 when they run elsewhere.
        gpus: graphics processors that its runs share; None where that is not known.
    """

    jobs: int
    gpus: int | None

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


def _dask_task(job: Job, shared: bool, here: bool) -> Outcome | remote.Delivery:
    """On a worker: perform the run; where no disk is shared, hand back what it left."""
    from distributed import get_worker

    worker, run_id = get_worker(), job.plan.run_id

    def tell(report: Mapping[str, Any]) -> None:
        worker.log_event(TOPIC, {**report, "run": run_id})

    perform = execute.perform if shared else remote.perform_away
    with _lent(job.gpus if here else 0) as names:
        limits = replace(job.limits, gpus=names)
        return perform(job.plan, limits=limits, warm=True, on_report=tell, cancelled=lambda: job.token in _CANCELLED)


@contextmanager
def _lent(count: int) -> Iterator[str | None]:
    """Names of so many free graphics processors; None for none, so that what the environment says stands."""
    held = [_FREE_GPUS.get_nowait() for _ in range(count)]
    try:
        yield ",".join(held) or None
    finally:
        for name in held:
            _FREE_GPUS.put(name)


class DaskEngine:
    """A Dask cluster: one in this process by default, or a real one behind a scheduler's address.

    Args:
        scheduler: e.g. "tcp://host:8786"; None makes a cluster of `jobs` threads in this process, each of which
            watches over one run (a run is always a process of its own).
        jobs: runs side by side on this machine.
        gpus: names of this machine's graphics processors, which its runs share out; a real cluster has a worker for
            each.
        shared: whether workers write to the same disk as this driver; otherwise records and small files come back.
    """

    def __init__(
        self, scheduler: str | None = None, *, jobs: int = 1, gpus: Sequence[str] = (), shared: bool = False
    ) -> None:
        self._local, self._shared = scheduler is None, shared or scheduler is None
        self.jobs, self.gpus = (jobs, len(gpus)) if self._local else (0, None)
        self._client = _client(scheduler, jobs, len(gpus))
        self._running: dict[str, tuple[Any, Job]] = {}
        self._reports: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        self._client.subscribe_topic(TOPIC, lambda event: self._reports.put(event[1]))
        for name in gpus:
            _FREE_GPUS.put(name)

    def submit(self, job: Job) -> None:
        """Hand a run over.

        Raises:
            EmbedlabError: the scheduler is gone.
        """
        from distributed.client import ClosedClientError

        sent = job if self._shared else remote.portable(job)
        resources = {"gpu": job.gpus} if job.gpus and self._local else None
        options = {"pure": False, "priority": -job.order, "resources": resources, "retries": 0}
        try:
            future = self._client.submit(_dask_task, sent, self._shared, self._local, **options)
        except ClosedClientError:
            remedy = "Start it again, then run the same command: what is finished stays"
            raise EmbedlabError("the Dask scheduler does not answer any more", remedy=remedy) from None
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
        while self._local and not _FREE_GPUS.empty():
            _FREE_GPUS.get()


def _client(scheduler: str | None, jobs: int, gpus: int) -> Any:
    import logging
    import warnings

    import dask
    from distributed import Client, LocalCluster

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters comes back as an outcome
    warnings.filterwarnings("ignore", "Sending large graph")  # a model that an earlier stage left, on purpose
    if scheduler is None:
        forever = {"distributed.scheduler.worker-ttl": None}  # else a laptop that slept has lost its worker
        with dask.config.set(forever):
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
        return Client(scheduler, timeout=CONNECT_S)
    except (OSError, TimeoutError, ValueError) as error:
        remedy = "Start one with `dask scheduler`, and workers with `dask worker ADDRESS`"
        raise ParameterError(f"no Dask scheduler answers at {scheduler} ({error})", remedy=remedy) from None


def _outcome_of(future: Any, plan: Plan) -> Outcome:
    """What came of a task; a worker or a scheduler that was lost is nobody's mistake."""
    if future.status == "finished":
        result = future.result()
        return remote.receive(result, plan) if isinstance(result, remote.Delivery) else result
    if future.status == "cancelled":  # by Dask: we cancel runs, not futures
        detail = "the connection to the Dask scheduler was lost"
    else:
        error = future.exception()
        detail = f"{type(error).__name__}: {error}"
    return Outcome(plan.run_id, plan.folder, cause="infrastructure", detail=detail)


def make_engine(
    kind: str,
    *,
    jobs: int = 0,
    scheduler: str | None = None,
    shared: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Engine:
    """The engine that `embedlab sweep --engine KIND` asks for; with `jobs` 0, as many as are usual there.

    Raises:
        ParameterError: an unknown kind, or options that do not go with it.
    """
    if (kind == "dask") != (scheduler is not None):
        raise ParameterError("--engine dask and --scheduler belong together", remedy="Give both or neither")
    from embedlab.sweeps import slurm

    makers: dict[str, Callable[[], Engine]] = {
        "local": lambda: DaskEngine(jobs=jobs or 1, gpus=visible_gpus()),
        "dask": lambda: DaskEngine(scheduler, shared=shared),
        "slurm": lambda: slurm.SlurmEngine(jobs=jobs or slurm.JOBS, options=options),
    }
    if kind not in makers:
        raise ParameterError(f"there is no engine {kind!r}", remedy=f"Engines are {', '.join(makers)}", field="engine")
    return makers[kind]()


def visible_gpus() -> list[str]:
    """Names of the graphics processors that runs here may use, without importing torch into the driver."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in named.split(",") if name.strip()]
    return [str(number) for number, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]
