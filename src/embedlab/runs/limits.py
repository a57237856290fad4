"""Limits of a run, and the check that ends it when it exceeds them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedlab.runs import processes
from embedlab.runs.causes import CANCELLED, OUT_OF_MEMORY, TIMEOUT

GRACE_S, GRACE_SHARE = 60.0, 0.25  # how long before its time limit a training is asked to stop, at most
CANCEL = "cancel"  # a file of this name in an attempt's scratch folder asks its driver to end it
MEMORY_EVERY_S = 1.0
GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", processes.CPUS_VARIABLE)


@dataclass(frozen=True)
class Limits:
    """Limits of a run; 0 means no limit.

    Attributes:
        wall_min: minutes from start to end.
        mem_gb: memory of all its processes, in GiB.
        cpus: number of threads of its libraries.
        gpus: the GPUs it sees, as in CUDA_VISIBLE_DEVICES; None shows it the first of this machine's GPUs, as many as
            its parameters ask for.
    """

    wall_min: float = 0
    mem_gb: float = 0
    cpus: int = 0
    gpus: str | None = None

    def environment(self, values: Mapping[str, Any]) -> dict[str, str]:
        """The environment variables that set these limits.

        Args:
            values: the run's parameters.
        """
        threads = dict.fromkeys(THREAD_VARIABLES, str(self.cpus)) if self.cpus else {}
        gpus = visible_gpus()[: max(1, asked_gpus(values))] if self.gpus is None else [self.gpus]
        return {**threads, GPU_VARIABLE: ",".join(gpus)} if gpus else threads


def asked_gpus(values: Mapping[str, Any]) -> int:
    """How many GPUs a run's parameters ask for (`engine.gpus`); 0 if they say nothing.

    Args:
        values: parameter -> value.
    """
    engine = values.get("engine")
    return int(engine.get("gpus", 0)) if isinstance(engine, Mapping) else 0


def visible_gpus() -> list[str]:
    """Return the names of this machine's GPUs that runs may use, without importing torch."""
    if (names := os.environ.get(GPU_VARIABLE)) is not None:
        return [name for name in names.split(",") if name.strip()]
    return [str(number) for number, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]


class Guard:
    """Watches one attempt.

    Args:
        attempt, session: see `processes.members`.
        limits: its limits.
        cancelled: whether someone asked to cancel it.
        ask_to_stop: called once, shortly before the time limit, so that a training can write a checkpoint and stop.

    Attributes:
        asked: whether it was asked to stop.
        peak_bytes: the largest memory that was measured; 0 without a limit of memory.
    """

    def __init__(
        self,
        attempt: str,
        session: int | None,
        limits: Limits,
        cancelled: Callable[[], bool],
        ask_to_stop: Callable[[], object] = lambda: None,
    ) -> None:
        self._attempt, self._session, self._limits, self._cancelled = attempt, session, limits, cancelled
        seconds = limits.wall_min * 60 if limits.wall_min else float("inf")
        self._deadline = time.monotonic() + seconds
        self._ask_at = self._deadline - min(GRACE_S, GRACE_SHARE * seconds)
        self._ask_to_stop, self.asked = ask_to_stop, False
        self._next_check = 0.0
        self._oom_kills = oom_kills()
        self.peak_bytes = 0

    def reason_to_end(self) -> str:
        """Why the attempt must end now; "" when it may go on."""
        if self._cancelled():
            return CANCELLED
        if time.monotonic() > self._deadline:
            return TIMEOUT
        if time.monotonic() > self._ask_at and not self.asked:
            self.asked = True
            self._ask_to_stop()
        return OUT_OF_MEMORY if self._too_big() else ""

    def _too_big(self) -> bool:
        if not self._limits.mem_gb or time.monotonic() < self._next_check:
            return False
        self._next_check = time.monotonic() + MEMORY_EVERY_S
        used = processes.memory_bytes(processes.members(self._attempt, self._session))
        self.peak_bytes = max(self.peak_bytes, used)
        return used > self._limits.mem_gb * 2**30

    def system_ran_out(self) -> bool:
        """Whether the system has killed a process for lack of memory since the attempt began."""
        return oom_kills() > self._oom_kills


def oom_kills() -> int:
    """How many processes the system has killed for lack of memory; 0 where it does not count them."""
    for path, name in (("/sys/fs/cgroup/memory.events", "oom_kill"), ("/proc/vmstat", "oom_kill")):
        with suppress(OSError, ValueError):
            lines = (line.split() for line in Path(path).read_text().splitlines())
            return next(int(value) for key, value in lines if key == name)
    return 0
