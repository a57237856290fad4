"""Compare two systems by slices of the queries: a better mean can hide a slice that got worse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from embedlab.errors import DataError, ParameterError
from embedlab.evaluation.metrics import Evaluation
from embedlab.evaluation.significance import ALPHA, NAN, bootstrap_ci, holm, paired_difference

Fields = Mapping[str, Mapping[str, str]]  # query id -> {field name: value}

UNKNOWN = "(unknown)"  # slice of the queries that lack the field


def slice_differences(a: Evaluation, b: Evaluation, fields: Fields, by: str, metric: str) -> pd.DataFrame:
    """Compare system `a` with `b` in every slice, and flag significant losses.

    Args:
        a, b: evaluations of the same queries.
        fields: query id -> {field name: value}; queries without the field form the slice `(unknown)`.
        by: the field.
        metric: e.g. `ndcg@10`.

    Returns:
        Columns slice, n, mean_a, mean_b, difference (a - b), ci_low, ci_high, p_value, p_holm and regression
        (difference below 0 and p_holm, corrected over the slices, below 0.05), largest slice first.

    Raises:
        ParameterError: no query has the field, or the metric was not computed.
        DataError: the two are not of the same queries in the same order.
    """
    if a.query_ids != b.query_ids:
        raise DataError("The evaluations are not of the same queries", remedy="Evaluate both on the same split")
    of_a, of_b = a.of(metric), b.of(metric)
    rows = [
        {"slice": name, **_compare(of_a[members], of_b[members])} for name, members in _slices(a.query_ids, fields, by)
    ]
    table = _largest_first(rows)
    table["p_holm"] = holm(table["p_value"].to_numpy())
    table["regression"] = (table["difference"] < 0) & (table["p_holm"] < ALPHA)
    return table


def slice_means(evaluation: Evaluation, fields: Fields, by: str, metric: str) -> pd.DataFrame:
    """Return the mean of a system in every slice, with its 95 % interval.

    Args:
        evaluation: of one system.
        fields, by, metric: as for `slice_differences`.

    Returns:
        Columns slice, n, mean, ci_low and ci_high, largest slice first.

    Raises:
        ParameterError: no query has the field, or the metric was not computed.
    """
    values = evaluation.of(metric)
    rows = []
    for name, members in _slices(evaluation.query_ids, fields, by):
        interval = bootstrap_ci(values[members])
        rows.append(
            {"slice": name, "n": interval.n, "mean": interval.mean, "ci_low": interval.low, "ci_high": interval.high}
        )
    return _largest_first(rows)


def _compare(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    outcome, has_both = paired_difference(a, b), ~np.isnan(a - b)
    return {
        "n": outcome.n,
        "mean_a": a[has_both].mean() if outcome.n else NAN,
        "mean_b": b[has_both].mean() if outcome.n else NAN,
        "difference": outcome.mean,
        "ci_low": outcome.low,
        "ci_high": outcome.high,
        "p_value": outcome.p_value,
    }


def _slices(query_ids: tuple[str, ...], fields: Fields, by: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every value of the field `by` with the rows (n,) of its queries."""
    values = np.array([fields.get(query, {}).get(by, UNKNOWN) for query in query_ids], dtype=object)
    if all(value == UNKNOWN for value in values):
        existing = sorted({name for query in query_ids for name in fields.get(query, {})})
        remedy = f"Fields of these queries: {', '.join(existing) or 'none'}"
        raise ParameterError(f"No query has the field {by!r}", remedy=remedy, field="by")
    for name in dict.fromkeys(values):
        yield name, np.flatnonzero(values == name)


def _largest_first(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows).sort_values("n", ascending=False, kind="stable", ignore_index=True)
