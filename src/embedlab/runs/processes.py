"""The processes of one attempt, found however they were started, and the promise that they end with their driver.

A tree of parents and children is not enough: what a notebook started outlives its kernel as nobody's child. A process
that was started carries the attempt's name in its environment; one that was forked shows the environment of the process
it was forked from, but is in the attempt's session.
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

ATTEMPT_VARIABLE = "EMBEDLAB_ATTEMPT"  # the driver names the attempt, so that it finds it after a kill
NOTEBOOK_VARIABLE = "EMBEDLAB_NOTEBOOK"  # and the file that runs, which may have changed since
CPUS_VARIABLE = "EMBEDLAB_CPUS"  # threads that a run may use; for a fork OMP_NUM_THREADS comes too late
GRACE_S = 0.5  # between asking a process to end and ending it
POLL_S = 0.2
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def members(attempt: str, session: int | None = None) -> list[psutil.Process]:
    """All processes of an attempt but the calling one.

    Args:
        attempt: the attempt's name.
        session: the session that its first process leads, where it was forked.
    """
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # gone meanwhile, or somebody else's
            if process.pid != os.getpid() and _belongs(process, attempt, session):
                found.append(process)
    return found


def _belongs(process: psutil.Process, attempt: str, session: int | None) -> bool:
    if process.status() == psutil.STATUS_ZOMBIE:
        return False
    in_session = session is not None and os.getsid(process.pid) == session
    return in_session or process.environ().get(ATTEMPT_VARIABLE) == attempt


def memory_bytes(processes: list[psutil.Process]) -> int:
    """What processes hold together; a page that several share counts once, by shares."""
    total = 0
    for process in processes:
        with suppress(psutil.Error, OSError):
            held = process.memory_full_info()
            total += getattr(held, "pss", held.uss)
    return total


def end(attempt: str, session: int | None = None) -> None:
    """End all processes of an attempt but the calling one: asked first, then made to."""
    family = members(attempt, session)
    for process in family:
        with suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(family, timeout=GRACE_S)
    for process in {*alive, *members(attempt, session)}:  # some may have been born meanwhile
        with suppress(psutil.Error):
            process.kill()


def end_unless(alive: Callable[[], bool]) -> None:
    """End this process and the rest of its attempt as soon as its driver is no longer `alive`, however it went."""
    threading.Thread(target=_outlive, args=(alive,), daemon=True).start()


def _outlive(alive: Callable[[], bool]) -> None:
    while alive():
        time.sleep(POLL_S)
    end(os.environ[ATTEMPT_VARIABLE], os.getsid(0))
    os._exit(1)


def die_with_parent() -> None:
    """Let the system kill this process when its parent ends, even amid a call that never returns (Linux only)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
