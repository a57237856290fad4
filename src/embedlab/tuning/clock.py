"""The time budget of a tuning run."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Counts down from a number of minutes.

    Args:
        minutes: the budget.
        now: returns the current time in seconds.
    """

    def __init__(self, minutes: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._start, self.seconds = now, now(), 60 * minutes

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return self._now() - self._start

    @property
    def left(self) -> float:
        """Seconds until the budget is used up; 0 after that."""
        return max(0.0, self.seconds - self.spent)
