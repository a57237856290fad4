"""Execute runs on a Dask cluster. Needs the extra `cluster`."""

from __future__ import annotations

import logging
import queue
import warnings
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from embedlab.errors import EmbedlabError, ParameterError
from embedlab.runs import execute
from embedlab.runs.causes import INFRASTRUCTURE
from embedlab.runs.execute import Outcome, Plan
from embedlab.sweeps import remote
from embedlab.sweeps.job import Job

if TYPE_CHECKING:
    from distributed import Client

TOPIC = "embedlab-progress"
CONNECT_TIMEOUT_S = 10.0  # for the first connection, and for reconnecting to a scheduler that was lost

# Tokens of cancelled jobs: every worker has its own copy, which the driver fills through the scheduler.
_CANCELLED: set[str] = set()


async def _mark_cancelled(token: str) -> None:
    """Note a cancelled job on a worker. Async, because `Client.run` only skips waiting for coroutines."""
    _CANCELLED.add(token)


def _perform(job: Job) -> Outcome | remote.Delivery:
    """Execute a run on a worker; without a shared disk, return its files too."""
    from distributed import get_worker

    worker, run_id = get_worker(), job.plan.run_id

    def report(content: Mapping[str, Any]) -> None:
        worker.log_event(TOPIC, {**content, "run": run_id})

    def cancelled() -> bool:
        return job.token in _CANCELLED

    options: dict[str, Any] = {"limits": job.limits, "warm": True, "on_report": report, "cancelled": cancelled}
    if isinstance(job.plan, remote.PortablePlan):
        return remote.perform_away(job.plan, **options)
    return execute.perform(job.plan, **options)


class DaskEngine:
    """Runs on the workers of a Dask scheduler; see `engine.Engine`.

    Give every worker one thread, and one GPU if runs need GPUs.

    Args:
        scheduler: its address, e.g. "tcp://host:8786"; with "tls://", Dask takes certificates from its configuration.
        shared: whether workers share a disk with this process. If not, records and small files are sent back.

    Raises:
        EmbedlabError: the package `distributed` is not installed.
        ParameterError: no scheduler answers at that address.
    """

    jobs: int = 0
    gpus: int | None = None

    def __init__(self, scheduler: str, *, shared: bool = False) -> None:
        self._client = connect(scheduler)
        self._shared = shared
        self._running: dict[str, tuple[Any, Job]] = {}
        self._stands: dict[str, remote.Stand] = {}
        self._reports: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        self._client.subscribe_topic(TOPIC, lambda event: self._reports.put(event[1]))

    def submit(self, job: Job) -> None:
        """Queue a run.

        Raises:
            EmbedlabError: the connection to the scheduler is lost.
        """
        from distributed.client import ClosedClientError

        sent = job if self._shared else remote.portable(job)
        try:
            future = self._client.submit(_perform, sent, pure=False, priority=-job.order, retries=0)
        except ClosedClientError:
            remedy = "Restart it, then run the same command again; finished runs are kept"
            raise EmbedlabError("the Dask scheduler does not answer any more", remedy=remedy) from None
        self._running[job.plan.run_id] = (future, job)
        if not self._shared:
            self._stands[job.plan.run_id] = remote.Stand(job.plan)

    def poll(self) -> Iterator[Outcome]:
        """Yield the runs that have ended since the last call."""
        for run_id, (future, job) in list(self._running.items()):
            stand = self._stands.get(run_id)
            if future.done():
                del self._running[run_id]
                if stand:
                    self._stands.pop(run_id).remove()
                yield _outcome_of(future, job.plan)
            elif stand and stand.is_to_end():
                self.cancel(run_id)

    def reports(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield (run id, progress report) of everything reported since the last call."""
        while not self._reports.empty():
            report = self._reports.get()
            if stand := self._stands.get(report["run"]):
                stand.show(report)
            yield report["run"], report

    def cancel(self, run_id: str) -> None:
        """Stop a run. If it has not started yet, it ends as soon as it starts."""
        if run_id in self._running:
            self._client.run(_mark_cancelled, self._running[run_id][1].token, wait=False)

    def close(self) -> None:
        """Disconnect from the scheduler."""
        for stand in self._stands.values():
            stand.remove()
        self._client.close()


def connect(scheduler: str) -> Client:
    """Connect to a Dask scheduler.

    Raises:
        EmbedlabError: the package `distributed` is not installed.
        ParameterError: no scheduler answers at that address.
    """
    if find_spec("distributed") is None:
        remedy = "Install it on this machine and on every worker: pip install 'embedlab[cluster]'"
        raise EmbedlabError("the package distributed is not installed", remedy=remedy)
    from distributed import Client

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # problems of a run come back in its outcome
    warnings.filterwarnings("ignore", "Sending large graph")  # models of earlier stages travel with a job on purpose
    try:
        return Client(scheduler, timeout=CONNECT_TIMEOUT_S)
    except (OSError, TimeoutError, ValueError) as error:
        remedy = (
            "Start one with `dask scheduler --host 127.0.0.1 --no-dashboard`, and workers with `dask worker ADDRESS`"
        )
        problem = f"no Dask scheduler answers at {scheduler} ({error})"
        raise ParameterError(problem, remedy=remedy, field="--scheduler") from None


def _outcome_of(future: Any, plan: Plan) -> Outcome:
    """Return how a run ended; a lost worker or scheduler counts as an interruption."""
    if future.status == "finished":
        result = future.result()
        return remote.receive(result, plan) if isinstance(result, remote.Delivery) else result
    if future.status == "cancelled":  # by Dask itself: this engine cancels runs, not futures
        detail = "the connection to the Dask scheduler was lost"
    else:
        error = future.exception()
        detail = f"{type(error).__name__}: {error}"
    return Outcome(plan.run_id, plan.folder, cause=INFRASTRUCTURE, detail=detail)
