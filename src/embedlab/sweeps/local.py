"""Execute runs on this machine: one thread per run in progress, each with a process of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from embedlab.runs import execute
from embedlab.runs.causes import CANCELLED, INFRASTRUCTURE
from embedlab.runs.execute import Outcome
from embedlab.sweeps.job import Job


class LocalEngine:
    """Runs side by side on this machine; see `engine.Engine`.

    Args:
        jobs: how many at a time.
        gpus: names of the GPUs that the runs share, as in CUDA_VISIBLE_DEVICES.
    """

    def __init__(self, jobs: int = 1, *, gpus: Sequence[str] = ()) -> None:
        self.jobs = jobs
        self.gpus: int | None = len(gpus)
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="run")
        self._free_gpus = list(gpus)
        self._gpus_changed = threading.Condition()
        self._running: dict[str, tuple[Future[Outcome], Job]] = {}
        self._cancelled: set[str] = set()  # tokens of jobs
        self._reports: queue.SimpleQueue[tuple[str, Mapping[str, Any]]] = queue.SimpleQueue()

    def submit(self, job: Job) -> None:
        """Queue a run; runs start in the order in which they are submitted."""
        self._running[job.plan.run_id] = (self._pool.submit(self._perform, job), job)

    def poll(self) -> Iterator[Outcome]:
        """Yield the runs that have ended since the last call."""
        for run_id, (future, job) in list(self._running.items()):
            if future.done():
                del self._running[run_id]
                yield _outcome_of(future, job)

    def reports(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield (run id, progress report) of everything reported since the last call."""
        while not self._reports.empty():
            yield self._reports.get()

    def cancel(self, run_id: str) -> None:
        """Stop a run, or remove it from the queue."""
        if run_id in self._running:
            future, job = self._running[run_id]
            future.cancel()  # has an effect only if the run has not started
            self._cancelled.add(job.token)
            with self._gpus_changed:
                self._gpus_changed.notify_all()

    def close(self) -> None:
        """Cancel what still runs; its threads end when the runs have been stopped."""
        for run_id in self._running:
            self.cancel(run_id)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _perform(self, job: Job) -> Outcome:
        run_id = job.plan.run_id

        def report(content: Mapping[str, Any]) -> None:
            self._reports.put((run_id, content))

        with self._reserved_gpus(job) as names:
            return execute.perform(
                job.plan,
                limits=replace(job.limits, gpus=names),
                warm=True,
                on_report=report,
                cancelled=lambda: job.token in self._cancelled,
            )

    @contextmanager
    def _reserved_gpus(self, job: Job) -> Iterator[str | None]:
        """Wait for as many free GPUs as the job needs; yield their names, None if it needs none.

        A job that is cancelled while it waits gets none, and ends as soon as it starts.
        """
        with self._gpus_changed:
            self._gpus_changed.wait_for(lambda: len(self._free_gpus) >= job.gpus or job.token in self._cancelled)
            count = 0 if job.token in self._cancelled else job.gpus
            names, self._free_gpus = self._free_gpus[:count], self._free_gpus[count:]
        try:
            yield ",".join(names) or None  # None: the first that this machine has
        finally:
            with self._gpus_changed:
                self._free_gpus += names
                self._gpus_changed.notify_all()


def _outcome_of(future: Future[Outcome], job: Job) -> Outcome:
    """Return how a run ended; an exception here is a problem of the machine, not of the notebook."""
    plan = job.plan
    if future.cancelled():
        return Outcome(plan.run_id, plan.folder, cause=CANCELLED)
    if error := future.exception():
        detail = f"{type(error).__name__}: {error}"
        return Outcome(plan.run_id, plan.folder, cause=INFRASTRUCTURE, detail=detail)
    return future.result()
