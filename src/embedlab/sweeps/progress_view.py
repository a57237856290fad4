"""Shows the progress of a sweep: on a terminal a bar per run and one for the sweep, in a pipe plain lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from embedlab.escaping import terminal
from embedlab.runs.execute import Outcome
from embedlab.runs.run_progress import LiveView, can_redraw, new_bar


class SweepView:
    """Shows a sweep on a terminal or in a pipe; see `driver.View`.

    Args:
        title: the sweep's name.
    """

    def __init__(self, title: str) -> None:
        self.console = Console(file=sys.stderr)
        self.title, self._total, self._done, self._failed = title, 0, 0, 0
        self._bar = new_bar(self.console) if can_redraw(self.console) else None
        self._sum = self._bar.add_task(title, total=0, numbers="") if self._bar else None
        self._views: dict[str, LiveView] = {}
        self._began: dict[str, float] = {}

    def __enter__(self) -> SweepView:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def begin(self, total: int, done: int) -> None:
        """Add `total` runs, of which `done` are finished already."""
        self._total, self._done = self._total + total, self._done + done
        self._say(f"{total} runs, {done} finished before")
        self._show_sum()

    def show(self, run_id: str, report: Mapping[str, Any]) -> None:
        """Show a progress report of a run."""
        if run_id not in self._views:
            self._began[run_id] = time.monotonic()
            self._views[run_id] = LiveView(run_id, self.console, self._bar)
        self._views[run_id].show(dict(report))

    def ended(self, outcome: Outcome, note: str = "") -> None:
        """Show how a run ended; a `note` that begins with "try" means that the run is repeated."""
        if view := self._views.pop(outcome.run_id, None):
            view.__exit__()
        seconds = time.monotonic() - self._began.pop(outcome.run_id, time.monotonic())
        is_repeated = note.startswith("try")
        self._done += not is_repeated
        self._failed += outcome.record is None and not is_repeated
        self._say(self._line(outcome, seconds, note))
        self._show_sum()

    def _line(self, outcome: Outcome, seconds: float, note: str) -> str:
        count = f"[{self._done}/{self._total}] {outcome.run_id}"
        if outcome.record:
            state = "finished elsewhere" if outcome.skipped else f"finished in {seconds:.0f} s"
        else:
            state = f"failed: {outcome.cause}"
        first_line = next((line for line in reversed(outcome.detail.splitlines()[:2]) if line.strip()), "")
        return " · ".join(text for text in (count, state, first_line[:120], note) if text)

    def _say(self, text: str) -> None:
        self.console.print(terminal(f"{self.title} · {text}"), highlight=False, markup=False, soft_wrap=True)

    def _show_sum(self) -> None:
        if self._bar and self._sum is not None:
            failed = f", {self._failed} failed" if self._failed else ""
            numbers = f"{self._done}/{self._total}{failed}"
            self._bar.update(self._sum, completed=self._done, total=self._total, numbers=numbers)
