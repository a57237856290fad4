"""Run a benchmark and store its result."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from embedlab.io import write_atomic
from experiments.benchmarks import environment
from experiments.benchmarks.children import Child, ChildFailure
from experiments.benchmarks.spec import PRODUCT, Benchmark, Figure
from experiments.benchmarks.stats import Estimate, abba, median_of, median_ratio

MEASURED, FAILED, NOT_MEASURED = "measured", "failed", "not measured"
REPEATS = 5
THREADS = 2

Arms = Mapping[str, Mapping[str, Any]]  # arm -> its description, facts and repeats


def run_benchmark(
    benchmark: Benchmark,
    *,
    repeats: int | None = None,
    quick: bool = False,
    threads: int = THREADS,
    on_cpu: bool = False,
) -> dict[str, Any]:
    """Measure every arm and return the result for `write_result`.

    Args:
        benchmark: what to run.
        repeats: per arm; default `REPEATS`.
        quick: run the smoke size; the result is marked.
        threads: of every arm.
        on_cpu: run a benchmark of the GPU on the CPU, to test the benchmark itself; only with `quick`.
    """
    size = {**benchmark.size, **(benchmark.quick if quick else {})}
    if on_cpu and "device" in size:
        size["device"], benchmark = "cpu", replace(benchmark, requires=())
    result = {
        "name": benchmark.name,
        "smoke": quick,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "size": size,
        "environment": environment.describe(threads),
    }
    if reason := obstacle(benchmark):
        rows = [_row(figure, NOT_MEASURED, reason) for figure in benchmark.figures]
        return {**result, "arms": {}, "rows": rows}
    measurement = Measurement(benchmark, size, threads)
    measurement.take(repeats or REPEATS)
    causes = measurement.causes | disagreements(measurement.arms, benchmark.tolerance)
    rows = [figure_row(figure, measurement.arms, causes) for figure in benchmark.figures]
    return {
        **result,
        "background_share": measurement.background_share,
        "arms": measurement.arms,
        "causes": causes,
        "rows": rows,
    }


def obstacle(benchmark: Benchmark) -> str | None:
    """Say why the benchmark cannot run on this machine; None if it can."""
    return next(filter(None, map(environment.lacking, benchmark.requires)), None)


class Measurement:
    """The repeats of all arms of a benchmark. If an arm fails, its cause is stored and the others continue.

    Attributes:
        arms: arm -> its description, facts and repeats.
        causes: arm -> why it failed.
        background_share: share of all processors that other programs used during the repeats, in [0, 1]; None if the
            arms start processes, which cannot be distinguished from other programs.
    """

    def __init__(self, benchmark: Benchmark, size: Mapping[str, Any], threads: int) -> None:
        self.benchmark, self.size, self.threads = benchmark, size, threads
        self.arms: dict[str, dict[str, Any]] = {
            name: {"about": arm.about, "repeats": []} for name, arm in benchmark.arms.items()
        }
        self.causes: dict[str, str] = {}
        self.background_share: float | None = 0.0
        self._children: dict[str, Child] = {}

    def take(self, repeats: int) -> None:
        """Load all arms, warm each up, and repeat them in ABBA order."""
        with ExitStack() as stack:
            for name, arm in self.benchmark.arms.items():  # all load at the same time
                child = Child(arm, self.size, self.threads, self.benchmark.device)
                self._children[name] = stack.enter_context(child)
            for name, facts in self.arms.items():
                facts |= self._attempt(name, "loaded")
            for name in self.arms:
                self._attempt(name, "warm_up")
            self._repeat(repeats)

    def _repeat(self, repeats: int) -> None:
        busy_before, total_before = environment.processor_seconds()
        for name in abba(list(self.arms), repeats):
            if repeat := self._attempt(name, "repeat"):
                self.arms[name]["repeats"].append(repeat)
                print(f"{self.benchmark.name:>18} {name:>8} {repeat['seconds']:9.3f} s", file=sys.stderr, flush=True)
        busy, total = environment.processor_seconds()
        ours = sum(repeat["cpu_seconds"] for arm in self.arms.values() for repeat in arm["repeats"])
        others = (busy - busy_before - ours) / max(total - total_before, 1e-9)
        self.background_share = None if self.benchmark.spawns else round(max(others, 0.0), 3)

    def _attempt(self, name: str, action: str) -> dict[str, Any]:
        """Return the arm's answer; an empty one if the arm has failed."""
        if name in self.causes:
            return {}
        try:
            return getattr(self._children[name], action)()
        except ChildFailure as failure:
            self.causes[name] = str(failure)
            return {}


def disagreements(arms: Arms, tolerance: float | None) -> dict[str, str]:
    """Find the arms whose `check` differs from ours by more than `tolerance`: arm -> cause."""
    if tolerance is None or not arms["ours"]["repeats"]:
        return {}
    ours = arms["ours"]["repeats"][0]["check"]
    causes = {}
    for name, arm in arms.items():
        if name == PRODUCT:  # has no result
            continue
        apart = max((abs(repeat["check"] - ours) for repeat in arm["repeats"]), default=0.0)
        if not apart <= tolerance:
            causes[name] = f"the result differs by {apart:.2g}, more than {tolerance:g}"
    return causes


def figure_row(figure: Figure, arms: Arms, causes: Mapping[str, str]) -> dict[str, Any]:
    """Return one row of the table: an estimate, or why there is none."""
    names = [name for name in (figure.arm, figure.against) if name]
    if broken := [f"{name}: {causes[name]}" for name in names if name in causes]:
        return _row(figure, FAILED, "; ".join(broken))
    columns = [[repeat.get(figure.measure) for repeat in arms[name]["repeats"]] for name in names]
    if any(not column or None in column for column in columns):
        return _row(figure, NOT_MEASURED, f"this machine does not report {figure.measure}")
    return {**_row(figure, MEASURED), **estimate(figure, *columns)._asdict()}


def estimate(figure: Figure, ours: list[float], other: list[float] | None = None) -> Estimate:
    """Estimate a figure: other / ours for time, ours / other for memory, or the value of ours without another arm."""
    if other is None:
        return median_of(ours)
    return median_ratio(other, ours) if figure.higher_is_better else median_ratio(ours, other)


def _row(figure: Figure, status: str, cause: str = "") -> dict[str, Any]:
    return {**asdict(figure), "status": status, "cause": cause}


def write_result(result: Mapping[str, Any], folder: Path) -> Path:
    """Write `folder`/NAME.json atomically."""
    path = folder / f"{result['name']}.json"
    write_atomic(path, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return path
