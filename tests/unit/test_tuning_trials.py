"""The search for settings on a clock that the test moves: who gets how much time, and when it ends."""

from __future__ import annotations

import math

import pytest

from embedlab.tuning.clock import Clock
from embedlab.tuning.trials import FIRST, SURVIVORS, Outcome, Setting, search_settings, units

UNITS = units(SURVIVORS)
BUDGET = 100.0 * UNITS


class Trainer:
    """Trains in no time on a clock of its own; `quality` gives the dev value of a setting and its seconds."""

    def __init__(self, quality, complete_after=math.inf):
        self.quality, self.complete_after, self.spent = quality, complete_after, 0.0
        self.trainings: list[tuple[Setting, float]] = []

    def __call__(self, setting, seconds):
        self.spent += seconds
        self.trainings.append((setting, seconds))
        return Outcome(self.quality(setting, seconds), is_complete=seconds >= self.complete_after)

    def left(self):
        return BUDGET - self.spent

    def seconds_of(self, setting):
        return [seconds for trained, seconds in self.trainings if trained == setting]


def test_the_best_two_of_five_go_on_and_then_the_better_one():
    trainer = Trainer(lambda setting, seconds: 1 - FIRST.index(setting) / 10)
    assert search_settings(trainer, trainer.left) == len(FIRST)
    assert [trainer.seconds_of(setting) for setting in FIRST] == [[100, 300, 900], [100, 300], [100], [100], [100]]
    assert trainer.left() == 0


def test_the_order_of_the_settings_does_not_matter():
    trainer = Trainer(lambda setting, seconds: FIRST.index(setting) / 10)
    search_settings(trainer, trainer.left)
    assert [trainer.seconds_of(setting) for setting in FIRST] == [[100], [100], [100], [100, 300], [100, 300, 900]]


def test_a_setting_that_falls_behind_with_more_time_is_not_trained_longest():
    def quality(setting, seconds):  # the last one learns fast and stops early
        return {FIRST[4]: 0.5, FIRST[1]: seconds / 1000}.get(setting, 0)

    trainer = Trainer(
        lambda setting, seconds: 0.9 if (setting, seconds) == (FIRST[1], 300) else quality(setting, seconds)
    )
    search_settings(trainer, trainer.left)
    assert trainer.seconds_of(FIRST[1]) == [100, 300, 900] and trainer.seconds_of(FIRST[4]) == [100, 300]


def test_a_complete_training_is_not_repeated_and_others_are_suggested_in_its_time():
    trainer = Trainer(lambda setting, seconds: 1 - setting.learning_rate, complete_after=1)
    tried = search_settings(trainer, trainer.left)
    assert trainer.seconds_of(FIRST[0]) == [100] and tried == len(trainer.trainings) == UNITS
    assert len({setting for setting, _ in trainer.trainings}) > 2 * len(FIRST)


def test_time_that_is_left_goes_to_the_best_setting():
    trainer = Trainer(lambda setting, seconds: float(setting == FIRST[3]))

    def fast(setting, seconds):
        outcome = trainer(setting, seconds)
        trainer.spent -= seconds / 2  # takes half of the time that it should
        return outcome

    assert search_settings(fast, trainer.left) == len(FIRST)
    assert trainer.seconds_of(FIRST[3]) == [100, 300, 900, BUDGET / 2] and len(trainer.trainings) == 9


def test_a_slow_trainer_does_not_start_what_it_cannot_finish():
    trainer = Trainer(lambda setting, seconds: 0.5)

    def slow(setting, seconds):
        outcome = trainer(setting, seconds)
        trainer.spent += 2 * seconds  # takes three times as long as it should
        return outcome

    search_settings(slow, trainer.left)
    assert [seconds for _, seconds in trainer.trainings] == [100] * 5 + [300]


def test_units_by_hand():
    assert (units((5, 2, 1)), units((2, 1)), units((1,))) == (5 + 6 + 9, 2 + 3, 1)


def test_with_less_time_fewer_settings_take_part():
    def seconds(shortest):
        trainer = Trainer(lambda setting, seconds: 1 - FIRST.index(setting) / 10)
        tried = search_settings(trainer, trainer.left, shortest=shortest)
        assert tried == len({setting for setting, _ in trainer.trainings}) and trainer.left() >= 0
        return [trained for _, trained in trainer.trainings]

    assert seconds(100) == [100] * 5 + [300] * 2 + [900]
    assert seconds(101) == seconds(400) == [400, 400, 1200]
    assert seconds(401) == seconds(2000) == [2000]
    assert seconds(2001) == []


def test_the_only_setting_trains_although_time_passes_before_it():
    trainer, asked = Trainer(lambda setting, seconds: 0.5), []

    def left():
        asked.append(1)
        return trainer.left() - 0.001 * len(asked)

    assert search_settings(trainer, left, shortest=2000) == 0
    assert search_settings(trainer, left, shortest=1990) == 1
    assert trainer.seconds_of(FIRST[0]) == [pytest.approx(2000, abs=0.1)]


def test_no_time_means_no_training():
    trainer = Trainer(lambda setting, seconds: 0.5)
    assert search_settings(trainer, lambda: 0.0) == 0 and not trainer.trainings


def test_the_same_seed_suggests_the_same_settings():
    def settings(seed):
        trainer = Trainer(lambda setting, seconds: setting.learning_rate, complete_after=1)
        search_settings(trainer, trainer.left, seed=seed)
        return [setting for setting, _ in trainer.trainings]

    assert settings(3) == settings(3) != settings(4)


def test_clock_counts_down_to_zero():
    times = iter([10.0, 10.0, 40.0, 40.0, 200.0])
    clock = Clock(2, now=lambda: next(times))
    assert clock.left == 120 and clock.spent == 30 and clock.left == 90 and clock.left == 0


def test_clock_counts_from_its_start_and_measures_blocks():
    times = iter([7.0, 8.0, 11.0])
    clock = Clock(1, now=lambda: next(times), start=5.0)
    assert clock.spent == 2
    with clock.timed() as seconds:
        assert seconds() == 3
