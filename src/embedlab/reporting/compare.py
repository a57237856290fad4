"""Two runs side by side: what differs in how they were made, and whether their numbers really differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from embedlab.evaluation.significance import paired_difference
from embedlab.runs.per_query import query_values
from embedlab.runs.records import MetricRow, Record
from embedlab.runs.run import HEADLINE

KEYS = ("task", "split", "model", "dim", "metric")
NUMBERS = ("a", "b", "difference", "ci_low", "ci_high", "p", "n")


@dataclass(frozen=True)
class Comparison:
    """What `diff` found.

    Attributes:
        runs: the two ids.
        facts: columns kind, name, a, b; a row for everything that differs, and no row for what is equal.
        metrics: columns task, split, model, dim, metric, a, b, difference (a - b), ci_low, ci_high, p, n, paired; the
            interval and p are missing where the values could not be paired.
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
    models: tuple[str, str] | None = None,
    folders: tuple[Path | None, Path | None] = (None, None),
) -> Comparison:
    """Compare two runs; differences are a - b.

    Args:
        a, b: the records.
        metrics: those to compare; systems of the same name, split, task and dimension meet.
        models: compare this model of a with that model of b instead, e.g. ("tuned", "student").
        folders: where each run is kept, for its per-query values; results/runs when not given.
    """
    facts = pd.DataFrame(list(_facts(a, b)), columns=["kind", "name", "a", "b"])
    pairing = _Pairing(a, b, folders)
    rows = [pairing.row(*rows) for rows in _meeting(a, b, metrics, models)]
    frame = pd.DataFrame(rows, columns=[*KEYS, *NUMBERS, "paired"]).astype({"dim": "Int64", "n": "Int64"})
    reasons = list(dict.fromkeys(pairing.reasons)) if rows else ["the two have no metric of the same system in common"]
    return Comparison((a.run_id, b.run_id), facts, frame, reasons)


def _facts(a: Record, b: Record) -> Iterator[tuple[str, str, object, object]]:
    """(kind, name, a, b) of everything that is not equal, in the order of the records."""
    for kind, values_of in FACTS.items():
        left, right = values_of(a), values_of(b)
        for name in dict.fromkeys([*left, *right]):
            if left.get(name) != right.get(name):
                yield kind, name, left.get(name), right.get(name)


def _code(record: Record) -> dict[str, object]:
    names = ("notebook", "source_hash", "commit", "dirty")
    return {name: getattr(record, name) for name in names}


FACTS = {
    "parameter": lambda record: record.parameters,
    "data": lambda record: {"fingerprint": record.data_fingerprint},
    "model": lambda record: record.model_fingerprints,
    "code": _code,
    "version": lambda record: record.versions,
    "hardware": lambda record: record.hardware,
    "seconds": lambda record: record.timings,
}


def _meeting(
    a: Record, b: Record, metrics: Sequence[str], models: tuple[str, str] | None
) -> Iterator[tuple[MetricRow, MetricRow]]:
    """Rows of a and b that are the same measurement, in a's order."""
    of_b = {_key(row): row for row in b.metrics}
    for row in {_key(row): row for row in a.metrics}.values():
        if row.metric not in metrics or " - " in row.model or (models and row.model != models[0]):
            continue
        task, split, model, dim, metric = _key(row)
        if other := of_b.get((task, split, models[1] if models else model, dim, metric)):
            yield row, other


def _key(row: MetricRow) -> tuple[str, str, str, int | None, str]:
    return row.task, row.split, row.model, row.dim, row.metric


class _Pairing:
    """Pairs the two runs' values query by query, and keeps why some could not be."""

    def __init__(self, a: Record, b: Record, folders: tuple[Path | None, Path | None]) -> None:
        self.a, self.b, self.folders, self.reasons = a, b, folders, []
        self._read: dict[tuple, tuple[Mapping, Mapping]] = {}
        self._forbidden = _not_comparable(a, b)

    def row(self, row: MetricRow, other: MetricRow) -> dict[str, object]:
        name = row.model if row.model == other.model else f"{row.model} / {other.model}"
        known = row.value is not None and other.value is not None
        plain = {"a": row.value, "b": other.value, "difference": row.value - other.value if known else None}
        paired, reason = self._paired(row, other)
        if reason:
            self.reasons.append(reason)
        return {**row.model_dump(include=set(KEYS)), "model": name, **plain, **paired, "paired": not reason}

    def _paired(self, row: MetricRow, other: MetricRow) -> tuple[dict[str, object], str]:
        """Difference, interval, p and n over common queries; or nothing, and why."""
        if self._forbidden:
            return {}, self._forbidden
        of_a, of_b = self._values(row)
        left, right = of_a.get((row.model, row.dim)), of_b.get((other.model, other.dim))
        if left is None or right is None:
            lacking = ", ".join(run.run_id for run, side in ((self.a, left), (self.b, right)) if side is None)
            return {}, f"not paired: no per-query values of {row.metric} in {lacking}"
        if not left.index.equals(right.index):
            only_a, only_b = len(left.index.difference(right.index)), len(right.index.difference(left.index))
            return {}, f"not paired: the queries differ ({only_a} only in the first run, {only_b} only in the second)"
        if left.equals(right):  # the same baseline in both: nothing to draw samples of
            return {"difference": 0.0, "ci_low": 0.0, "ci_high": 0.0, "p": 1.0, "n": int(left.notna().sum())}, ""
        outcome = paired_difference(left.to_numpy(), right.to_numpy())
        interval = {"difference": outcome.mean, "ci_low": outcome.low, "ci_high": outcome.high}
        return {**interval, "p": outcome.p_value, "n": outcome.n}, ""

    def _values(self, row: MetricRow) -> tuple[Mapping, Mapping]:
        key = (row.metric, row.split, row.task)
        if key not in self._read:
            of_one = {"split": row.split, "task": row.task}
            runs = zip((self.a, self.b), self.folders, strict=True)
            self._read[key] = tuple(query_values(run.run_id, row.metric, folder=at, **of_one) for run, at in runs)
        return self._read[key]


def _not_comparable(a: Record, b: Record) -> str:
    if not a.data_fingerprint or not b.data_fingerprint:
        return "not paired: a run did not record what data it used"
    if a.data_fingerprint != b.data_fingerprint:
        names = " and ".join(str(run.parameters.get("dataset", "?")) for run in (a, b))
        prints = f"{a.data_fingerprint} and {b.data_fingerprint}"
        return f"not paired: the data differ ({names}, fingerprints {prints}), so the difference means little"
    return ""


def readable(metrics: pd.DataFrame) -> pd.DataFrame:
    """The rows of `Comparison.metrics` narrow enough for a terminal: `difference [low, high]` and p."""
    constant = [name for name in ("task", "split") if metrics[name].nunique() <= 1]
    cells = [
        f"{row.difference:+.3f} [{row.ci_low:+.3f}, {row.ci_high:+.3f}]" if row.paired else f"{row.difference:+.3f}"
        for row in metrics.itertuples()
    ]
    numbers = metrics.assign(
        difference=cells, a=metrics["a"].round(3), b=metrics["b"].round(3), p=metrics["p"].round(4)
    )
    return numbers.drop(columns=[*constant, "ci_low", "ci_high", "n", "paired"])
