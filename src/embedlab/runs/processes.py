"""Find all processes of one attempt, and end them with their driver.

The tree of parents and children is not enough: a process that a notebook started can outlive its kernel as an orphan.
A started process has the attempt's name in its environment. A forked process shows the environment of the process that
it was forked from, but belongs to the attempt's session.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

ATTEMPT_VARIABLE = "EMBEDLAB_ATTEMPT"  # name of the attempt; the driver finds its processes by it
NOTEBOOK_VARIABLE = "EMBEDLAB_NOTEBOOK"  # the file that runs; the original may have changed since
RUN_ID_VARIABLE = "EMBEDLAB_RUN_ID"  # the id that the driver has planned
CPUS_VARIABLE = "EMBEDLAB_CPUS"  # threads of a run; OMP_NUM_THREADS comes too late for a fork
GRACE_S = 0.5  # between SIGTERM and SIGKILL
POLL_S = 0.2
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def members(attempt: str, session: int | None = None) -> list[psutil.Process]:
    """All processes of an attempt except the calling one.

    Args:
        attempt: the attempt's name.
        session: the session of its first process, if that was forked.
    """
    family = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # it ended meanwhile, or belongs to another user
            if process.pid != os.getpid() and _belongs(process, attempt, session):
                family.append(process)
    return family


def _belongs(process: psutil.Process, attempt: str, session: int | None) -> bool:
    if process.status() == psutil.STATUS_ZOMBIE:
        return False
    in_session = session is not None and os.getsid(process.pid) == session
    return in_session or process.environ().get(ATTEMPT_VARIABLE) == attempt


def memory_bytes(processes: list[psutil.Process]) -> int:
    """Memory of processes, in bytes; a page that several of them share counts once."""
    total = 0
    for process in processes:
        with suppress(psutil.Error, OSError):
            usage = process.memory_full_info()
            total += getattr(usage, "pss", usage.uss)
    return total


def end(attempt: str, session: int | None = None) -> None:
    """End all processes of an attempt except the calling one: first SIGTERM, then SIGKILL."""
    family = members(attempt, session)
    for process in family:
        with suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(family, timeout=GRACE_S)
    for process in {*alive, *members(attempt, session)}:  # some may have started meanwhile
        with suppress(psutil.Error):
            process.kill()


def end_unless(alive: Callable[[], bool]) -> None:
    """End this process and the rest of its attempt as soon as `alive` returns False for its driver."""
    threading.Thread(target=_outlive, args=(alive,), daemon=True).start()


def _outlive(alive: Callable[[], bool]) -> None:
    while alive():
        time.sleep(POLL_S)
    end(os.environ[ATTEMPT_VARIABLE], os.getsid(0))
    os._exit(1)


def die_with_parent() -> None:
    """Let the system kill this process when its parent ends, even during a call that never returns (Linux only)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
