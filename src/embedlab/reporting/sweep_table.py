"""A sweep as one table: a row per combination of parameters, averaged over seeds, next to the baselines.

The table is read from records alone, so it is the same on every machine and in whatever order the runs finished.
Files are rewritten every time and never appended to. Baselines, differences and Pareto marks are computed within one
dataset; a sweep over several datasets has a column for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from embedlab import paths
from embedlab.escaping import csv_frame, markdown
from embedlab.evaluation.significance import ALPHA, holm, paired_difference
from embedlab.io import write_atomic
from embedlab.reporting import notes as table_notes
from embedlab.reporting import tables
from embedlab.reporting.pareto import pareto_front
from embedlab.reporting.sweep_data import BYTES, SECONDS, SYSTEM_COLUMNS, Collected, View, collect
from embedlab.runs.failures import failures
from embedlab.runs.per_query import Measured, mean_over_runs, query_values
from embedlab.runs.records import Record
from embedlab.training.outcome import NOTHING_LEARNED

DETAIL = 200  # characters of a failure's detail in a table
CAPS = ("max_steps", "max_examples", "fine_tune_pairs")  # parameters of which 0 means "no limit"
FLOAT32 = 4  # bytes of a dimension in an index without compression
OUTCOMES = (NOTHING_LEARNED, "better", "worse", "no difference shown")
PAIRED = ("difference", "ci_low", "ci_high", "p", "p_holm")

# The parameters that a baseline depends on, besides the data.
BASELINE_DEPENDS: dict[str, tuple[str, ...]] = {"bm25": ()}
OTHERS_DEPEND = ("p.model_name",)


@dataclass(frozen=True)
class SweepTable:
    """A sweep's table and what a reader must know about it.

    Attributes:
        frame: baselines first, then a row per combination and system. Columns: dataset where it varies, the varying
            parameters as `p.NAME`, system, condition, dim, seeds (runs behind the row), per metric its mean over seeds
            and `METRIC sd`, `difference` of the first metric from the base model's with ci_low, ci_high, p and p_holm,
            outcome (the difference in a word, see `OUTCOMES`), seconds (training, mean over seeds), bytes (per
            document), pareto (quality, seconds, bytes; within a dataset; baselines and models that learned nothing do
            not compete), runs (ids).
        source: the runs and single values that were aggregated.
        notes: what makes the rows hard to compare, a sentence each.
    """

    frame: pd.DataFrame
    source: Collected
    notes: list[str]

    @property
    def view(self) -> View:
        """What the table shows."""
        return self.source.view

    @property
    def parameters(self) -> list[str]:
        """The varying parameters; the dataset is never one of them."""
        return self.source.parameters

    @property
    def datasets(self) -> list[str]:
        """The datasets of the runs, that with most runs first."""
        return list(self.source.runs["dataset"].value_counts(sort=True).index)

    @property
    def combinations(self) -> pd.DataFrame:
        """The rows that are not baselines."""
        return self.frame[~self.view.is_baseline(self.frame)]

    def for_dataset(self, dataset: str | None = None) -> SweepTable:
        """Return the rows and runs of one dataset: what a figure may draw in one pair of axes.

        Args:
            dataset: the one with most runs when not given.
        """
        if len(self.datasets) <= 1:
            return self
        name = self.datasets[0] if dataset is None else dataset
        runs = self.source.runs[self.source.runs["dataset"] == name]
        measured = self.source.measured[self.source.measured["run_id"].isin(runs["run_id"])]
        source = replace(self.source, runs=runs, measured=measured)
        return replace(self, frame=self.frame[self.frame["dataset"] == name], source=source)


def sweep_table(
    records: Iterable[Record], view: View | None = None, *, folder: Path | None = None, paired: bool = True
) -> SweepTable:
    """Aggregate runs that differ in some parameters and in their seed.

    Args:
        records: in any order.
        view: metrics, split and baselines to show.
        folder: where the runs are kept, for their per-query values; results/runs when not given.
        paired: compare with the base model query by query, which reads a file per run.
    """
    collected = collect(records, view)
    view, scores = collected.view, _scores(collected)
    is_baseline = view.is_baseline(scores)
    rows = _combination_rows(scores[~is_baseline], collected)
    rows[list(PAIRED[:4])] = _paired(rows, collected, folder) if paired else float("nan")
    rows["p_holm"] = holm(rows["p"])
    rows["outcome"] = _outcomes(rows, collected)
    rows["pareto"] = _pareto(rows[rows["outcome"] != NOTHING_LEARNED], view).reindex(rows.index)
    frame = _joined([_baseline_rows(scores[is_baseline], collected), rows], collected)
    unpaired = int(rows["p"].isna().sum()) if paired else 0
    return SweepTable(frame, collected, [*table_notes.notes(collected), *_unpaired_note(unpaired, view)])


def _pareto(rows: pd.DataFrame, view: View) -> pd.Series:
    """Pareto marks within each dataset: a score on one says nothing about another."""
    marks = [
        pareto_front(of_dataset, larger=view.metrics[:1], smaller=("seconds", "bytes"))
        for _, of_dataset in rows.groupby("dataset", dropna=False)
    ]
    return pd.concat(marks).reindex(rows.index) if marks else pd.Series(index=rows.index, dtype="boolean")


def _outcomes(rows: pd.DataFrame, collected: Collected) -> pd.Series:
    """The difference from the base model in a word; empty where nothing was compared.

    A model is better or worse if the interval excludes 0 and p (Holm) is below `ALPHA`.

    Models of which no training step beat the base are named as such: by the notes of their runs or, in older records,
    because they equal the base model on every query.
    """
    low, high = rows["ci_low"].astype(float), rows["ci_high"].astype(float)
    equal = (rows["seconds"] > 0) & (rows["difference"] == 0) & (low == 0) & (high == 0)
    untrained = equal | pd.Series(_all_untrained(rows, collected), index=rows.index, dtype=bool)
    significant = rows["p_holm"] < ALPHA
    words = np.select([untrained, significant & (low > 0), significant & (high < 0), low.notna()], OUTCOMES, default="")
    return pd.Series(words, index=rows.index, dtype=object)


def _all_untrained(rows: pd.DataFrame, collected: Collected) -> list[bool]:
    """Whether the system of each row learned nothing in every run behind it."""
    untrained = collected.runs.set_index("run_id")["untrained"]
    return [
        system not in collected.view.baselines
        and all({"", system} & set(untrained[run_id]) for run_id in run_ids.split())
        for system, run_ids in rows[["system", "runs"]].itertuples(index=False)
    ]


def _unpaired_note(count: int, view: View) -> list[str]:
    reason = "their runs did not keep both per query, or not over the same queries"
    return [f"not compared with {view.against}: {count} rows ({reason})"] if count else []


def _scores(collected: Collected) -> pd.DataFrame:
    """Metric values with what tells their runs apart; dim 0 stands for none, because NaN cannot be grouped by."""
    rows = collected.measured[collected.measured["metric"].isin(collected.view.metrics)]
    names = [name for name in ("combination", "dataset", "data", "p.model_name") if name in collected.runs]
    return rows.assign(dim=rows["dim"].fillna(0)).merge(collected.runs[["run_id", *names]], on="run_id")


def _labels(collected: Collected) -> list[str]:
    """Columns that tell the combinations apart: dataset, notebook, what varies; code and data only where needed."""
    runs = collected.runs.drop_duplicates("combination")
    labels = [name for name in ("dataset", "notebook") if runs[name].nunique() > 1]
    labels += [f"p.{name}" for name in collected.parameters]
    for column in ("code", "data"):
        if len(runs) > 1 and (not labels or runs.duplicated(labels).any()) and runs[column].nunique() > 1:
            labels.append(column)
    return labels


def _aggregated(scores: pd.DataFrame, by: list[str], metrics: Sequence[str]) -> pd.DataFrame:
    """One row per value of the columns `by`: mean and standard deviation (n - 1) of every metric over runs."""
    columns = [*by, *(name for metric in metrics for name in (metric, f"{metric} sd")), "seeds", "runs"]
    if scores.empty:
        texts = ("system", "condition", "dataset", "data", "runs")
        return pd.DataFrame({name: pd.Series(dtype=object if name in texts else float) for name in columns})
    moments = scores.groupby([*by, "metric"], dropna=False)["value"].agg(["mean", "std"])
    moments = moments.unstack("metric").reindex(columns=pd.MultiIndex.from_product([["mean", "std"], metrics]))
    moments.columns = [metric if moment == "mean" else f"{metric} sd" for moment, metric in moments.columns]
    runs = scores.drop_duplicates([*by, "run_id"]).sort_values("run_id").groupby(by, dropna=False)["run_id"]
    return moments.assign(seeds=runs.size(), runs=runs.agg(" ".join)).reset_index()[columns]


def _baseline_rows(scores: pd.DataFrame, collected: Collected) -> pd.DataFrame:
    """Every baseline once per dataset (and base model), in the view's order, largest dimension first.

    Runs that start from a trained model name it in `model_name`. What they measured of the base model is the same to
    the last digit, and stands there once.
    """
    parts = []
    for system in collected.view.baselines:
        depends = [name for name in BASELINE_DEPENDS.get(system, OTHERS_DEPEND) if name in scores]
        by = [*SYSTEM_COLUMNS, "dataset", "data", *depends]
        rows = _aggregated(scores[scores["system"] == system], by, collected.view.metrics)
        rows["runs"] = rows["runs"].str.split().str[0]  # one is enough; `notes` says where they disagree
        rows["bytes"] = _bytes(rows, collected, SYSTEM_COLUMNS)
        order = ["data", "dataset", *depends, "condition"]
        parts.append(rows.sort_values([*order, "dim"], ascending=[True] * len(order) + [False]))
    spreads = [f"{metric} sd" for metric in collected.view.metrics]
    joined = pd.concat(parts) if parts else pd.DataFrame(columns=SYSTEM_COLUMNS)
    measured = [name for name in (*SYSTEM_COLUMNS, "dataset", "data", *collected.view.metrics) if name in joined]
    return joined.drop(columns=["seeds", *spreads], errors="ignore").drop_duplicates(measured)


def _combination_rows(scores: pd.DataFrame, collected: Collected) -> pd.DataFrame:
    """A row per combination, system and dimension, in order of the parameters, largest dimension first."""
    labels, by = _labels(collected), ["combination", *SYSTEM_COLUMNS]
    columns = list(dict.fromkeys(["dataset", *labels]))
    named = collected.runs.drop_duplicates("combination").set_index("combination")[columns]
    rows = _aggregated(scores, by, collected.view.metrics).join(named, on="combination")
    rows = rows.assign(bytes=_bytes(rows, collected, by), seconds=_seconds(rows, collected), depth=-rows["dim"])
    order = [*labels, *by[:-1], "depth"]
    return rows.sort_values(order, key=_sortable, ignore_index=True).drop(columns="depth")


def _sortable(column: pd.Series) -> pd.Series:
    if str(column.name).removeprefix("p.") in CAPS:
        return column.replace(0, float("inf"))
    return column if pd.api.types.is_numeric_dtype(column) else column.astype(str)


def _bytes(rows: pd.DataFrame, collected: Collected, by: list[str]) -> pd.Series:
    """Bytes of a document in the index: as recorded for the dimension or for the system, else float32."""
    exact, of_system = _recorded(BYTES, rows, collected, by), _recorded(BYTES, rows.assign(dim=0), collected, by)
    return exact.fillna(of_system).fillna((rows["dim"] * FLOAT32).where(rows["dim"] > 0)).astype(float)


def _seconds(rows: pd.DataFrame, collected: Collected) -> pd.Series:
    """Training seconds of the row's condition; those of the system where the condition has none of its own."""
    exact = _recorded(SECONDS, rows, collected, ["combination", "system", "condition"])
    plain = rows.assign(condition="")
    return exact.fillna(_recorded(SECONDS, plain, collected, ["combination", "system", "condition"]))


def _recorded(cost: str, rows: pd.DataFrame, collected: Collected, by: list[str]) -> pd.Series:
    """Mean of a cost over the runs behind each row; missing where none recorded it."""
    costs = collected.measured[collected.measured["metric"] == cost]
    costs = costs.merge(collected.runs[["run_id", "combination"]], on="run_id")
    means = costs.assign(dim=costs["dim"].fillna(0)).groupby(by)["value"].mean()
    return means.reindex(pd.MultiIndex.from_frame(rows[by])).set_axis(rows.index)


def _paired(rows: pd.DataFrame, collected: Collected, folder: Path | None) -> pd.DataFrame:
    """Difference of every row from the base model; empty where the queries do not allow it."""
    view, compared = collected.view, {}
    selection = {"split": view.split, "task": view.task, "stage": view.stage}
    for _, of_combination in rows.groupby("combination"):
        run_ids = of_combination["runs"].iloc[0].split()
        values = [query_values(run_id, view.metrics[0], folder=folder, **selection) for run_id in run_ids]
        for index, system, condition, dim in of_combination[SYSTEM_COLUMNS].itertuples(name=None):
            compared[index] = _difference(values, Measured(system, condition, int(dim) or None), view.against)
    return pd.DataFrame.from_dict(compared, orient="index", columns=list(PAIRED[:4])).astype(float)


def _difference(runs: Sequence[Mapping[Measured, pd.Series]], key: Measured, against: str) -> tuple[float, ...]:
    """Mean over seeds per query, minus the base model's at the same dimension, else at its largest."""
    dims = [dim for system, condition, dim in runs[0] if system == against and not condition]
    base = Measured(against, "", key.dim if key.dim in dims else max(dims, key=lambda dim: dim or 0, default=None))
    if not all(key in run and base in run for run in runs):
        return (float("nan"),) * 4
    values, base_values = (mean_over_runs([run[name] for run in runs]) for name in (key, base))
    if values is None or base_values is None or not values.index.equals(base_values.index):
        return (float("nan"),) * 4
    outcome = paired_difference(values.to_numpy(), base_values.to_numpy())
    return outcome.mean, outcome.low, outcome.high, outcome.p_value


def _column_names(collected: Collected) -> list[str]:
    scores = [name for metric in collected.view.metrics for name in (metric, f"{metric} sd")]
    return [
        *_labels(collected),
        *SYSTEM_COLUMNS,
        "seeds",
        *scores,
        *PAIRED,
        "outcome",
        "seconds",
        "bytes",
        "pareto",
        "runs",
    ]


def _joined(parts: Sequence[pd.DataFrame], collected: Collected) -> pd.DataFrame:
    """The rows of all parts under the same columns; whole numbers stay whole next to missing ones."""
    columns = _column_names(collected)
    rows = [row for frame in parts for row in frame.reindex(columns=columns).to_dict("records")]
    frame = pd.DataFrame(rows, columns=columns)
    frame["dim"] = frame["dim"].where(frame["dim"] > 0)
    nullable = {"i": "Int64", "b": "boolean"}
    kinds = {label: nullable.get(collected.runs[label].dtype.kind) for label in _labels(collected)}
    typed = {label: kind for label, kind in kinds.items() if kind}
    return frame.astype({**typed, "dim": "Int64", "seeds": "Int64", "pareto": "boolean"})


def readable(table: SweepTable) -> pd.DataFrame:
    """Format the table for people: `mean ± sd` in one cell, the difference with its interval, nothing for missing."""
    frame, first = table.frame, table.view.metrics[0]
    labels = frame.loc[:, :"system"].iloc[:, :-1]
    plain = {name: name.removeprefix("p.") for name in labels}
    cells = labels.rename(columns={name: short for name, short in plain.items() if short not in frame})
    condition = {"condition": frame["condition"]} if frame["condition"].fillna("").ne("").any() else {}
    cells = cells.assign(system=frame["system"], **condition, dim=frame["dim"], seeds=frame["seeds"])
    for cap in cells.columns.intersection(CAPS):
        cells[cap] = cells[cap].astype(object).mask(cells[cap].eq(0).fillna(False).astype(bool), "all")
    for metric in table.view.metrics:
        cells[metric] = _cells("{:.3f} ± {:.3f}", frame[metric], frame[f"{metric} sd"], short="{:.3f}")
    gains = frame[["difference", "ci_low", "ci_high"]]
    cells[f"{first} - {table.view.against}"] = _cells("{:+.3f} [{:+.3f}, {:+.3f}]", *gains.to_numpy(dtype=float).T)
    cells["p (Holm)"] = _cells("{:.2g}", frame["p_holm"])
    if frame["outcome"].fillna("").ne("").any():
        cells["outcome"] = frame["outcome"].fillna("")
    cells["training s"], cells["bytes"] = _cells("{:,.0f}", frame["seconds"]), _cells("{:,.0f}", frame["bytes"])
    return cells.assign(Pareto=frame["pareto"].map({True: "yes", False: ""}).fillna(""))


def _cells(pattern: str, *columns: Iterable[float], short: str = "") -> list[str]:
    """One text per row: `short` where only the first number is there, nothing where that is missing too."""

    def cell(numbers: tuple[float, ...]) -> str:
        if all(pd.notna(number) for number in numbers):
            return pattern.format(*numbers)
        return short.format(numbers[0]) if pd.notna(numbers[0]) else ""

    return [cell(numbers) for numbers in zip(*columns, strict=True)]


def caption(table: SweepTable) -> str:
    """Say how the numbers were computed."""
    view, compared = table.view, int(table.frame["p"].notna().sum())
    text = f"Mean ± standard deviation over seeds; {view.task}, {view.split} queries."
    if len(table.datasets) == 1 and table.datasets[0]:
        text = f"Dataset {table.datasets[0]}. {text}"
    if compared:
        text += (
            f" {view.metrics[0]} - {view.against}: values averaged over seeds, then paired by query, with the 95 %"
            f" interval over queries; p of the randomisation test, Holm over {compared} rows."
        )
    return text + (
        f" Pareto: no other combination on the same dataset is better in {view.metrics[0]}, training seconds and"
        " bytes at once; models of which no training step beat the base get no mark."
    )


def write_sweep_table(
    name: str,
    records: Iterable[Record],
    view: View | None = None,
    *,
    run_ids: Iterable[str] | None = None,
    folder: Path | None = None,
    tables_folder: Path | None = None,
    paired: bool = True,
) -> list[Path]:
    """Write sweep-NAME.md, .csv and .parquet; returns the three paths.

    Args:
        name: the sweep.
        records, view, folder, paired: see `sweep_table`.
        run_ids: every run of the sweep; those without a record are listed below the table with their cause.
        tables_folder: where to write; see `paths.my_tables_dir` when not given.
    """
    table = sweep_table(records, view, folder=folder, paired=paired)
    failed = failures(run_ids if run_ids is not None else (), folder)
    bullets = "".join(f"- {markdown(note)}\n" for note in table.notes)
    text = f"{tables.markdown(readable(table))}\n\n{markdown(caption(table))}\n\n{bullets}"
    if len(failed):
        text += f"\nRuns without a result ({len(failed)}):\n\n{tables.markdown(failed.map(_one_line))}\n"
    base = tables_folder or paths.my_tables_dir(folder)
    contents = {
        "md": text.encode(),
        "csv": csv_frame(table.frame).to_csv(index=False, lineterminator="\n").encode(),
        "parquet": table.frame.to_parquet(index=False),
    }
    base.mkdir(parents=True, exist_ok=True)
    written = [base / f"sweep-{name}.{ending}" for ending in contents]
    for path, content in zip(written, contents.values(), strict=True):
        write_atomic(path, content)
    return written


def _one_line(cell: object) -> object:
    return " ".join(cell.split())[:DETAIL] if isinstance(cell, str) else cell
