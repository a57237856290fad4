"""Speeds of retrievers on a clock that the test moves: systems take turns, warm-ups do not count."""

from __future__ import annotations

import pytest

from embedlab.runs import retrievers


class Machine:
    """A clock; `work` takes so many seconds, and all work takes `slowness` times as long."""

    def __init__(self, monkeypatch):
        self.now, self.slowness, self.calls = 0.0, 1.0, []
        monkeypatch.setattr(retrievers.time, "perf_counter", lambda: self.now)

    def work(self, name, seconds):
        def run(subject):
            self.calls.append((name, subject))
            self.now += self.slowness * seconds

        return run


def test_queries_are_answered_by_all_systems_in_turns(monkeypatch):
    machine = Machine(monkeypatch)
    answers = {"fast": machine.work("fast", 0.001), "slow": machine.work("slow", 0.003)}
    queries = ["a", "b", "c", "d", "e", "f", "g"]
    assert retrievers.milliseconds_in_turns(answers, queries) == pytest.approx({"fast": 1.0, "slow": 3.0})
    assert machine.calls[:4] == [("fast", "a"), ("slow", "a"), ("fast", "b"), ("slow", "b")]
    assert len(machine.calls) == 2 * (retrievers.WARM_UP + len(queries))


def test_a_machine_that_slows_down_slows_down_all_systems(monkeypatch):
    machine, passes = Machine(monkeypatch), []

    def slowing(name):
        run = machine.work(name, 1.0)

        def encode(documents):
            passes.append(name)
            machine.slowness = 1.0 + (len(passes) - 1) // 2  # one more for each turn
            run(documents)

        return encode

    rates = retrievers.texts_per_second_in_turns({"first": slowing("first"), "second": slowing("second")}, ["x"] * 12)
    assert rates["first"] == rates["second"] == pytest.approx(12 / 3)  # passes of 2, 3 and 4 seconds after the warm-up
