"""What a run may use, and the reason to end it when it uses more."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from embedlab.runs import processes

TIMEOUT, OUT_OF_MEMORY, CANCELLED = "timeout", "out of memory", "cancelled"
CANCEL = "cancel"  # a file of this name in an attempt's scratch folder asks its driver to end it
MEMORY_EVERY_S = 1.0
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", processes.CPUS_VARIABLE)


@dataclass(frozen=True)
class Limits:
    """What a run may use; 0 is no limit.

    Attributes:
        wall_min: minutes from start to end.
        mem_gb: memory of all its processes together, in GiB.
        cpus: threads that its libraries compute with.
        gpus: the graphics processors it sees, as CUDA_VISIBLE_DEVICES lists them; None leaves that as it is.
    """

    wall_min: float = 0
    mem_gb: float = 0
    cpus: int = 0
    gpus: str | None = None

    def environment(self) -> dict[str, str]:
        """What tells a run's libraries their share."""
        threads = dict.fromkeys(THREAD_VARIABLES, str(self.cpus)) if self.cpus else {}
        return threads if self.gpus is None else {**threads, "CUDA_VISIBLE_DEVICES": self.gpus}


class Guard:
    """Watches one attempt.

    Args:
        attempt, session: see `processes.members`.
        limits: what it may use.
        cancelled: whether somebody wants it ended.
    """

    def __init__(self, attempt: str, session: int | None, limits: Limits, cancelled: Callable[[], bool]) -> None:
        self._attempt, self._session, self._limits, self._cancelled = attempt, session, limits, cancelled
        self._deadline = time.monotonic() + limits.wall_min * 60 if limits.wall_min else float("inf")
        self._next_look = 0.0
        self._oom_kills = oom_kills()

    def reason_to_end(self) -> str:
        """Why the attempt must end now; "" while all is well."""
        if self._cancelled():
            return CANCELLED
        if time.monotonic() > self._deadline:
            return TIMEOUT
        return OUT_OF_MEMORY if self._too_big() else ""

    def _too_big(self) -> bool:
        if not self._limits.mem_gb or time.monotonic() < self._next_look:
            return False
        self._next_look = time.monotonic() + MEMORY_EVERY_S
        held = processes.memory_bytes(processes.members(self._attempt, self._session))
        return held > self._limits.mem_gb * 2**30

    def system_ran_out(self) -> bool:
        """Whether the system has killed anything for want of memory since the attempt began."""
        return oom_kills() > self._oom_kills


def oom_kills() -> int:
    """How often the system has killed for want of memory; 0 where it does not say."""
    for path, name in (("/sys/fs/cgroup/memory.events", "oom_kill"), ("/proc/vmstat", "oom_kill")):
        with suppress(OSError, ValueError):
            lines = (line.split() for line in Path(path).read_text().splitlines())
            return next(int(value) for key, value in lines if key == name)
    return 0
