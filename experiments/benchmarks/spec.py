"""A benchmark: arms that do the same work, and the figures that compare them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

PRODUCT = "product"  # name of an arm that does only the part that every arm needs


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Workload:
    """The work that a child process repeats after imports and loading.

    Attributes:
        run: the measured work. The values that it returns are stored with the repeat. If the benchmark has a
            tolerance, the value `check` must agree between arms.
        prepare: undo the changes of the last repeat; not measured.
        warm_up: runs once before the first repeat; default `run`.
        facts: properties of the data, e.g. the share of padding.
    """

    run: Callable[[], Mapping[str, float] | None]
    prepare: Callable[[], None] = _nothing
    warm_up: Callable[[], object] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Arm:
    """One way to do the work.

    Attributes:
        factory: `module:function`, called in the child with `options` and the benchmark's size; returns a `Workload`.
        about: description, shown below the table.
        options: keyword arguments of the factory.
    """

    factory: str
    about: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """One row of the table.

    Attributes:
        measure: the value of a repeat: `seconds`, `peak_bytes` or one that `run` returns.
        target: at least this for `seconds`, at most this for everything else; None without a target.
        against: the other arm. A ratio is other / ours for `seconds` (how many times faster) and ours / other
            otherwise (the share of memory). None uses the value of `arm` itself.
        arm: our arm.
        unit: of a value that is not a ratio.
    """

    measure: str
    target: float | None = None
    against: str | None = None
    arm: str = "ours"
    unit: str = "×"

    @property
    def higher_is_better(self) -> bool:
        """Whether the value must be at least the target."""
        return self.measure == "seconds"

    def meets(self, value: float) -> bool | None:
        """Tell whether `value` meets the target; None without one."""
        if self.target is None:
            return None
        return value >= self.target if self.higher_is_better else value <= self.target


@dataclass(frozen=True)
class Benchmark:
    """Arms, the size of the work, and the rows of the table.

    Attributes:
        name: of the JSON file and of `--only`.
        title: the work in a few words.
        arms: by name; ours is called `ours`.
        figures: the rows.
        size: keyword arguments of every arm's factory.
        quick: keyword arguments that differ in a smoke run.
        tolerance: how much `check` may differ between arms; None if it is random (dropout).
        requires: what the machine must have; see `environment.lacking`.
        spawns: its arms start processes, so the load of other programs cannot be measured.
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
        """The device: "cuda" or "cpu"."""
        return "cuda" if "cuda" in self.requires else "cpu"
