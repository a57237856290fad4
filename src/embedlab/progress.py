"""Progress that can be seen everywhere: in a notebook, on a terminal, from the process that drives a run.

A driver names a file in `EMBEDLAB_PROGRESS`; every report is appended there as one JSON line, and the
driver shows it. Without a driver the same report feeds a tqdm bar (a widget in JupyterLab, text elsewhere).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

ENVIRONMENT_NAME = "EMBEDLAB_PROGRESS"


def report(stage: str, step: int = 0, total: int | None = None, **numbers: float | str | None) -> None:
    """Append one line to the driver's progress file; does nothing without a driver.

    Args:
        stage: what is being done, e.g. "train".
        step, total: how far it is, in units of the stage.
        **numbers: whatever is worth a glance: loss, dev metric, rate.
    """
    path = os.environ.get(ENVIRONMENT_NAME)
    if not path:
        return
    line = json.dumps({"time": time.time(), "stage": stage, "step": step, "total": total, **numbers})
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")


def track(items: Iterable[Item], stage: str, total: int | None = None, every_s: float = 0.5) -> Iterator[Item]:
    """Yield `items` while showing how far they are, at most one report per `every_s` seconds."""
    total = len(items) if total is None and hasattr(items, "__len__") else total
    bar, last = _bar(stage, total), 0.0
    for step, item in enumerate(items):
        now = time.monotonic()
        if now - last >= every_s:
            last = now
            report(stage, step, total)
        yield item
        bar.update(1)
    bar.close()
    report(stage, total or 0, total)


def _bar(stage: str, total: int | None):  # noqa: ANN202 - tqdm has no public base type
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=stage, leave=False, disable=ENVIRONMENT_NAME in os.environ)
