"""Memory of this process, as Linux counts it."""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
SAMPLE_S = 0.005


def status_bytes(field: str) -> int | None:
    """Read a size from /proc/self/status, e.g. VmRSS, VmHWM or RssAnon; None if that file does not exist."""
    if not STATUS.exists():
        return None
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None


def resident_bytes() -> int | None:
    """Return the current resident memory."""
    return status_bytes("VmRSS")


def forget_peak() -> None:
    """Reset the peak of resident memory, which would otherwise include the peak of loading."""
    if CLEAR.exists():
        CLEAR.write_text("5")


def peak_bytes() -> int:
    """Return the peak of resident memory since `forget_peak`, or since the process started if it cannot be reset."""
    return status_bytes("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def own_bytes() -> int:
    """Return heap and stack memory, without memory-mapped files, whose pages the kernel can drop."""
    return status_bytes("RssAnon") or 0


@dataclass
class OwnPeak:
    """The highest value of `own_bytes`."""

    highest: int = 0

    def sample(self) -> None:
        """Take one sample."""
        self.highest = max(self.highest, own_bytes())


@contextmanager
def own_peak() -> Iterator[OwnPeak]:
    """Sample `own_bytes` while the body runs, because the kernel does not record its peak."""
    peak, done = OwnPeak(), threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE_S):
            peak.sample()

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
        peak.sample()
