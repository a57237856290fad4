"""Hyperparameter search with Optuna, repeatable from the records of finished runs.

Every call replays the study: the sampler has a fixed seed, and trials are suggested and reported in batches of fixed
size, in the same order. The same records therefore give the same next values. No other state is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from embedlab.sweeps.spec import Search, Space


class Study:
    """Suggests values to try, one batch at a time.

    Args:
        search: the parameters to search and the metric that decides.
    """

    def __init__(self, search: Search) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=search.seed)
        self._study = optuna.create_study(sampler=sampler, direction=search.direction)
        self._failed = optuna.trial.TrialState.FAIL
        self._search, self._suggested = search, 0
        self._trials: list[Any] = []

    def ask(self) -> list[dict[str, Any]]:
        """Return the values of the next batch; empty after the last trial."""
        count = min(self._search.batch, self._search.trials - self._suggested)
        self._suggested += count
        self._trials = [self._study.ask() for _ in range(count)]
        return [
            {name: _suggest(trial, name, space) for name, space in self._search.space.items()} for trial in self._trials
        ]

    def tell(self, scores: Sequence[float | None]) -> None:
        """Report the scores of the batch, in the order of `ask`; None for a trial that failed."""
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
    value = trial.suggest_float(name, space.low, space.high, log=space.log)
    return float(f"{value:.4g}")  # four digits keep tables readable
