"""The time budget of a tuning run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from embedlab import progress


class Clock:
    """Counts down from a number of minutes.

    All durations of a tuning run are measured with it, so that they are compared with the budget in the same unit.

    Args:
        minutes: the budget.
        now: returns the current time in seconds; `time.process_time` counts CPU time.
        start: the time when counting begins; None is now.
    """

    def __init__(self, minutes: float, now: Callable[[], float] = time.monotonic, start: float | None = None) -> None:
        self._now, self.seconds = now, 60 * minutes
        self._start = now() if start is None else start

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return self._now() - self._start

    @property
    def left(self) -> float:
        """Seconds until the budget is used up; 0 after that."""
        return max(0.0, self.seconds - self.spent)

    def show(self) -> None:
        """Show the time spent and the budget in every progress report from now on."""
        progress.show_budget(lambda: self.spent, self.seconds)

    @contextmanager
    def timed(self) -> Iterator[Callable[[], float]]:
        """Give a function that returns the seconds since the block began."""
        start = self.spent
        yield lambda: self.spent - start
