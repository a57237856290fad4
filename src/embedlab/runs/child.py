"""The process that executes one notebook: started with `python -m embedlab.runs.child JOB.json`, or forked.

Papermill receives the values with their types (its command line would turn 007 into 7 and 1e-05 into text). The kernel
uses the same Python interpreter. All processes end when the driver ends.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from embedlab.runs import processes

_one_at_a_time = threading.Lock()  # multiprocessing keeps its children in one unguarded set


class Child(Protocol):
    """The process, and the session it leads when it was forked."""

    session: int | None

    def exit_code(self) -> int | None:
        """None while it runs; negative when a signal ended it."""
        ...

    def wait(self) -> None: ...


class ColdChild:
    """A new interpreter."""

    session: int | None = None

    def __init__(self, job: Path, environment: Mapping[str, str], log: Path) -> None:
        with open(log, "w", encoding="utf-8") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "embedlab.runs.child", str(job)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def exit_code(self) -> int | None:
        return self._process.poll()

    def wait(self) -> None:
        self._process.wait()


class WarmChild:
    """A fork of the preloaded process, which the first warm child starts with the driver's environment at that time."""

    def __init__(self, job: Path, environment: Mapping[str, str], log: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        with _one_at_a_time, _without_interrupts():
            context.set_forkserver_preload(["embedlab.runs.forkserver_preload"])
            self._process = context.Process(target=forked, args=(job, environment, log))
            self._process.start()
        self.session: int | None = self._process.pid

    def exit_code(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> None:
        self._process.join()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let processes that this thread starts block Ctrl-C, which a terminal sends to them too; see the preload."""
    original_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, original_mask)


def start(job: Path, environment: Mapping[str, str], log: Path, *, warm: bool) -> Child:
    """Start the process for a job file.

    Args:
        job: JSON with notebook, output, values, scratch, cwd and driver.
        environment: variables on top of the driver's environment.
        log: where its output goes.
        warm: fork it from a preloaded process, where the platform allows it.
    """
    from embedlab.runs import kernels

    return (WarmChild if warm and kernels.can_fork() else ColdChild)(job, {**os.environ, **environment}, log)


def forked(job: Path, environment: Mapping[str, str], log: Path) -> None:
    """Do in a fork of the preloaded process what `main` does in a new interpreter, with this `environment`."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the preloaded process ignores it
    _write_to(log)
    os.environ.clear()
    os.environ.update(environment)
    from embedlab.runs.kernels import ForkedKernel

    waiting = ForkedKernel()  # before the first thread starts
    driver = multiprocessing.parent_process()
    assert driver is not None  # this process is a fork
    processes.end_unless(driver.is_alive)
    execute(json.loads(job.read_text()), waiting)


def _write_to(log: Path) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)


def main() -> None:
    """Execute the notebook that the job file describes; the record, not the exit status, tells how it went."""
    job = json.loads(Path(sys.argv[1]).read_text())
    processes.end_unless(lambda: os.getppid() == job["driver"])
    execute(job, None)


def execute(job: Mapping[str, Any], waiting: Any) -> None:
    """Run papermill with the kernel process that is `waiting`, or with a new one."""
    from embedlab.runs import kernels

    scratch = Path(job["scratch"])
    kernels.write_kernelspec(scratch)
    import papermill

    logging.getLogger("papermill").setLevel(logging.ERROR)  # it warns of every parameter with a type
    papermill.execute_notebook(
        job["notebook"],
        job["output"],
        parameters=job["values"],
        cwd=job["cwd"],
        kernel_name="python3",
        language="python",  # some notebooks have lost their metadata
        kernel_manager_class=kernels.manager_class(scratch, waiting),
        progress_bar=False,
        autosave_cell_every=30,
    )


if __name__ == "__main__":
    main()
