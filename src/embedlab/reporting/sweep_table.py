"""A sweep as one table: a row per combination of parameters, its seeds averaged, beside the baselines.

Read from records alone, so it is the same whoever ran the sweep and in whatever order the runs came in. Tables are
written anew every time, never appended to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from embedlab import paths
from embedlab.evaluation.significance import holm, paired_difference
from embedlab.reporting import caveats, tables
from embedlab.reporting.front import pareto_front
from embedlab.reporting.sweep_data import BYTES, SECONDS, Collected, View, collect
from embedlab.runs.failures import failures
from embedlab.runs.per_query import Measured as System
from embedlab.runs.per_query import mean_over_runs, query_values
from embedlab.runs.records import Record

DETAIL = 200  # characters of a failure's detail in a table
CAPS = ("max_steps", "max_examples", "fine_tune_pairs")  # 0 says that there is none
FLOAT32 = 4  # bytes of a number in a plain index
PAIRED = ("difference", "ci_low", "ci_high", "p", "p_holm")

# What a baseline depends on; whatever else a sweep varies, it stays the same measurement.
BASELINE_DEPENDS = {"bm25": ("dataset",)}
OTHERS_DEPEND = ("dataset", "model_name")


@dataclass(frozen=True)
class SweepTable:
    """A sweep's table and what must be said about it.

    Attributes:
        frame: baselines first, then a row per combination and model. Columns: the varying parameters as `p.NAME`,
            model, dim, seeds (runs behind the row), per metric its mean over seeds and `METRIC sd`, `difference` of
            the first metric from the base model's with ci_low, ci_high, p and p_holm, seconds (training, mean over
            seeds), bytes (per document), pareto (quality, seconds, bytes; baselines do not compete), runs (ids).
        source: the runs and single values that were aggregated.
        notes: caveats, one sentence each.
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
        """The varying parameters."""
        return self.source.parameters

    @property
    def combinations(self) -> pd.DataFrame:
        """The rows that are no baselines."""
        return self.frame[~self.frame["model"].isin(self.view.baselines)]


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
    found = collect(records, view)
    view, scores = found.view, _scores(found)
    is_baseline = scores["model"].isin(view.baselines)
    rows = _combination_rows(scores[~is_baseline], found)
    rows[list(PAIRED[:4])] = _paired(rows, found, folder) if paired else float("nan")
    rows["p_holm"] = holm(rows["p"])
    rows["pareto"] = pareto_front(rows, larger=view.metrics[:1], smaller=("seconds", "bytes"))
    frame = _together([_baseline_rows(scores[is_baseline], found), rows], found)
    unpaired = int(rows["p"].isna().sum()) if paired else 0
    notes = [*caveats.notes(found), *_unpaired_note(unpaired, view)]
    return SweepTable(frame, found, notes)


def _unpaired_note(count: int, view: View) -> list[str]:
    reason = "their runs did not keep both per query, or not over the same queries"
    return [f"not compared with {view.against}: {count} rows ({reason})"] if count else []


def _scores(found: Collected) -> pd.DataFrame:
    """Measured metric values with what tells their run apart; dim 0 stands for none, which cannot be grouped by."""
    rows = found.measured[found.measured["metric"].isin(found.view.metrics)]
    names = [name for name in ("combination", "data", "p.dataset", "p.model_name") if name in found.runs]
    return rows.assign(dim=rows["dim"].fillna(0)).merge(found.runs[["run_id", *names]], on="run_id")


def _labels(found: Collected) -> list[str]:
    """Columns of the runs that tell the combinations apart: what varies, and only if need be code and data."""
    runs = found.runs.drop_duplicates("combination")
    labels = ["notebook"] * (runs["notebook"].nunique() > 1) + [f"p.{name}" for name in found.parameters]
    for column in ("code", "data"):
        if len(runs) > 1 and (not labels or runs.duplicated(labels).any()) and runs[column].nunique() > 1:
            labels.append(column)
    return labels


def _aggregated(scores: pd.DataFrame, by: list[str], metrics: Sequence[str]) -> pd.DataFrame:
    """One row per value of the columns `by`: mean and standard deviation (n - 1) of every metric over runs."""
    columns = [*by, *(name for metric in metrics for name in (metric, f"{metric} sd")), "seeds", "runs"]
    if scores.empty:
        return pd.DataFrame({name: pd.Series(dtype=object if name in ("model", "runs") else float) for name in columns})
    spread = scores.groupby([*by, "metric"], dropna=False)["value"].agg(["mean", "std"])
    spread = spread.unstack("metric").reindex(columns=pd.MultiIndex.from_product([["mean", "std"], metrics]))
    spread.columns = [metric if what == "mean" else f"{metric} sd" for what, metric in spread.columns]
    runs = scores.drop_duplicates([*by, "run_id"]).sort_values("run_id").groupby(by, dropna=False)["run_id"]
    return spread.assign(seeds=runs.size(), runs=runs.agg(" ".join)).reset_index()[columns]


def _baseline_rows(scores: pd.DataFrame, found: Collected) -> pd.DataFrame:
    """Every baseline once per data (and base model), in the view's order, largest dimension first.

    Runs that look at a tuned model name it where others name the base model; what they measured of the base model is
    the same to the last digit and stands there once.
    """
    parts = []
    for model in found.view.baselines:
        depends = [f"p.{name}" for name in BASELINE_DEPENDS.get(model, OTHERS_DEPEND)]
        by = ["model", "dim", "data", *(name for name in depends if name in scores)]
        rows = _aggregated(scores[scores["model"] == model], by, found.view.metrics)
        rows["runs"] = rows["runs"].str.split().str[0]  # one proves it; `caveats` tells if they disagree
        rows["bytes"] = _bytes(rows, found, ["model", "dim"])
        parts.append(rows.sort_values([*by[2:], "dim"], ascending=[True] * len(by[2:]) + [False]))
    spreads = [f"{metric} sd" for metric in found.view.metrics]
    together = pd.concat(parts) if parts else pd.DataFrame(columns=["model", "dim"])
    measured = [name for name in ("model", "dim", "data", *found.view.metrics) if name in together]
    return together.drop(columns=["seeds", *spreads], errors="ignore").drop_duplicates(measured)


def _combination_rows(scores: pd.DataFrame, found: Collected) -> pd.DataFrame:
    """A row per combination, model and dimension, in order of the parameters, largest dimension first."""
    labels, by = _labels(found), ["combination", "model", "dim"]
    named = found.runs.drop_duplicates("combination").set_index("combination")[labels]
    rows = _aggregated(scores, by, found.view.metrics).join(named, on="combination")
    rows = rows.assign(bytes=_bytes(rows, found, by), seconds=_noted(SECONDS, rows, found, by[:2]), depth=-rows["dim"])
    return rows.sort_values([*labels, *by[:2], "depth"], key=_sortable, ignore_index=True).drop(columns="depth")


def _sortable(column: pd.Series) -> pd.Series:
    if str(column.name).removeprefix("p.") in CAPS:
        return column.replace(0, float("inf"))
    return column if pd.api.types.is_numeric_dtype(column) else column.astype(str)


def _bytes(rows: pd.DataFrame, found: Collected, by: list[str]) -> pd.Series:
    """Bytes that a document takes: as the runs noted them for the dimension or for the model, else float32."""
    exact, of_model = _noted(BYTES, rows, found, by), _noted(BYTES, rows.assign(dim=0), found, by)
    return exact.fillna(of_model).fillna((rows["dim"] * FLOAT32).where(rows["dim"] > 0)).astype(float)


def _noted(cost: str, rows: pd.DataFrame, found: Collected, by: list[str]) -> pd.Series:
    """Mean of a cost over the runs behind each row; missing where none noted it."""
    known = found.measured[found.measured["metric"] == cost].merge(found.runs[["run_id", "combination"]], on="run_id")
    means = known.assign(dim=known["dim"].fillna(0)).groupby(by)["value"].mean()
    return means.reindex(pd.MultiIndex.from_frame(rows[by])).set_axis(rows.index)


def _paired(rows: pd.DataFrame, found: Collected, folder: Path | None) -> pd.DataFrame:
    """Difference from the base model of every row; empty where the queries do not allow it."""
    view, compared = found.view, {}
    for _, of_combination in rows.groupby("combination"):
        run_ids = of_combination["runs"].iloc[0].split()
        values = [
            query_values(run_id, view.metrics[0], split=view.split, task=view.task, folder=folder) for run_id in run_ids
        ]
        for index, model, dim in of_combination[["model", "dim"]].itertuples(name=None):
            compared[index] = _difference(values, (model, int(dim) or None), view.against)
    return pd.DataFrame.from_dict(compared, orient="index", columns=list(PAIRED[:4])).astype(float)


def _difference(runs: Sequence[Mapping[System, pd.Series]], system: System, against: str) -> tuple[float, ...]:
    """Mean over seeds per query, minus the base model's at the same dimension, else at its largest."""
    dims = [dim for model, dim in runs[0] if model == against]
    base = (against, system[1] if system[1] in dims else max(dims, key=lambda dim: dim or 0, default=None))
    if not all(system in run and base in run for run in runs):
        return (float("nan"),) * 4
    own, other = (mean_over_runs([run[name] for run in runs]) for name in (system, base))
    if own is None or other is None or not own.index.equals(other.index):
        return (float("nan"),) * 4
    outcome = paired_difference(own.to_numpy(), other.to_numpy())
    return outcome.mean, outcome.low, outcome.high, outcome.p_value


def _column_names(found: Collected) -> list[str]:
    scores = [name for metric in found.view.metrics for name in (metric, f"{metric} sd")]
    return [*_labels(found), "model", "dim", "seeds", *scores, *PAIRED, "seconds", "bytes", "pareto", "runs"]


def _together(parts: Sequence[pd.DataFrame], found: Collected) -> pd.DataFrame:
    """The rows of all parts under the same columns; whole numbers stay whole beside missing ones."""
    columns = _column_names(found)
    rows = [row for part in parts for row in part.reindex(columns=columns).to_dict("records")]
    frame = pd.DataFrame(rows, columns=columns)
    frame["dim"] = frame["dim"].where(frame["dim"] > 0)
    whole = {"i": "Int64", "b": "boolean"}
    kinds = {label: whole.get(found.runs[label].dtype.kind) for label in _labels(found)}
    known = {label: kind for label, kind in kinds.items() if kind}
    return frame.astype({**known, "dim": "Int64", "seeds": "Int64", "pareto": "boolean"})


def readable(table: SweepTable) -> pd.DataFrame:
    """The table as people read it: `mean ± sd` in one cell, the difference with its interval, nothing for missing."""
    frame, first = table.frame, table.view.metrics[0]
    labels = frame.loc[:, :"model"].iloc[:, :-1]
    plain = {name: name.removeprefix("p.") for name in labels}
    shown = labels.rename(columns={name: short for name, short in plain.items() if short not in frame}).assign(
        model=frame["model"], dim=frame["dim"], seeds=frame["seeds"]
    )
    for cap in shown.columns.intersection(CAPS):
        shown[cap] = shown[cap].astype(object).mask(shown[cap].eq(0).fillna(False).astype(bool), "all")
    for metric in table.view.metrics:
        shown[metric] = _cells("{:.3f} ± {:.3f}", frame[metric], frame[f"{metric} sd"], short="{:.3f}")
    gains = frame[["difference", "ci_low", "ci_high"]]
    shown[f"{first} - {table.view.against}"] = _cells("{:+.3f} [{:+.3f}, {:+.3f}]", *gains.to_numpy(dtype=float).T)
    shown["p (Holm)"] = _cells("{:.2g}", frame["p_holm"])
    shown["training s"], shown["bytes"] = _cells("{:,.0f}", frame["seconds"]), _cells("{:,.0f}", frame["bytes"])
    return shown.assign(Pareto=frame["pareto"].map({True: "yes", False: ""}).fillna(""))


def _cells(pattern: str, *columns: Iterable[float], short: str = "") -> list[str]:
    """One text per row; with only the first number known `short`, and nothing where that is missing too."""

    def cell(numbers: tuple[float, ...]) -> str:
        if all(pd.notna(number) for number in numbers):
            return pattern.format(*numbers)
        return short.format(numbers[0]) if pd.notna(numbers[0]) else ""

    return [cell(numbers) for numbers in zip(*columns, strict=True)]


def caption(table: SweepTable) -> str:
    """How the numbers were made."""
    view, compared = table.view, int(table.frame["p"].notna().sum())
    text = f"Mean ± standard deviation over seeds; {view.task}, {view.split} queries."
    if compared:
        text += (
            f" {view.metrics[0]} - {view.against}: values averaged over seeds, then paired by query, with the 95 %"
            f" interval over queries; p of the randomisation test, Holm over {compared} rows."
        )
    return text + f" Pareto: no other combination is better in {view.metrics[0]}, training seconds and bytes at once."


def write_sweep_table(
    name: str,
    records: Iterable[Record],
    view: View | None = None,
    *,
    run_ids: Iterable[str] | None = None,
    folder: Path | None = None,
    paired: bool = True,
) -> list[Path]:
    """Write sweep-NAME.md, .csv and .parquet anew (see `paths.tables_dir`); returns the three.

    Args:
        name: the sweep.
        records, view, folder, paired: see `sweep_table`.
        run_ids: every run of the sweep; those without a record are listed below the table with their cause.
    """
    table = sweep_table(records, view, folder=folder, paired=paired)
    lost = failures(run_ids if run_ids is not None else (), folder)
    caveat_list = "".join(f"- {note}\n" for note in table.notes)
    text = f"{tables.markdown(readable(table))}\n\n{caption(table)}\n\n{caveat_list}"
    if len(lost):
        text += f"\nRuns without a result ({len(lost)}):\n\n{tables.markdown(lost.map(_one_line))}\n"
    base = paths.tables_dir(folder) / f"sweep-{name}"
    return [
        tables.replace_file(Path(f"{base}.md"), lambda path: path.write_text(text, encoding="utf-8")),
        tables.replace_file(
            Path(f"{base}.csv"), lambda path: table.frame.to_csv(path, index=False, lineterminator="\n")
        ),
        tables.replace_file(Path(f"{base}.parquet"), lambda path: table.frame.to_parquet(path, index=False)),
    ]


def _one_line(cell: object) -> object:
    return " ".join(cell.split())[:DETAIL] if isinstance(cell, str) else cell
