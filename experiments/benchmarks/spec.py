"""What a benchmark is: arms that do the same work, and the figures that compare them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

PRODUCT = "product"  # name of an arm that does only what no other arm can leave out


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Workload:
    """What a child process repeats, once everything it needs is imported and loaded.

    Attributes:
        run: the measured work; what it returns joins the repeat's line. Its `check` is a number that must agree
            between arms, where the benchmark names a tolerance.
        prepare: put back what the last repeat changed; not measured.
        warm_up: done once before the first repeat; a whole `run` when not given.
        facts: what the arm knows of its data, e.g. the share of padding.
    """

    run: Callable[[], Mapping[str, float] | None]
    prepare: Callable[[], None] = _nothing
    warm_up: Callable[[], object] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Arm:
    """One way to do the work.

    Attributes:
        factory: `module:function`, called in the child with `options` and the benchmark's size; gives a `Workload`.
        about: what it is, in the words of the table's footnotes.
        options: keyword arguments of the factory.
    """

    factory: str
    about: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """One row of the table.

    Attributes:
        measure: the number of a repeat that is looked at: `seconds`, `peak_bytes` or one that `run` returns.
        target: at least this for `seconds`, at most this for everything else; None where nothing was promised.
        against: the other arm. A ratio is other / ours for `seconds` (how many times faster) and ours / other
            otherwise (the share of memory). None takes the value of `arm` as it is.
        arm: our arm.
        unit: of a value that is no ratio.
    """

    measure: str
    target: float | None = None
    against: str | None = None
    arm: str = "ours"
    unit: str = "×"

    @property
    def higher_is_better(self) -> bool:
        """Whether the target is a floor."""
        return self.measure == "seconds"

    def meets(self, value: float) -> bool | None:
        """Whether `value` reaches the target; None without one."""
        if self.target is None:
            return None
        return value >= self.target if self.higher_is_better else value <= self.target


@dataclass(frozen=True)
class Benchmark:
    """Arms, the size of the work, and the rows it gives.

    Attributes:
        name: of the JSON file and of `--only`.
        title: what is done, in a few words.
        arms: by name; ours is called `ours`.
        figures: the rows.
        size: keyword arguments of every arm's factory.
        quick: those that differ in a smoke run.
        tolerance: how far the arms' `check` may lie apart; None where chance (dropout) decides it.
        requires: what the machine must have, as `environment.lacking` knows it.
        spawns: its arms compute in processes of their own, so what others took of the machine cannot be told.
    """

    name: str
    title: str
    arms: Mapping[str, Arm]
    figures: tuple[Figure, ...]
    size: Mapping[str, Any] = field(default_factory=dict)
    quick: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float | None = None
    requires: tuple[str, ...] = ()
    spawns: bool = False

    @property
    def device(self) -> str:
        """Where it runs: "cuda" or "cpu"."""
        return "cuda" if "cuda" in self.requires else "cpu"
