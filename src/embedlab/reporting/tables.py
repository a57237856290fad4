"""Tables of runs: rebuilt from records every time and never appended to, so parallel writers cannot race."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from embedlab import paths
from embedlab.errors import ParameterError
from embedlab.escaping import csv_frame, markdown_cell
from embedlab.escaping import markdown as markdown_text
from embedlab.io import confined, write_atomic
from embedlab.runs import filters, records
from embedlab.runs.notebooks import default_of, flat
from embedlab.runs.records import Record
from embedlab.runs.summary import format_value

# What a difference between two rows may be due to, besides the parameters.
ENVIRONMENT = ("python", "torch", "transformers", "sentence-transformers")
RUN_COLUMNS = ("run_id", "notebook", "dataset", "seed", "commit", "dirty", "environment", "cpu")
SYSTEM_COLUMNS = ("system", "condition", "technique", "stage", "task", "split", "dim")
METRIC_COLUMNS = (*SYSTEM_COLUMNS, "metric", "statistic", "against", "value", "ci_low", "ci_high", "n")
COMPACT_COLUMNS = ("stage", "task", "split", "metric")  # named once above a table when they are the same in all rows
SEPARATE = ("task", "stage", "split", "statistic", "against", "system", "condition", "dim")  # no mean mixes these
FORMATS = ("csv", "md", "parquet", "tex")


def all_records() -> Iterator[Record]:
    """Read every committed record in order of its id; damaged ones are set aside with a message.

    Runs that a forced rerun has replaced do not count.
    """
    folder = paths.runs_dir()
    for run_folder in sorted(folder.iterdir()) if folder.is_dir() else ():
        if records.OLD not in run_folder.name and (record := records.read_or_quarantine(run_folder)):
            yield record


def run_of(record: Record) -> dict[str, object]:
    """Return what all metric rows of a record share: run, dataset, environment, and parameters as `p.name`."""
    run = {
        "run_id": record.run_id,
        "notebook": record.notebook,
        "dataset": record.parameters.get("dataset"),
        "seed": record.parameters.get("seed"),
        "commit": record.commit,
        "dirty": record.dirty,
        "environment": " ".join(f"{name} {record.versions.get(name, '?')}" for name in ENVIRONMENT),
        "cpu": record.hardware.get("cpu"),
    }
    parameters = {name: value for name, value in flat(record.parameters).items() if name not in ("seed", "dataset")}
    return run | {f"p.{name}": _flat(value) for name, value in parameters.items()}


def rows_of(record: Record) -> list[dict[str, object]]:
    """Return one row per metric of a record: the run, its parameters as `p.name`, the metric."""
    run = run_of(record)
    return [{**run, **row.model_dump()} for row in record.metrics]


def _flat(value: object) -> object:
    return " ".join(map(str, value)) if isinstance(value, list) else value


def runs_frame(run_records: Iterable[Record]) -> pd.DataFrame:
    """Return all metric rows of the records: columns RUN_COLUMNS, METRIC_COLUMNS, then the parameters."""
    frame = pd.DataFrame([row for record in run_records for row in rows_of(record)])
    first = [*RUN_COLUMNS, *METRIC_COLUMNS]
    for name in frame.columns:
        if name.startswith("p.engine.") and (default := default_of(name.removeprefix("p."))) is not None:
            frame[name] = frame[name].fillna(default)
    frame = frame.reindex(columns=[*first, *sorted(set(frame.columns) - set(first))])
    return frame.astype({"dim": "Int64", "n": "Int64"})


def mixtures(frame: pd.DataFrame) -> list[str]:
    """List what makes the rows hard to compare: several environments, code versions or machines among them."""
    notes = []
    for column, plural in (("environment", "environments"), ("commit", "code versions"), ("cpu", "processors")):
        values = frame.drop_duplicates("run_id")[column].fillna("unknown").unique()
        if len(values) > 1:
            notes.append(f"these runs mix {len(values)} {plural}: {'; '.join(map(str, values))}")
    if frame["dirty"].fillna(False).any():
        notes.append("some of these runs were made from a working tree with uncommitted changes")
    return notes


def varying_parameters(frame: pd.DataFrame) -> list[str]:
    """List the parameters (`p.name`) with several values among the runs of one notebook."""
    runs = frame.drop_duplicates("run_id")
    parameters = [name for name in runs if str(name).startswith("p.")]
    return [name for name in parameters if (runs.groupby("notebook")[name].nunique() > 1).any()]


def mine_first(frame: pd.DataFrame, study: frozenset[str] | set[str]) -> pd.DataFrame:
    """Put your own runs before those of the committed study, and mark both in a column `from`.

    Args:
        frame: metric rows, sorted as you like.
        study: ids of the runs that belong to the committed study; see `published.study_runs`.
    """
    origin = frame["run_id"].map(lambda run_id: "study" if run_id in study else "mine")
    return frame.assign(**{"from": origin}).sort_values("from", kind="stable")  # "mine" comes before "study"


def compact(frame: pd.DataFrame, parameters: Sequence[str] = ()) -> tuple[pd.DataFrame, str]:
    """Make metric rows narrow enough for a terminal.

    Args:
        frame: metric rows, as `runs_frame` gives them.
        parameters: columns of parameters to show.

    Returns:
        The rows with one value cell, and the text of what all of them have in common.
    """
    constant = [name for name in COMPACT_COLUMNS if frame[name].nunique() == 1]
    optional = [name for name in ("condition", "against") if frame[name].fillna("").ne("").any()]
    optional += ["statistic"] * (frame["statistic"].nunique() > 1)
    cells = [
        format_value(value, low, high)
        for value, low, high in frame[["value", "ci_low", "ci_high"]].astype(float).itertuples(index=False)
    ]
    names = ["from", "run_id", "dataset", *COMPACT_COLUMNS, "system", *optional, "dim"]
    columns = [name for name in names if name in frame and name not in constant]
    narrow = frame[[*columns, *parameters]].assign(value=cells)
    if frame["n"].notna().any():  # how many queries a value rests on
        narrow["n"] = ["" if pd.isna(n) else f"{n:,}" for n in frame["n"]]
    short = {name: str(name).removeprefix("p.") for name in parameters}
    return narrow.rename(columns=short), ", ".join(str(frame[name].iloc[0]) for name in constant)


def pivot(frame: pd.DataFrame, rows: Sequence[str], columns: str, metric: str = "ndcg@10") -> pd.DataFrame:
    """Show one metric as rows x columns, the mean where several runs share a cell, empty where none has a value.

    No mean mixes tasks, splits, systems or dimensions: those that vary and are not named become rows.

    Args:
        frame: metric rows, as `runs_frame` gives them.
        rows: columns that name a row, e.g. ["learning_rate", "system"].
        columns: the column whose values become columns, e.g. "dim".
        metric: e.g. `ndcg@10`.

    Raises:
        ParameterError: an unknown column or metric.
    """
    measured = frame[frame["metric"] == metric]
    if measured.empty:
        metrics = ", ".join(map(str, frame["metric"].dropna().unique())) or "none"
        raise ParameterError(f"no run has the metric {metric!r}", remedy=f"Metrics are {metrics}", field="metric")
    separate = [name for name in ("dataset", *SEPARATE) if name in measured and name not in (*rows, columns)]
    separate = [name for name in separate if measured[name].nunique(dropna=False) > 1]
    by = [filters.column(measured, name).rename(name) for name in (*rows, *separate)]
    across = filters.column(measured, columns).rename(columns)
    # An empty text, not NaN: rows without a value of a parameter are rows too.
    keys = [key.astype(object).where(key.notna(), "") for key in (*by, across)]
    wide = measured["value"].groupby(keys, sort=False).mean().unstack(columns)
    wide = wide[sorted(wide.columns, key=_order)].sort_index(key=lambda level: level.map(_order))
    return wide.rename(columns=str).rename_axis(columns=None).reset_index()


def _order(value: object) -> tuple[int, float, str]:
    """Numbers by size, then texts by letter; mixed columns have an order too."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 0, float(value), ""
    return 1, 0.0, str(value)


def write_table(
    frame: pd.DataFrame, name: str, *, hide: Sequence[str] = (), caption: str = "", with_code: Sequence[str] = ()
) -> Path:
    """Write NAME.csv and NAME.md (without the columns in `hide`) to results/tables; returns the CSV's path.

    Args:
        frame: the table.
        name: the files' name without ending.
        hide: columns that only the CSV has.
        caption: a text below the Markdown table.
        with_code: see `markdown`.
    """
    folder = paths.tables_dir()
    confined(folder, name, field="name")
    folder.mkdir(parents=True, exist_ok=True)
    csv_frame(frame).to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    text = markdown(frame.drop(columns=list(hide)), with_code) + (f"\n\n{markdown_text(caption)}" if caption else "")
    (folder / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    return folder / f"{name}.csv"


def export(frame: pd.DataFrame, path: Path) -> Path:
    """Write a table in the format that the file's ending names: csv, md, parquet or tex.

    Raises:
        ParameterError: the file has another ending.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        ending = repr(path.suffix) if path.suffix else "no ending"
        remedy = f"Use one of {', '.join(f'.{name}' for name in FORMATS)}"
        raise ParameterError(f"the file has the ending {ending}, which is not supported", remedy=remedy, file=path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "parquet":
        frame.to_parquet(path, index=False)
    else:
        write_atomic(path, as_text(frame, kind))
    return path


def as_text(frame: pd.DataFrame, kind: str) -> str:
    """Return the table as csv, md or tex text, missing values empty."""
    if kind == "csv":
        return str(csv_frame(frame).to_csv(index=False, lineterminator="\n"))
    if kind == "md":
        return markdown(frame) + "\n"
    return str(frame.astype(object).where(frame.notna(), None).to_latex(index=False, na_rep="", escape=True))


def markdown(frame: pd.DataFrame, with_code: Sequence[str] = ()) -> str:
    """Return a GitHub table: text to the left, numbers to the right, missing values empty.

    Args:
        frame: the table.
        with_code: columns of names that the project declares, in which backticks mark code.
    """
    numeric = [pd.api.types.is_numeric_dtype(frame[column]) for column in frame]
    lines = [[markdown_cell(str(column)) for column in frame], ["---:" if right else "---" for right in numeric]]
    escapes = [markdown_text if column in with_code else markdown_cell for column in frame]
    lines += [
        ["" if pd.isna(cell) else escape(str(cell)) for cell, escape in zip(row, escapes, strict=True)]
        for row in frame.itertuples(index=False)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
