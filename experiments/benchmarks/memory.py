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
    """A size from the kernel's status page, e.g. VmRSS, VmHWM or RssAnon; None where there is no such page."""
    if not STATUS.exists():
        return None
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None


def resident_bytes() -> int | None:
    """Resident memory now."""
    return status_bytes("VmRSS")


def forget_peak() -> None:
    """Start the high-water mark anew, so that what loading took for a moment does not hide what the work takes."""
    if CLEAR.exists():
        CLEAR.write_text("5")


def peak_bytes() -> int:
    """The highest resident memory since `forget_peak`, or since the process began where that cannot be reset."""
    return status_bytes("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def own_bytes() -> int:
    """Memory of the process's own now: heap and stacks, without mapped file pages, which the kernel can drop."""
    return status_bytes("RssAnon") or 0


@dataclass
class OwnPeak:
    """The highest `own_bytes` seen."""

    highest: int = 0

    def look(self) -> None:
        """Take one sample."""
        self.highest = max(self.highest, own_bytes())


@contextmanager
def own_peak() -> Iterator[OwnPeak]:
    """Sample `own_bytes` while the body runs, as the kernel keeps no high-water mark of it."""
    peak, done = OwnPeak(), threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE_S):
            peak.look()

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
        peak.look()
