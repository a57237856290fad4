"""Progress reports: a bar in a notebook or on a terminal, or lines in a file that the driver of a run reads.

A driver sets `EMBEDLAB_PROGRESS` to a file. Every report is appended to it as one JSON line, and the driver shows it.
Without a driver there is a tqdm bar, or a line now and then where the output is neither a terminal nor a notebook.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

Item = TypeVar("Item")

ENVIRONMENT_NAME = "EMBEDLAB_PROGRESS"
EVERY_S = 0.5  # seconds between two reports of a stage
LINE_EVERY_S = 10.0  # seconds between two lines in a log file
_budget: tuple[Callable[[], float], float] | None = None


def show_budget(spent: Callable[[], float], seconds: float) -> None:
    """Add the time spent and the budget of the run to every report from now on.

    Args:
        spent: returns the seconds since the start.
        seconds: the budget.
    """
    global _budget
    _budget = spent, seconds


def report(stage: str, step: int = 0, total: int | None = None, **numbers: float | str | None) -> None:
    """Append a report to the driver's progress file. Does nothing without a driver.

    Args:
        stage: what the run is doing, e.g. "train".
        step: steps done.
        total: steps in all; None if unknown.
        **numbers: anything to show: loss, dev metric, rate.
    """
    path = os.environ.get(ENVIRONMENT_NAME)
    if not path:
        return
    if _budget:
        spent, seconds = _budget
        numbers |= {"spent": spent(), "budget": seconds}
    line = json.dumps({"time": time.time(), "stage": stage, "step": step, "total": total, **numbers})
    with suppress(OSError), open(path, "a", encoding="utf-8") as file:  # a full disk must not end a run here
        file.write(line + "\n")


STOP = "stop"  # a file of this name next to the progress file asks a training to stop at a checkpoint
STOP_EVERY_S = 0.2  # seconds between two looks for it
_looked = 0.0


def stop_requested() -> bool:
    """Whether the driver asks the run's training to stop at a checkpoint, because time is nearly up."""
    global _looked
    path = os.environ.get(ENVIRONMENT_NAME)
    if not path or time.monotonic() - _looked < STOP_EVERY_S:
        return False
    _looked = time.monotonic()
    return (Path(path).parent / STOP).exists()


_earlier_s = 0.0


def add_earlier_seconds(seconds: float) -> None:
    """Count time that an earlier attempt at this run spent on a training, which now continues or is already done."""
    global _earlier_s
    _earlier_s += seconds


def earlier_seconds() -> float:
    """Return the time counted so far; the difference of two calls belongs to the block between them."""
    return _earlier_s


def track(items: Iterable[Item], stage: str, total: int | None = None) -> Iterator[Item]:
    """Yield `items` and report progress, at most twice per second."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with counted(stage, total) as advance:
        for item in items:
            yield item
            advance(1)


@contextmanager
def counted(stage: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Report the progress of a block, at most twice per second.

    Args:
        stage: what the block does.
        total: steps in all; None if unknown.

    Yields:
        A function that the block calls with the number of steps that it has done since the last call.
    """
    step, reported, last = 0, 0, time.monotonic()
    report(stage, 0, total)

    def advance(steps: int) -> None:
        nonlocal step, reported, last
        step += steps
        bar.update(steps)
        if time.monotonic() - last >= EVERY_S:
            reported, last = step, time.monotonic()
            report(stage, step, total)

    with closing(_bar(stage, total)) as bar:
        yield advance
    if reported != (total or step) or not reported:
        report(stage, total or step, total)


class _Lines:
    """Progress in a log file: a line now and then instead of a bar."""

    def __init__(self, stage: str, total: int | None) -> None:
        self._stage, self._total, self._step = stage, total, 0
        self._began = self._printed = time.monotonic()

    def update(self, steps: int) -> None:
        """Count steps, and print a line if the last one is old enough."""
        self._step += steps
        now = time.monotonic()
        if now - self._printed >= LINE_EVERY_S:
            self._printed = now
            share = f"/{self._total} ({self._step / self._total:.0%})" if self._total else ""
            print(f"{self._stage} · {self._step}{share}, {now - self._began:.0f} s", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Print nothing more: short stages leave no line."""


def _bar(stage: str, total: int | None) -> Any:
    from tqdm.auto import tqdm

    driven = ENVIRONMENT_NAME in os.environ
    if not driven and not sys.stderr.isatty() and not _in_notebook():
        return _Lines(stage, total)
    return tqdm(total=total, desc=stage, leave=False, disable=driven)


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which shows bars although it has no terminal."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None
