"""The processes of one attempt: found by the attempt's name in their environment, however they were started.

A tree of parents and children is not enough: what a notebook started outlives its kernel as nobody's child.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress

import psutil

ATTEMPT_VARIABLE = "EMBEDLAB_ATTEMPT"  # the driver names the attempt, so that it finds it after a kill
NOTEBOOK_VARIABLE = "EMBEDLAB_NOTEBOOK"  # and the file that runs, which may have changed since
GRACE_S = 2.0  # between asking a process to end and ending it
POLL_S = 0.5


def members(attempt: str) -> list[psutil.Process]:
    """All processes of an attempt but the calling one."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # gone meanwhile, or somebody else's
            if process.pid != os.getpid() and process.environ().get(ATTEMPT_VARIABLE) == attempt:
                found.append(process)
    return found


def end(attempt: str) -> None:
    """End all processes of an attempt but the calling one: asked first, then made to."""
    family = members(attempt)
    for process in family:
        with suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(family, timeout=GRACE_S)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()


def end_with(driver: int) -> None:
    """End this process and the rest of its attempt as soon as its parent `driver` is gone, however it went."""
    threading.Thread(target=_outlive, args=(driver,), daemon=True).start()


def _outlive(driver: int) -> None:
    while os.getppid() == driver:
        time.sleep(POLL_S)
    end(os.environ[ATTEMPT_VARIABLE])
    os._exit(1)
