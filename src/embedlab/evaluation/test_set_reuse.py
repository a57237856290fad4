"""Count how often the test split was scored: choosing the best of many runs on it overestimates the winner.

Choosing the best of m runs by its test value favours luck: with equal models and a standard error s, the best of m
scores about s * sqrt(2 ln m) too high (adaptive overfitting). Choose on dev instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from embedlab.data.load import source_fingerprint

MAX_RUNS = 20


class RunRecord(Protocol):
    """The parts of a run's record that are read here."""

    @property
    def run_id(self) -> str:
        """The run's id."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Parameter -> value."""

    @property
    def data_fingerprint(self) -> str:
        """Hash of the source files."""

    @property
    def metrics(self) -> Sequence[Any]:
        """The metric rows."""


def runs_that_scored(records: Iterable[RunRecord], dataset: str, data_fingerprint: str = "") -> list[str]:
    """Return the ids of the runs that scored something on the test split of this data.

    Args:
        records: runs; their metric rows have a `split`.
        dataset: the dataset spec of the runs; one source may hold several datasets.
        data_fingerprint: of the source's bytes; computed if empty.
    """
    data_fingerprint = data_fingerprint or source_fingerprint(dataset)
    return [
        record.run_id
        for record in records
        if record.data_fingerprint == data_fingerprint
        and record.parameters.get("dataset") == dataset
        and any(row.split == "test" for row in record.metrics)
    ]


def optimism(runs: int, standard_error: float) -> float:
    """Bound how much too high the best of `runs` equal runs scores: standard_error * sqrt(2 ln runs).

    This is the bound on the expected maximum of `runs` normal variables; 0 for up to one run.

    Args:
        runs: number of runs that one may choose from.
        standard_error: of one run's mean.
    """
    return standard_error * float(np.sqrt(2 * np.log(max(runs, 1))))


def reuse_warning(runs: int) -> str | None:
    """Return one sentence if more than 20 runs scored the test split, else None."""
    if runs <= MAX_RUNS:
        return None
    return (
        f"{runs} runs have scored these test queries, more than {MAX_RUNS}: the best value among them is partly luck. "
        "Choose on dev, and confirm the choice once on queries that nobody has scored yet."
    )
