"""The progress display of a run: a progress bar on a terminal, plain lines on a pipe."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from embedlab.escaping import terminal

PLAIN_EVERY_S = 5.0  # between two lines of the same stage
PLAIN_STAGE_S = 1.0  # between any two lines: short stages must not flood a log
NUMBERS = ("loss", "dev")


class ProgressFile:
    """Reads the reports of `embedlab.progress` while they are written; an incomplete line waits for its rest."""

    def __init__(self, path: Path) -> None:
        self.path, self._position, self._rest = path, 0, ""

    def news(self) -> list[dict[str, Any]]:
        """Reports since the last call."""
        if not self.path.exists():
            return []
        with open(self.path, encoding="utf-8", errors="replace") as file:
            file.seek(self._position)
            text = self._rest + file.read()
            self._position = file.tell()
        *lines, self._rest = text.split("\n")
        return [report for line in lines if (report := _report(line))]


def _report(line: str) -> dict[str, Any] | None:
    """The report in a line; None for a line that is incomplete or damaged, which must not stop a run."""
    try:
        report = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(report, dict) or not isinstance(report.get("stage"), str):
        return None
    numbers = [report.get("step"), report.get("time"), report.get("total") or 0]  # the total may be unknown
    return report if "total" in report and all(map(_is_finite, numbers)) else None


def _is_finite(value: Any) -> TypeGuard[float]:
    return type(value) in (int, float) and math.isfinite(value)


def can_redraw(console: Console) -> bool:
    """Whether a bar can be drawn again and again; a terminal with `TERM=dumb`, such as an editor's, shows lines."""
    return console.is_terminal and not console.is_dumb_terminal


def new_bar(console: Console) -> Progress:
    """A progress bar with a column for the main values."""
    numbers = TextColumn("{task.fields[numbers]}", markup=False)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), numbers)
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True)


class LiveView:
    """Shows stage, step, rate and time left of one run.

    Args:
        title: the beginning of every line, e.g. the notebook.
        console: the output; standard error by default.
        bar: a progress bar that several runs share; its owner starts and stops it.
    """

    def __init__(self, title: str, console: Console | None = None, bar: Progress | None = None) -> None:
        self.title = title
        self.console = console or Console(file=sys.stderr)
        self._owns_bar = bar is None
        self._bar = bar or (new_bar(self.console) if can_redraw(self.console) else None)
        self._task: Any = None
        self._stage, self._stage_began, self._first_step, self._printed = "", 0.0, 0, 0.0

    def __enter__(self) -> LiveView:
        if self._bar and self._owns_bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar and self._owns_bar:
            self._bar.stop()
        elif self._bar and self._task is not None:
            self._bar.remove_task(self._task)

    def show(self, report: Mapping[str, Any]) -> None:
        """Show one report."""
        new_stage = report["stage"] != self._stage
        line = self.line(report)
        if self._bar:
            self._move_bar(self._bar, report, self._numbers(report), new_stage)
        elif time.monotonic() - self._printed >= (PLAIN_STAGE_S if new_stage else PLAIN_EVERY_S):
            self._printed = time.monotonic()
            self.console.print(line, highlight=False, markup=False)

    def line(self, report: Mapping[str, Any]) -> str:
        """The line that describes a report; its rate is that since the first report of the stage."""
        if report["stage"] != self._stage:
            self._stage, self._stage_began, self._first_step = report["stage"], report["time"], report["step"]
        return terminal(f"{self.title} · {report['stage']} {self._numbers(report)}".rstrip())

    def _move_bar(self, bar: Progress, report: Mapping[str, Any], numbers: str, new_stage: bool) -> None:
        if new_stage and self._task is not None:
            bar.remove_task(self._task)
        text = terminal(f"{self.title} · {report['stage']}")
        if new_stage or self._task is None:
            self._task = bar.add_task(text, total=report["total"], numbers=numbers)
        bar.update(self._task, completed=report["step"], total=report["total"], numbers=numbers)

    def _numbers(self, report: Mapping[str, Any]) -> str:
        """step/total, rate, time left, the main values, and the time spent of the budget."""
        parts = []
        if report["total"]:
            parts.append(f"{report['step']}/{report['total']}")
            seconds, done = report["time"] - self._stage_began, report["step"] - self._first_step
            if done > 0 and seconds > 0:
                remaining_s = (report["total"] - report["step"]) * seconds / done
                parts.append(f"{done / seconds:.2g}/s, {remaining_s:.0f} s left")
        parts += [f"{name} {report[name]:.4g}" for name in NUMBERS if isinstance(report.get(name), int | float)]
        parts += [f"{name} {float(report[name]):.4g}" for name in NUMBERS if _is_number(report.get(name))]
        if _is_finite(spent := report.get("spent")) and _is_finite(budget := report.get("budget")):
            parts.append(f"{spent / 60:.1f} of {budget / 60:g} min")
        return ", ".join(parts)


def _is_number(value: Any) -> bool:
    """The Trainer logs some numbers as text."""
    return isinstance(value, str) and value.replace(".", "", 1).replace("e-", "", 1).isdigit()
