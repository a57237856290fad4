"""Whether the driver of an attempt is alive, on this machine or on another one that shares the disk.

On this machine the process is looked up. On another one, only changes count: the driver touches its progress file every
second, and the observer measures with its own clock how long ago it last saw a change. Dates of files are never
compared with a clock, because the clocks of two machines may differ.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

FILE = "driver.json"  # in the scratch folders of an attempt: which process drives it
REPORTS = "progress.jsonl"  # in an attempt's scratch folder; its time of change is the heartbeat
BEAT_EVERY_S = 1.0
LEASE_S = 60.0  # a driver on another machine is dead when nothing has changed for so long
FIRST_LOOK_S = 5.0  # how long to wait for a first change

RUNNING, ENDED, UNDECIDED = "running", "ended", "undecided"


def this_host() -> str:
    """A name of this machine that is new after every start of it, and in every container."""
    parts = [socket.gethostname()]
    with suppress(OSError):  # not Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def claim(folder: Path) -> None:
    """Write into a folder that this process uses it. A full disk must not stop the run."""
    with suppress(OSError):
        content = {"host": this_host(), "pid": os.getpid(), "started": _start_of(os.getpid())}
        (folder / FILE).write_text(json.dumps(content), encoding="utf-8")


def beat(scratch: Path) -> None:
    """Show observers on other machines that this process is alive."""
    with suppress(OSError):  # no file yet, or a disk that cannot be written to
        os.utime(scratch / REPORTS)


def is_alive(folder: Path) -> bool | None:
    """Whether the process that claimed a folder is alive; None if it is on another machine, or unknown."""
    if (driver := _driver_of(folder)) is None or driver.host != this_host():
        return None
    return _start_of(driver.pid) == driver.started


def host_of(folder: Path) -> str:
    """The name of the machine whose process claimed a folder; "" if unknown."""
    driver = _driver_of(folder)
    return driver.host.partition(" ")[0] if driver else ""


class _Driver(NamedTuple):
    """What `claim` wrote: the machine, see `this_host`, the process, and when it started."""

    host: str
    pid: int
    started: str


def _driver_of(folder: Path) -> _Driver | None:
    """The process that claimed a folder; None if there is no whole claim."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return _Driver(str(content["host"]), int(content["pid"]), content["started"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _start_of(pid: int) -> str:
    """When a process started, in a form that a changed clock does not alter; "" if there is no such process."""
    if sys.platform == "linux":
        with suppress(OSError, IndexError):
            state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return "" if state == "Z" else fields[18]
        return ""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    return ""


class Observer:
    """Remembers what it saw of each attempt, and when."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[tuple[int, int], float, bool]] = {}  # state of the file, when, whether it changed

    def state(self, scratch: Path) -> str:
        """RUNNING, ENDED, or UNDECIDED during the first seconds of watching an attempt on another machine."""
        try:
            status = (scratch / REPORTS).stat()
        except OSError:
            return ENDED
        alive = is_alive(scratch)
        if alive is not None:
            return RUNNING if alive else ENDED
        now, content = time.monotonic(), (status.st_mtime_ns, status.st_size)
        last_content, since, changed = self._seen.get(scratch, (content, now, False))
        if content != last_content:
            since, changed = now, True
        self._seen[scratch] = (content, since, changed)
        if changed:
            return RUNNING if now - since < LEASE_S else ENDED
        return UNDECIDED if now - since < FIRST_LOOK_S else ENDED
