"""Other ways to look at the table of all runs: filtered by comparison, pivoted, written to a file."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from embedlab.errors import ParameterError
from embedlab.reporting import tables

FILTER = re.compile(r"^(?P<column>[^=!<>~]+?)\s*(?P<sign>!=|>=|<=|=|>|<|~)\s*(?P<value>.*)$", re.DOTALL)
ORDER: dict[str, Callable[[pd.Series, float], pd.Series]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}
APART = ("task", "split", "model", "dim")  # what no mean over runs may mix
FORMATS = ("csv", "md", "parquet", "tex")


def where(frame: pd.DataFrame, filters: Sequence[str]) -> pd.DataFrame:
    """Rows for which every filter holds: `column=value`, `!=`, `>`, `<`, `>=`, `<=`, or `column~part of a text`.

    A missing cell satisfies only `column=` (which asks for missing ones) and `!=` a value.

    Raises:
        ParameterError: no such filter, no such column, or an order asked of a text.
    """
    for text in filters:
        match = FILTER.match(text)
        if match is None:
            remedy = "Write column=value, or !=, >, <, >=, <=, ~"
            raise ParameterError(f"{text!r} is no filter", remedy=remedy, field="filter")
        cells = tables._column(frame, match["column"].strip())
        frame = frame[_holds(cells, match["sign"], match["value"].strip(), text)]
    return frame


def _holds(cells: pd.Series, sign: str, value: str, text: str) -> pd.Series:
    """Nullable truth per row, as plain booleans."""
    if sign in ("=", "!="):
        equal = cells.isna() if value == "" else cells.map(lambda cell: tables._is(cell, value)).astype(bool)
        return equal if sign == "=" else ~equal
    if sign == "~":
        return cells.notna() & cells.astype(str).str.contains(value, regex=False, case=False)
    numbers = pd.to_numeric(cells, errors="coerce").astype(float)
    if numbers.isna().all() and cells.notna().any():
        remedy = f"{cells.name} is no number; use = or ~"
        raise ParameterError(f"{text!r} compares a text", remedy=remedy, field="filter")
    return ORDER[sign](numbers, _number(value, text))


def _number(value: str, text: str) -> float:
    try:
        return float(value)
    except ValueError:
        remedy = f"Give a number instead of {value!r}"
        raise ParameterError(f"{text!r} compares with a text", remedy=remedy, field="filter") from None


def pivot(frame: pd.DataFrame, rows: Sequence[str], columns: str, metric: str = "ndcg@10") -> pd.DataFrame:
    """One metric as rows x columns, the mean where several runs fall into a cell, empty where none does.

    No mean crosses tasks, splits, models or dimensions: those that vary and are not named become rows.

    Args:
        frame: metric rows, as `tables.runs_frame` gives them.
        rows: columns that name a row, e.g. ["learning_rate", "model"].
        columns: the column whose values become columns, e.g. "dim".
        metric: e.g. `ndcg@10`.

    Raises:
        ParameterError: an unknown column or metric.
    """
    chosen = frame[frame["metric"] == metric]
    if chosen.empty:
        known = ", ".join(map(str, frame["metric"].dropna().unique())) or "none"
        raise ParameterError(f"no run has the metric {metric!r}", remedy=f"Metrics are {known}", field="metric")
    apart = [name for name in APART if name not in (*rows, columns) and chosen[name].nunique(dropna=False) > 1]
    by = [tables._column(chosen, name).rename(name) for name in (*rows, *apart)]
    across = tables._column(chosen, columns).rename(columns)
    # An empty text, not NaN: rows without a value of a parameter are rows too.
    keys = [key.astype(object).where(key.notna(), "") for key in (*by, across)]
    wide = chosen["value"].groupby(keys, sort=False).mean().unstack(columns)
    wide = wide[sorted(wide.columns, key=_order)].sort_index(key=lambda level: level.map(_order))
    return wide.rename(columns=str).rename_axis(columns=None).reset_index()


def _order(value: object) -> tuple[int, float, str]:
    """Numbers by size, then texts by letter; mixed columns have an order too."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (0, float(value), "") if number else (1, 0.0, str(value))


def export(frame: pd.DataFrame, path: Path) -> Path:
    """Write a table in the format that the file's ending names: csv, md, parquet or tex.

    Raises:
        ParameterError: another ending.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise ParameterError(
            f"{path.suffix or 'no ending'} is no format", remedy=f"End in {', '.join(FORMATS)}", file=path
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "parquet":
        frame.to_parquet(path, index=False)
    else:
        path.write_text(as_text(frame, kind), encoding="utf-8")
    return path


def as_text(frame: pd.DataFrame, kind: str) -> str:
    """The table as csv, md or tex, missing values empty."""
    if kind == "csv":
        return frame.to_csv(index=False, lineterminator="\n")
    if kind == "md":
        return tables.markdown(frame) + "\n"
    return frame.astype(object).where(frame.notna(), None).to_latex(index=False, na_rep="", escape=True)
