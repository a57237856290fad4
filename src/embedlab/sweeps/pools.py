"""Pools of workers for functions that do not belong to a run: this process, local Dask workers, or a Dask cluster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from embedlab.errors import EmbedlabError

if TYPE_CHECKING:
    from distributed import Client

Work = TypeVar("Work")
Outcome = TypeVar("Outcome")

LOOPBACK = "127.0.0.1"
PRELOADED = ("distributed", __name__)
AHEAD = 2  # items per worker that are submitted at a time
ATTEMPTS = 3  # of an item whose result was lost with a connection; Dask itself counts workers that died


class SerialPool:
    """Does all work in this process, one item after the other."""

    workers = 1

    def run(
        self, function: Callable[[Work], Outcome], items: Iterable[Work]
    ) -> Iterator[tuple[Work, Outcome | Exception]]:
        """Yield (item, result or error) of every item."""
        for item in items:
            try:
                yield item, function(item)
            except Exception as error:
                yield item, error


class DaskPool:
    """Does the work on the workers of a Dask scheduler.

    Args:
        client: a connected client.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def workers(self) -> int:
        """Number of workers that are connected, at least 1."""
        return max(1, len(self._client.scheduler_info(n_workers=-1)["workers"]))

    def run(
        self, function: Callable[[Work], Outcome], items: Iterable[Work]
    ) -> Iterator[tuple[Work, Outcome | Exception]]:
        """Yield (item, result or error) in the order in which they end; lost workers are replaced by others.

        A few items per worker are submitted at a time, so a long list needs little memory.

        Raises:
            EmbedlabError: the scheduler does not answer any more.
        """
        from distributed import as_completed

        source, running = iter(items), dict[Any, tuple[Work, int]]()

        def submit(item: Work, attempt: int = 1) -> Any:
            future = self._client.submit(function, item, pure=False, retries=0)
            running[future] = (item, attempt)
            return future

        results = as_completed([submit(item) for item in islice(source, AHEAD * self.workers)])
        try:
            for future in results:
                item, attempt = running.pop(future)
                outcome = _outcome_of(future)
                if _is_lost(outcome) and attempt < ATTEMPTS:
                    results.add(submit(item, attempt + 1))
                    continue
                yield item, outcome
                for following in islice(source, 1):
                    results.add(submit(following))
        finally:
            self._client.cancel(list(running))


def _outcome_of(future: Any) -> Any:
    if future.status in ("cancelled", "lost"):
        remedy = "Restart it, then run the same command again; finished work is kept"
        raise EmbedlabError("the Dask scheduler does not answer any more", remedy=remedy)
    return future.exception() if future.status == "error" else future.result()


def _is_lost(outcome: object) -> bool:
    return isinstance(outcome, Exception) and type(outcome).__name__ in (
        "CommClosedError",
        "TimeoutError",
    )


@contextmanager
def worker_pool(
    workers: int = 1, scheduler: str | None = None, preload: Sequence[str] = ()
) -> Iterator[SerialPool | DaskPool]:
    """Give a pool for a block.

    Args:
        workers: Dask workers to start on this machine, reachable from this machine only; 1 works in this process.
        scheduler: address of a Dask scheduler whose workers do the work instead.
        preload: see `local_cluster`.

    Raises:
        EmbedlabError: the package `distributed` is not installed.
        ParameterError: no scheduler answers at that address.
    """
    if scheduler is None and workers <= 1:
        yield SerialPool()
        return
    if scheduler is not None:
        from embedlab.sweeps.dask import connect

        with connect(scheduler) as client:
            yield DaskPool(client)
        return
    with local_cluster(workers, preload) as client:
        yield DaskPool(client)


@contextmanager
def local_cluster(workers: int, preload: Sequence[str] = ()) -> Iterator[Client]:
    """Start Dask workers on the loopback address, each a process with one thread; a worker that dies is replaced.

    Args:
        workers: number of processes.
        preload: modules that the work needs. Workers are copies of a process that has imported them, so one that died
            is replaced in half a second.

    Raises:
        EmbedlabError: the package `distributed` is not installed.
    """
    if find_spec("distributed") is None:
        remedy = "Install it: pip install 'embedlab[cluster]'; or use --workers 1"
        raise EmbedlabError("the package distributed is not installed", remedy=remedy)
    import dask
    from distributed import Client, LocalCluster
    from distributed.utils import get_mp_context

    for name in ("distributed", "distributed.nanny", "distributed.scheduler", "distributed.worker"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # problems come back with the items
    settings = {
        "distributed.worker.daemon": False,
        "distributed.worker.multiprocessing-method": "forkserver",
        # A cluster gives up a worker that is away for longer; its nanny needs more time on a busy machine.
        "distributed.deploy.lost-worker-timeout": "1 hour",
        # A worker has one item at a time; others in its queue would count as suspects when it is killed.
        "distributed.scheduler.worker-saturation": 1.0,
    }
    with dask.config.set(settings):
        get_mp_context().set_forkserver_preload([*PRELOADED, *preload])  # its first call sets another list
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host=LOOPBACK,
            dashboard_address=None,
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def worker_device() -> str | None:
    """Return the device of this worker: one GPU each, in turn; None for the best available one."""
    import torch

    with suppress(ValueError, ImportError):
        from distributed import get_worker

        name = str(get_worker().name)
        if name.isdigit() and torch.cuda.device_count() > 1:
            return f"cuda:{int(name) % torch.cuda.device_count()}"
    return None
