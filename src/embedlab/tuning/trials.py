"""Search the settings of a contrastive fine-tune by successive halving, within a time budget.

Five settings train for one unit of time each. The best two train again from the base model with three units, and the
better of them with nine, each time with a whole learning-rate schedule (successive halving: Jamieson and Talwalkar,
"Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016). The first five settings are
fixed: they are known to work on some data. Time that is left goes to a longer training of the best setting. If that
has trained completely, as on small data, Optuna's Tree-structured Parzen Estimator (Bergstra et al., NeurIPS 2011)
suggests five more settings, and so on. If the time is so short that a unit would be too little to learn
anything, two settings take part, or only the first one, which then gets all the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

FACTOR = 3  # more time from one rung to the next
SURVIVORS = (5, 2, 1)  # settings that train in each rung
SHORTER = (SURVIVORS, (2, 1), (1,))  # for less and less time
MIN_SHARE = 0.5  # of a training's time that must be left for it to start
RATES = (1e-5, 4e-4)
BATCH_SIZES = (32, 64, 128)
HARD_NEGATIVES = (0, 1, 3)
LINEAR_STARTS = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Setting:
    """Settings of one contrastive fine-tune; `linear_start` as in `training.contrastive.train.ContrastiveParams`."""

    learning_rate: float
    batch_size: int
    hard_negatives: int
    linear_start: float = 0.0

    def __str__(self) -> str:
        start = f", {self.linear_start:.0%} of the linear map first" if self.linear_start else ""
        return f"rate {self.learning_rate:.2g}, batch {self.batch_size}, {self.hard_negatives} hard negatives{start}"


FIRST = (
    Setting(1e-4, 64, 1, 0.5),
    Setting(2e-4, 128, 1, 0.5),
    Setting(1e-4, 64, 1, 0.0),
    Setting(5e-5, 32, 1, 0.5),
    Setting(1e-4, 64, 0, 0.5),
)


@dataclass(frozen=True)
class Outcome:
    """One training.

    Attributes:
        dev: best value on dev.
        is_complete: whether more time would change nothing, because the training has its most epochs.
    """

    dev: float
    is_complete: bool


Train = Callable[[Setting, float], Outcome]  # called with a setting and seconds


def units(survivors: Sequence[int]) -> int:
    """Units of time for one round: 20 for five settings, of which two and then one go on."""
    return sum(count * FACTOR**rung for rung, count in enumerate(survivors))


def search_settings(train: Train, left: Callable[[], float], *, shortest: float = 0.0, seed: int = 0) -> int:
    """Train with different settings until the time is used up.

    Args:
        train: trains from the base model with a setting in a number of seconds.
        left: returns the seconds that are left.
        shortest: seconds of the shortest training that makes sense.
        seed: of the suggestions.

    Returns:
        The number of settings; 0 if the time does not suffice for one.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=len(FIRST))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for setting in FIRST:
        study.enqueue_trial(asdict(setting))
    survivors = next((counts for counts in SHORTER if left() / units(counts) >= shortest), None)
    if survivors is None:
        return 0
    unit, tried = left() / units(survivors), 0
    while unit and (not tried or left() >= unit * survivors[0]):  # time passes before the first training
        trials = [study.ask() for _ in range(survivors[0])]
        settings = [_suggest(trial) for trial in trials]
        outcomes = _halve(settings, train, left, unit, survivors)
        for trial, outcome in zip(trials, outcomes, strict=True):
            study.tell(trial, outcome.dev)
        tried += len(trials)
        best = max(range(len(settings)), key=lambda index: outcomes[index].dev)
        if not outcomes[best].is_complete:
            if left() >= MIN_SHARE * unit * FACTOR ** (len(survivors) - 1):
                train(settings[best], left())
            break
    return tried


def _halve(
    settings: list[Setting], train: Train, left: Callable[[], float], unit: float, survivors: Sequence[int]
) -> list[Outcome]:
    """Run one round of successive halving; return the outcome of each setting's longest training."""
    outcomes: dict[int, Outcome] = {}
    alive = list(range(len(settings)))
    for rung, count in enumerate(survivors):
        alive = sorted(alive, key=lambda index: -outcomes[index].dev if rung else index)[:count]
        for index in alive:
            seconds = unit * FACTOR**rung
            if rung and (outcomes[index].is_complete or left() < MIN_SHARE * seconds):
                continue
            outcomes[index] = train(settings[index], min(seconds, left()) if rung else seconds)
    return [outcomes[index] for index in range(len(settings))]


def _suggest(trial: Any) -> Setting:
    return Setting(
        trial.suggest_float("learning_rate", *RATES, log=True),
        trial.suggest_categorical("batch_size", BATCH_SIZES),
        trial.suggest_categorical("hard_negatives", HARD_NEGATIVES),
        trial.suggest_categorical("linear_start", LINEAR_STARTS),
    )
