"""Choose rows of a table by what a person types: `column=value`, `column>value`, `column~text`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from numbers import Real

import pandas as pd

from embedlab.errors import ParameterError

FILTER = re.compile(r"^(?P<column>[^=!<>~]+?)\s*(?P<sign>!=|>=|<=|=|>|<|~)\s*(?P<value>.*)$", re.DOTALL)
ORDER: dict[str, Callable[[pd.Series, float], pd.Series]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}


def select(frame: pd.DataFrame, filters: Sequence[str], sort: str | None = None) -> pd.DataFrame:
    """Rows for which every `column=value` holds, sorted by a column, largest first.

    Args:
        frame: any table.
        filters: e.g. ["learning_rate=1e-4"]; parameters may be named with or without `p.`.
        sort: the column to sort by; the order stays when it is not given.

    Raises:
        ParameterError: a column that the table does not have.
    """
    for item in filters:
        name, _, value = item.partition("=")
        cells = column(frame, name)
        frame = frame[[matches(cell, value) for cell in cells]]
    if sort:
        frame = frame.loc[column(frame, sort).sort_values(ascending=False).index]
    return frame


def where(frame: pd.DataFrame, filters: Sequence[str]) -> pd.DataFrame:
    """Rows for which every filter holds: `column=value`, `!=`, `>`, `<`, `>=`, `<=`, or `column~part of a text`.

    A missing cell satisfies only `column=` (which selects missing cells) and `!=` a value.

    Raises:
        ParameterError: a filter that cannot be read, a column that does not exist, or a text compared by size.
    """
    for text in filters:
        match = FILTER.match(text)
        if match is None:
            remedy = "Write column=value; the signs !=, >, <, >=, <= and ~ work too"
            raise ParameterError(f"cannot read the filter {text!r}", remedy=remedy, field="filter")
        cells = column(frame, match["column"].strip())
        frame = frame[_mask(cells, match["sign"], match["value"].strip(), text)]
    return frame


def _mask(cells: pd.Series, sign: str, value: str, text: str) -> pd.Series:
    """A plain boolean per cell."""
    if sign in ("=", "!="):
        equal = cells.isna() if value == "" else cells.map(lambda cell: matches(cell, value)).astype(bool)
        return equal if sign == "=" else ~equal
    if sign == "~":
        return cells.notna() & cells.astype(str).str.contains(value, regex=False, case=False)
    numbers = pd.to_numeric(cells, errors="coerce").astype(float)
    if numbers.isna().all() and cells.notna().any():
        problem = f"{text!r} compares by size, but the column {cells.name} holds text"
        raise ParameterError(problem, remedy="Use = or ~ instead", field="filter")
    return ORDER[sign](numbers, _number(value, text))


def _number(value: str, text: str) -> float:
    try:
        return float(value)
    except ValueError:
        problem = f"{text!r} compares by size, so it needs a number, got {value!r}"
        raise ParameterError(problem, remedy="Write a number, for example dim>=64", field="filter") from None


def matches(cell: object, text: str) -> bool:
    """Whether a cell equals what a person typed: 1e-4 matches 0.0001, 384 matches 384.0."""
    if isinstance(cell, Real) and not isinstance(cell, bool):
        try:
            return float(cell) == float(text)
        except ValueError:
            return False
    return str(cell) == text


def column(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column by its name, or a parameter by its name without `p.`.

    Raises:
        ParameterError: the table has no such column.
    """
    for candidate in (name, f"p.{name}"):
        if candidate in frame:
            return frame[candidate]
    raise ParameterError(f"there is no column {name!r}", remedy=f"Columns are {', '.join(frame.columns)}", field=name)
