"""The headline: the systems that experiments/headline.yaml lists, measured on one dataset, from records alone.

Each row of the file names a system and the runs that measured it, one run per seed. Nothing is guessed: a run that is
missing or did not measure the system is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from embedlab import paths
from embedlab.data.load import Spec, parse_spec
from embedlab.errors import ParameterError
from embedlab.evaluation.significance import bootstrap_ci, paired_difference
from embedlab.reporting.sweep_table import FLOAT32
from embedlab.runs.per_query import Measured, mean_over_runs, query_values
from embedlab.runs.record_index import indexed_records
from embedlab.runs.records import MetricRow, Record

METRIC, SPLIT = "ndcg@10", "test"
MEMORY, SPEED = "bytes in memory", "texts_per_second"
RETRIEVAL, COMPRESSED = "retrieval", "quantised"
BASE = "base"
MAX_README_ROWS = 6
MAX_FIGURE_ROWS = 8

KEY = ["label", "system", "condition", "dim"]
INTERVALS = ["value", "ci_low", "ci_high", "n", "difference", "difference_low", "difference_high", "p"]
COLUMNS = [*KEY, "stage", "seeds", *INTERVALS, "bytes", "texts_per_second", "plain", "readme", "figure", "runs"]


class HeadlineRow(BaseModel):
    """One row of experiments/headline.yaml.

    Attributes:
        label: the name that readers see.
        system, condition: what the runs recorded.
        runs: ids of runs that measured it, one per seed.
        dim: the dimensions of the vectors; the largest measured ones when not given.
        speed: ids of runs that timed its encoding; `runs` when not given.
        compressed: ids of runs that searched its vectors in fewer bits, for the figure.
        plain: the name in README, in everyday words; `label` when not given.
        readme: whether README shows the row.
        figure: whether the figures show the row.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str = Field(min_length=1)
    system: str = Field(min_length=1)
    condition: str = ""
    runs: tuple[str, ...] = Field(min_length=1)
    dim: int | None = Field(default=None, gt=0)
    speed: tuple[str, ...] = ()
    compressed: tuple[str, ...] = ()
    plain: str = ""
    readme: bool = False
    figure: bool = False

    def all_runs(self) -> tuple[str, ...]:
        """Return every run that the row names."""
        return tuple(dict.fromkeys([*self.runs, *self.speed, *self.compressed]))


class HeadlineGroup(BaseModel):
    """The rows of one dataset.

    Attributes:
        dataset: the dataset's spec, as the runs recorded it.
        title: what the dataset is, for readers.
        rows: at least the base model's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str = Field(min_length=1)
    title: str = Field(min_length=1)
    rows: tuple[HeadlineRow, ...] = Field(min_length=1)


def read_headline() -> list[HeadlineGroup]:
    """Read and check experiments/headline.yaml; the first group is the one of README and the figures.

    Raises:
        ParameterError: the file is missing, has a field that does not fit, a label twice or too many marked rows.
    """
    path = paths.experiments_dir() / "headline.yaml"
    if not path.is_file():
        raise ParameterError("the file does not exist", remedy="Restore it with git checkout", file=path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        groups = [HeadlineGroup(**group) for group in content["groups"]]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ParameterError(f"cannot read the groups ({error})", remedy="Write groups: [...]", file=path) from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        problem = f"{first['msg'][0].lower()}{first['msg'][1:]}, got {first['input']!r}"
        raise ParameterError(problem, remedy="Correct that field", file=path, field=field) from None
    for group in groups:
        _check_group(group, path)
    return groups


def _check_group(group: HeadlineGroup, path: Path) -> None:
    labels = [row.label for row in group.rows]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        remedy = "Give each row its own label"
        raise ParameterError(f"two rows are called {twice[0]!r}", remedy=remedy, file=path, field=group.dataset)
    if sum(row.system == BASE for row in group.rows) != 1:
        problem = f"expected one row with the system {BASE!r}, to compare the others with"
        raise ParameterError(problem, remedy="Add or remove one", file=path, field=group.dataset)
    for flag, limit in (("readme", MAX_README_ROWS), ("figure", MAX_FIGURE_ROWS)):
        if (count := sum(getattr(row, flag) for row in group.rows)) > limit:
            problem = f"{count} rows have {flag}: true, at most {limit} fit"
            raise ParameterError(problem, remedy=f"Set {flag}: false in some", file=path, field=group.dataset)


def headline(group: HeadlineGroup) -> pd.DataFrame:
    """Measure every row of a group: nDCG@10 on its test queries, costs, and the difference from the base model.

    Args:
        group: from `read_headline`.

    Returns:
        One row per label, condition and dimension, in the order of the file and with the declared dimension first:
        seeds (runs behind the row); value, the mean over seeds and queries, with its 95 % interval over queries; n
        queries; difference from the base model, paired by query, with interval and p (declared dimension only); bytes
        that a document takes in memory; texts_per_second of encoding; readme, figure (as declared); runs (ids).
        Missing means not measured.

    Raises:
        ParameterError: a run has no record, another dataset, or did not measure the row's system.
    """
    records = _read(group)
    measured = [point for row in group.rows for point in _points(row, records, group)]
    speeds = _speeds(group, records)
    values_of = lru_cache(maxsize=64)(lambda run_id, stage: query_values(run_id, METRIC, split=SPLIT, stage=stage))
    per_query = [_mean_per_query(point, values_of) for point in measured]
    base = next(
        values for point, values in zip(measured, per_query, strict=True) if point.row.system == BASE and point.declared
    )
    rows = [
        _row(point, values, base if point.declared and point.row.system != BASE else None, records, speeds)
        for point, values in zip(measured, per_query, strict=True)
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"dim": "Int64", "n": "Int64"})


@dataclass(frozen=True)
class _Point:
    """One system at one dimension and condition, as several runs measured it.

    Attributes:
        row: the declaration.
        rows: run id -> what that run recorded.
        declared: whether it is the row itself, and not another dimension or a compressed index of it.
    """

    row: HeadlineRow
    rows: Mapping[str, MetricRow]
    declared: bool

    @property
    def first(self) -> MetricRow:
        return next(iter(self.rows.values()))

    @property
    def dim(self) -> int | None:
        return self.row.dim if self.declared and self.row.dim else self.first.dim


def _read(group: HeadlineGroup) -> dict[str, Record]:
    """The records of all runs that a group names."""
    run_ids = dict.fromkeys(run_id for row in group.rows for run_id in row.all_runs())
    records = {record.run_id: record for record in indexed_records((METRIC, MEMORY, SPEED), list(run_ids))}
    for row in group.rows:
        for run_id in row.all_runs():
            if run_id not in records:
                raise _problem(row, f"the run {run_id} has no record", "Check the id, or fetch the run")
            dataset = str(records[run_id].parameters.get("dataset"))
            if _tested(dataset) != _tested(group.dataset):
                raise _problem(row, f"the run {run_id} used {dataset}, expected {group.dataset}", "Move the row")
    return records


def _tested(dataset: str) -> Spec:
    """A spec without additional training pairs, which change neither the documents nor the test queries."""
    spec = parse_spec(dataset)
    return replace(spec, options={name: value for name, value in spec.options.items() if name != "extra"})


def _problem(row: HeadlineRow, problem: str, remedy: str) -> ParameterError:
    return ParameterError(f"{row.label}: {problem}", remedy=remedy, file="experiments/headline.yaml")


def _points(row: HeadlineRow, records: Mapping[str, Record], group: HeadlineGroup) -> Iterator[_Point]:
    """The row at its declared dimension, at the others, and in compressed indexes."""
    seeds = [records[run_id].parameters.get("seed") for run_id in row.runs]
    if len(set(seeds)) < len(seeds):
        raise _problem(row, f"two of its runs have the same seed ({seeds})", "List one run per seed")
    plain = _by_form(row.runs, records, lambda metric: _is_plain(metric, row))
    if not plain:
        measurement = f"{row.system!r}" + (f" ({row.condition})" if row.condition else "")
        problem = f"its runs did not measure {measurement} on the {SPLIT} queries"
        raise _problem(row, problem, f"Their systems are {', '.join(sorted(_systems(row, records)))}")
    declared = (
        row.dim if (row.condition, row.dim) in plain else max((dim for _, dim in plain), key=lambda dim: dim or 0)
    )
    for (_, dim), rows in sorted(plain.items(), key=lambda item: (item[0][1] != declared, -(item[0][1] or 0))):
        if dim == declared and len(rows) < len(row.runs):
            missing = ", ".join(run_id for run_id in row.runs if run_id not in rows)
            raise _problem(row, f"not measured with {dim} dimensions by {missing}", "Correct the runs or the dim")
        yield _Point(row, rows, declared=dim == declared)
    compressed = _by_form(row.compressed, records, lambda metric: _is_compressed(metric, row))
    yield from (_Point(row, rows, declared=False) for rows in compressed.values())


def _by_form(
    run_ids: Sequence[str], records: Mapping[str, Record], belongs: Any
) -> dict[tuple[str, int | None], dict[str, MetricRow]]:
    """(condition, dim) -> run id -> the metric row that belongs to it; of equal rows the last counts."""
    forms: dict[tuple[str, int | None], dict[str, MetricRow]] = {}
    for run_id in run_ids:
        for metric in filter(belongs, records[run_id].metrics):
            forms.setdefault((metric.condition, metric.dim), {})[run_id] = metric
    return forms


def _is_score(metric: MetricRow) -> bool:
    return (metric.metric, metric.split, metric.task, metric.statistic) == (METRIC, SPLIT, RETRIEVAL, "value")


def _is_plain(metric: MetricRow, row: HeadlineRow) -> bool:
    matches = (metric.system, metric.condition) == (row.system, row.condition)
    return matches and _is_score(metric) and metric.stage == RETRIEVAL


def _is_compressed(metric: MetricRow, row: HeadlineRow) -> bool:
    return metric.system == row.system and _is_score(metric) and metric.stage == COMPRESSED


def _systems(row: HeadlineRow, records: Mapping[str, Record]) -> set[str]:
    metrics = [metric for run_id in row.runs for metric in records[run_id].metrics if _is_score(metric)]
    return {metric.system + (f" ({metric.condition})" if metric.condition else "") for metric in metrics}


def _mean_per_query(point: _Point, values_of: Any) -> pd.Series | None:
    """Mean over seeds of each query's value; None where a run did not keep them."""
    series = []
    for run_id, metric in point.rows.items():
        values = values_of(run_id, metric.stage)
        series.append(values.get(Measured(metric.system, metric.condition, metric.dim)))
    return None if any(values is None for values in series) else mean_over_runs(series)


def _speeds(group: HeadlineGroup, records: Mapping[str, Record]) -> dict[str, float]:
    """Label -> texts encoded per second, the median over runs.

    Other machines, and other work on the same one, slow all models of a run equally. So a run tells how many times as
    fast as the base model a system is, and that is multiplied by the base model's median speed over all runs.
    """
    timed = {run_id: _times(record) for run_id, record in records.items()}
    base = pd.Series([times[BASE, ""] for times in timed.values() if (BASE, "") in times], dtype=float).median()
    speeds = {}
    for row in group.rows:
        run_ids = timed if row.system == BASE else (row.speed or row.runs)
        ratios = [_ratio(timed[run_id], row, base) for run_id in run_ids]
        speeds[row.label] = pd.Series(ratios, dtype=float).median()
    return speeds


def _times(record: Record) -> dict[tuple[str, str], float]:
    rows = [row for row in record.metrics if row.metric == SPEED and row.value is not None]
    return {(row.system, row.condition): float(row.value) for row in rows if row.value is not None}


def _ratio(times: Mapping[tuple[str, str], float], row: HeadlineRow, base: float) -> float | None:
    """The system's speed where the base model runs at its median speed; None where it was not timed."""
    if (speed := times.get((row.system, row.condition))) is None:
        return None
    return speed * (base / times[BASE, ""] if (BASE, "") in times else 1)


def _row(
    point: _Point,
    values: pd.Series | None,
    base: pd.Series | None,
    records: Mapping[str, Record],
    speeds: Mapping[str, float],
) -> dict[str, object]:
    interval = bootstrap_ci(values.to_numpy()) if values is not None else None
    recorded = pd.Series([metric.value for metric in point.rows.values()], dtype=float)
    line: dict[str, object] = {
        "label": point.row.label,
        "system": point.row.system,
        "condition": point.first.condition,
        "dim": point.dim,
        "stage": point.first.stage,
        "seeds": len(point.rows),
        "value": interval.mean if interval else recorded.mean(),
        "ci_low": interval.low if interval else None,
        "ci_high": interval.high if interval else None,
        "n": interval.n if interval else None,
        "bytes": _bytes(point, records),
        "texts_per_second": speeds[point.row.label] if point.declared else None,
        "plain": point.row.plain or point.row.label,
        "readme": point.row.readme and point.declared,
        "figure": point.row.figure,
        "runs": " ".join(point.rows),
    }
    if values is None or base is None or not values.index.equals(base.index):
        return line
    gain = paired_difference(values.to_numpy(), base.to_numpy())
    return line | {"difference": gain.mean, "difference_low": gain.low, "difference_high": gain.high, "p": gain.p_value}


def _bytes(point: _Point, records: Mapping[str, Record]) -> float | None:
    """Bytes that a document takes in memory: as the runs recorded for a compressed index, else float32."""
    if point.first.stage != COMPRESSED:
        return None if point.dim is None else point.dim * FLOAT32
    key = (point.first.system, point.first.condition, COMPRESSED)
    recorded = [
        row.value
        for run_id in point.rows
        for row in records[run_id].metrics
        if row.metric == MEMORY and (row.system, row.condition, row.stage) == key
    ]
    return float(pd.Series(recorded, dtype=float).mean())
