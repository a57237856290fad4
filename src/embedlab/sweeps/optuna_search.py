"""Optuna chooses the values; our records remember them.

A study is replayed from the records each time: its sampler is seeded, trials are asked for in batches of fixed size and
told in order, so the same records lead to the same next values. Nothing else is stored, so nothing else can be damaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from embedlab.sweeps.spec import Search, Space


class Study:
    """Values to try, batch after batch.

    Args:
        search: what is searched and by which number.
    """

    def __init__(self, search: Search) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=search.seed)
        self._study = optuna.create_study(sampler=sampler, direction=search.direction)
        self._failed = optuna.trial.TrialState.FAIL
        self._search, self._asked = search, 0
        self._trials: list[Any] = []

    def ask(self) -> list[dict[str, Any]]:
        """Values of the next batch; empty when all trials were made."""
        count = min(self._search.batch, self._search.trials - self._asked)
        self._asked += count
        self._trials = [self._study.ask() for _ in range(count)]
        return [
            {name: _suggest(trial, name, space) for name, space in self._search.space.items()} for trial in self._trials
        ]

    def tell(self, scores: Sequence[float | None]) -> None:
        """What the batch scored, in the order it was asked for; None for a trial that failed."""
        for trial, score in zip(self._trials, scores, strict=True):
            if score is None:
                self._study.tell(trial, state=self._failed)
            else:
                self._study.tell(trial, score)


def _suggest(trial: Any, name: str, space: Space) -> Any:
    if space.choices is not None:
        return trial.suggest_categorical(name, space.choices)
    if isinstance(space.low, int) and isinstance(space.high, int):
        return trial.suggest_int(name, space.low, space.high, log=space.log)
    return float(f"{trial.suggest_float(name, space.low, space.high, log=space.log):.4g}")  # an id that can be typed
