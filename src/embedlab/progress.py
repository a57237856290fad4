"""Progress reports: a bar in a notebook or on a terminal, or lines in a file that the driver of a run reads.

A driver sets `EMBEDLAB_PROGRESS` to a file. Every report is appended to it as one JSON line, and the driver shows it.
Without a driver there is a tqdm bar.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

Item = TypeVar("Item")

ENVIRONMENT_NAME = "EMBEDLAB_PROGRESS"
EVERY_S = 0.5  # seconds between two reports of `track`


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
    line = json.dumps({"time": time.time(), "stage": stage, "step": step, "total": total, **numbers})
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")


def track(items: Iterable[Item], stage: str, total: int | None = None) -> Iterator[Item]:
    """Yield `items` and report progress, at most twice per second."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    bar, last = _bar(stage, total), 0.0
    for step, item in enumerate(items):
        now = time.monotonic()
        if now - last >= EVERY_S:
            last = now
            report(stage, step, total)
        yield item
        bar.update(1)
    bar.close()
    report(stage, total or 0, total)


def _bar(stage: str, total: int | None) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=stage, leave=False, disable=ENVIRONMENT_NAME in os.environ)
