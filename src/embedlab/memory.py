"""The memory of a process, as the system reports it."""

from __future__ import annotations

from pathlib import Path


def peak_bytes(process: int | str = "self") -> int:
    """Return the peak so far of a running process's resident memory; 0 where the system does not report it.

    `ru_maxrss` is larger on Linux: it also counts what the parent had when it started the process.

    Args:
        process: its number; this process when not given.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:  # it has ended, or this is not Linux
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
