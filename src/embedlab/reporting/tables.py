"""Tables, always rebuilt from records and never appended to, so that parallel writers cannot race."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Real
from pathlib import Path

import pandas as pd

from embedlab import paths
from embedlab.errors import ParameterError
from embedlab.io import atomic_path
from embedlab.runs import records
from embedlab.runs.records import MetricRow, Record

# What else a difference between two rows may be due to.
ENVIRONMENT = ("python", "torch", "transformers", "sentence-transformers")
RUN_COLUMNS = ("run_id", "notebook", "seed", "commit", "dirty", "environment", "cpu")
METRIC_COLUMNS = ("task", "split", "model", "dim", "metric", "value", "ci_low", "ci_high", "n")


def all_records(folder: Path | None = None) -> Iterator[Record]:
    """Every committed record in order of its id; damaged ones are set aside with a message.

    Runs that a forced rerun has replaced do not count.
    """
    folder = folder or paths.runs_dir()
    for run_folder in sorted(folder.iterdir()) if folder.is_dir() else ():
        if records.OLD not in run_folder.name and (record := records.read_or_quarantine(run_folder)):
            yield record


def run_of(record: Record) -> dict[str, object]:
    """The run, its environment, and its parameters as `p.name`: what all metric rows of a record share."""
    run = {
        "run_id": record.run_id,
        "notebook": record.notebook,
        "seed": record.parameters.get("seed"),
        "commit": record.commit,
        "dirty": record.dirty,
        "environment": " ".join(f"{name} {record.versions.get(name, '?')}" for name in ENVIRONMENT),
        "cpu": record.hardware.get("cpu"),
    }
    return run | {f"p.{name}": _flat(value) for name, value in record.parameters.items() if name != "seed"}


def rows_of(record: Record) -> list[dict[str, object]]:
    """One row per metric of a record: the run, its parameters as `p.name`, the metric."""
    run = run_of(record)
    return [{**run, **row.model_dump()} for row in record.metrics]


def _flat(value: object) -> object:
    return " ".join(map(str, value)) if isinstance(value, list) else value


def runs_frame(run_records: Iterable[Record]) -> pd.DataFrame:
    """All metric rows of the records, the fixed columns first."""
    frame = pd.DataFrame([row for record in run_records for row in rows_of(record)])
    first = [*RUN_COLUMNS, *METRIC_COLUMNS]
    frame = frame.reindex(columns=[*first, *sorted(set(frame.columns) - set(first))])
    return frame.astype({"dim": "Int64", "n": "Int64"})


def rebuild_tables() -> list[Path]:
    """Write experiments/runs.csv and metrics.csv anew from all records: a row per run, a row per number.

    They join on `run_id`; apart, because the parameters repeated on every number made most of the file. Numbers have
    seven digits, what a float32 holds; the records keep all. Each file is replaced in one step.
    """
    kept = list(all_records())
    runs, metrics = pd.DataFrame(map(run_of, kept)), runs_frame(kept)[["run_id", *METRIC_COLUMNS]]
    first = [*RUN_COLUMNS, *sorted(set(runs.columns) - set(RUN_COLUMNS))]
    return [_replace_csv(paths.runs_csv(), runs.reindex(columns=first)), _replace_csv(paths.metrics_csv(), metrics)]


def _replace_csv(path: Path, frame: pd.DataFrame) -> Path:
    write = {"index": False, "lineterminator": "\n", "float_format": "%.7g"}
    return replace_file(path, lambda scratch: frame.to_csv(scratch, **write))


def replace_file(path: Path, write: Callable[[Path], object]) -> Path:
    """Write beside `path` and put it in place in one step, for others may be reading or rebuilding it."""
    with atomic_path(path) as scratch:
        write(scratch)
    return path


def mixtures(frame: pd.DataFrame) -> list[str]:
    """What makes the rows hard to compare: other environments, code versions or machines among them."""
    found = []
    for column, what in (("environment", "environments"), ("commit", "code versions"), ("cpu", "processors")):
        values = frame.drop_duplicates("run_id")[column].fillna("unknown").unique()
        if len(values) > 1:
            found.append(f"these runs mix {len(values)} {what}: {'; '.join(map(str, values))}")
    if frame["dirty"].fillna(False).any():
        found.append("some of these runs were made from a working tree with uncommitted changes")
    return found


def headline(rows: Sequence[MetricRow], metrics: Sequence[str]) -> pd.DataFrame:
    """Model (and dimension) x metric, each cell `value [low, high]`, in the order the rows were noted.

    Task and split stand before the model where the rows have several of them.
    """
    frame = pd.DataFrame([row.model_dump() for row in rows if row.metric in metrics])
    if frame.empty:
        return pd.DataFrame(columns=list(metrics))
    frame["cell"] = [_cell(*numbers) for numbers in zip(frame["value"], frame["ci_low"], frame["ci_high"], strict=True)]
    frame["dim"] = [f"{dim:.0f}" if pd.notna(dim) else "" for dim in frame["dim"]]
    several = [name for name in ("task", "split") if frame[name].nunique() > 1]
    wide = frame.pivot_table(
        index=[*several, "model", "dim"], columns="metric", values="cell", aggfunc="first", sort=False
    )
    wide = wide.reindex(columns=[metric for metric in metrics if metric in wide])
    return wide.fillna("").reset_index().rename_axis(columns=None)


def compact(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Metric rows narrow enough for a terminal, and what all of them have in common."""
    constant = [name for name in ("task", "split", "metric") if frame[name].nunique() == 1]
    cells = [_cell(*numbers) for numbers in zip(frame["value"], frame["ci_low"], frame["ci_high"], strict=True)]
    shown = [name for name in ("run_id", "task", "split", "model", "dim", "metric") if name not in constant]
    return frame[shown].assign(value=cells), ", ".join(str(frame[name].iloc[0]) for name in constant)


def _cell(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or pd.isna(value):
        return "missing"
    return f"{value:.3f}" if low is None or pd.isna(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def select(frame: pd.DataFrame, filters: Sequence[str], sort: str | None) -> pd.DataFrame:
    """Rows where every `column=value` holds, sorted by a column, largest first.

    Raises:
        ParameterError: a column that is not there.
    """
    for item in filters:
        column, _, value = item.partition("=")
        frame = frame[_column(frame, column).map(lambda cell, value=value: _is(cell, value)).astype(bool)]
    if sort:
        frame = frame.loc[_column(frame, sort).sort_values(ascending=False).index]
    return frame


def _is(cell: object, text: str) -> bool:
    """Whether a cell is what a person typed: 1e-4 is 0.0001, 384 is 384.0."""
    if isinstance(cell, Real) and not isinstance(cell, bool):
        try:
            return float(cell) == float(text)
        except ValueError:
            return False
    return str(cell) == text


def _column(frame: pd.DataFrame, name: str) -> pd.Series:
    for candidate in (name, f"p.{name}"):
        if candidate in frame:
            return frame[candidate]
    raise ParameterError(f"there is no column {name!r}", remedy=f"Columns are {', '.join(frame.columns)}", field=name)


def write_table(frame: pd.DataFrame, name: str, *, hide: Sequence[str] = (), caption: str = "") -> Path:
    """Write results/tables/NAME.csv and NAME.md (without the columns in `hide`); returns the CSV's path."""
    folder = paths.tables_dir()
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
    text = markdown(frame.drop(columns=list(hide))) + (f"\n\n{caption}" if caption else "")
    (folder / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    return folder / f"{name}.csv"


def markdown(frame: pd.DataFrame) -> str:
    """A GitHub table; text cells to the left, numbers to the right, missing values empty."""
    numeric = [pd.api.types.is_numeric_dtype(frame[column]) for column in frame]
    lines = [[str(column) for column in frame], ["---:" if right else "---" for right in numeric]]
    lines += [
        ["" if pd.isna(cell) else str(cell).replace("|", "\\|") for cell in row]
        for row in frame.itertuples(index=False)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
