"""Compare two runs: what differs in how they were made, and whether their results really differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from embedlab.evaluation.significance import paired_difference
from embedlab.finding import Finding, finding
from embedlab.runs.notebooks import flat
from embedlab.runs.per_query import Measured, query_values
from embedlab.runs.records import MetricRow, Record
from embedlab.runs.summary import HEADLINE

KEYS = ("stage", "task", "split", "system", "condition", "dim", "metric")
NUMBERS = ("a", "b", "difference", "ci_low", "ci_high", "p", "n")


@dataclass(frozen=True)
class Comparison:
    """What `diff` measured.

    Attributes:
        runs: the two ids.
        facts: columns kind, name, a, b; a row for everything that differs.
        metrics: columns stage, task, split, system, condition, dim, metric, a, b, difference (a - b), ci_low, ci_high,
            p, n, paired. Interval and p are missing where the values could not be paired.
        reasons: why values were not paired, one sentence each; empty when all were.
    """

    runs: tuple[str, str]
    facts: pd.DataFrame
    metrics: pd.DataFrame
    reasons: list[str]


def diff(
    a: Record,
    b: Record,
    *,
    metrics: Sequence[str] = HEADLINE,
    systems: tuple[str, str] | None = None,
    folders: tuple[Path | None, Path | None] = (None, None),
) -> Comparison:
    """Compare two runs; differences are a - b.

    Args:
        a, b: the records.
        metrics: those to compare, where both runs measured the same system, condition, split, task and dimension.
        systems: compare this system of a with that system of b instead, e.g. ("contrastive", "static").
        folders: where each run is kept, for its per-query values; results/runs when not given.
    """
    facts = pd.DataFrame(list(_facts(a, b)), columns=["kind", "name", "a", "b"])
    pairing = _Pairing(a, b, folders)
    rows = [pairing.row(*pair) for pair in _common(a, b, metrics, systems)]
    frame = pd.DataFrame(rows, columns=[*KEYS, *NUMBERS, "paired"]).astype({"dim": "Int64", "n": "Int64"})
    reasons = list(dict.fromkeys(pairing.reasons)) if rows else ["the two have no metric of the same system in common"]
    return Comparison((a.run_id, b.run_id), facts, frame, reasons)


def _facts(a: Record, b: Record) -> Iterator[tuple[str, str, object, object]]:
    """(kind, name, a, b) of everything that differs, in the order of the records."""
    for kind, values_of in FACTS.items():
        of_a, of_b = values_of(a), values_of(b)
        for name in dict.fromkeys([*of_a, *of_b]):
            if of_a.get(name) != of_b.get(name):
                yield kind, name, of_a.get(name), of_b.get(name)


def _code(record: Record) -> dict[str, object]:
    names = ("notebook", "source_hash", "commit", "dirty")
    return {name: getattr(record, name) for name in names}


FACTS: dict[str, Callable[[Record], Mapping[str, Any]]] = {
    "parameter": lambda record: flat(record.parameters),
    "data": lambda record: {"fingerprint": record.data_fingerprint},
    "model": lambda record: record.model_fingerprints,
    "code": _code,
    "version": lambda record: record.versions,
    "hardware": lambda record: record.hardware,
    "seconds": lambda record: record.timings,
}


def _common(
    a: Record, b: Record, metrics: Sequence[str], systems: tuple[str, str] | None
) -> Iterator[tuple[MetricRow, MetricRow]]:
    """Rows of a and b that are the same measurement, in a's order."""
    of_b = {_key(row): row for row in b.metrics if row.statistic == "value"}
    of_a = {_key(row): row for row in a.metrics if row.statistic == "value"}
    for row in of_a.values():
        if row.metric not in metrics or (systems and row.system != systems[0]):
            continue
        stage, task, split, system, condition, dim, metric = _key(row)
        name = systems[1] if systems else system
        if (partner := of_b.get((stage, task, split, name, condition, dim, metric))) is not None:
            yield row, partner


def _key(row: MetricRow) -> tuple[str, str, str, str, str, int | None, str]:
    return row.stage, row.task, row.split, row.system, row.condition, row.dim, row.metric


class _Pairing:
    """Pairs the two runs' values query by query, and keeps why some could not be paired."""

    def __init__(self, a: Record, b: Record, folders: tuple[Path | None, Path | None]) -> None:
        self.a, self.b, self.folders = a, b, folders
        self.reasons: list[str] = []
        self._cache: dict[tuple[str, str, str, str], list[dict[Measured, pd.Series]]] = {}
        self._obstacle = _not_comparable(a, b)

    def row(self, row: MetricRow, partner: MetricRow) -> dict[str, object]:
        name = row.system if row.system == partner.system else f"{row.system} / {partner.system}"
        gap = None if row.value is None or partner.value is None else row.value - partner.value
        plain = {"a": row.value, "b": partner.value, "difference": gap}
        paired, reason = self._paired(row, partner)
        if reason:
            self.reasons.append(reason)
        return {**row.model_dump(include=set(KEYS)), "system": name, **plain, **paired, "paired": not reason}

    def _paired(self, row: MetricRow, partner: MetricRow) -> tuple[dict[str, object], str]:
        """Difference, interval, p and n over common queries; or nothing, and why."""
        if self._obstacle:
            return {}, self._obstacle
        all_of_a, all_of_b = self._values(row)
        of_a = all_of_a.get(Measured(row.system, row.condition, row.dim))
        of_b = all_of_b.get(Measured(partner.system, partner.condition, partner.dim))
        if of_a is None or of_b is None:
            without = ", ".join(run.run_id for run, values in ((self.a, of_a), (self.b, of_b)) if values is None)
            return {}, f"not paired: no per-query values of {row.metric} in {without}"
        if not of_a.index.equals(of_b.index):
            only_a, only_b = len(of_a.index.difference(of_b.index)), len(of_b.index.difference(of_a.index))
            return {}, f"not paired: the queries differ ({only_a} only in the first run, {only_b} only in the second)"
        if of_a.equals(of_b):  # the same baseline in both: nothing to resample
            return {"difference": 0.0, "ci_low": 0.0, "ci_high": 0.0, "p": 1.0, "n": int(of_a.notna().sum())}, ""
        outcome = paired_difference(of_a.to_numpy(), of_b.to_numpy())
        interval = {"difference": outcome.mean, "ci_low": outcome.low, "ci_high": outcome.high}
        return {**interval, "p": outcome.p_value, "n": outcome.n}, ""

    def _values(self, row: MetricRow) -> list[dict[Measured, pd.Series]]:
        key = (row.metric, row.split, row.task, row.stage)
        if key not in self._cache:
            rows = {"split": row.split, "task": row.task, "stage": row.stage}
            runs = zip((self.a, self.b), self.folders, strict=True)
            self._cache[key] = [query_values(run.run_id, row.metric, folder=folder, **rows) for run, folder in runs]
        return self._cache[key]


def _not_comparable(a: Record, b: Record) -> str:
    if not a.data_fingerprint or not b.data_fingerprint:
        return "not paired: a run did not record what data it used"
    if a.data_fingerprint != b.data_fingerprint:
        names = " and ".join(str(run.parameters.get("dataset", "?")) for run in (a, b))
        prints = f"{a.data_fingerprint} and {b.data_fingerprint}"
        return f"not paired: the data differ ({names}, fingerprints {prints}), so the difference means little"
    return ""


def readable(metrics: pd.DataFrame) -> pd.DataFrame:
    """Make the rows of `Comparison.metrics` narrow enough for a terminal: `difference [low, high]`, a word, p and n."""
    constant = [name for name in ("stage", "task", "split") if metrics[name].nunique() <= 1]
    constant += [] if metrics["condition"].fillna("").ne("").any() else ["condition"]
    cells = [
        f"{row.difference:+.3f} [{row.ci_low:+.3f}, {row.ci_high:+.3f}]{_word(row.ci_low, row.ci_high, row.n)}"
        if row.paired
        else f"{row.difference:+.3f}"
        for row in metrics.itertuples()
    ]
    numbers = metrics.assign(
        difference=cells, a=metrics["a"].round(3), b=metrics["b"].round(3), p=metrics["p"].round(4)
    )
    return numbers.drop(columns=[*constant, "ci_low", "ci_high", "paired"])


def _word(low: float, high: float, n: int) -> str:
    """Better or worse if the interval shows it."""
    return {Finding.GAIN: " better", Finding.LOSS: " worse"}.get(finding(low, high, n), "")
