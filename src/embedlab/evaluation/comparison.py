"""Compare several systems with one baseline on the same queries: metrics, intervals and tests in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from embedlab.errors import DataError
from embedlab.evaluation.metrics import Evaluation
from embedlab.evaluation.significance import (
    bootstrap_ci,
    holm,
    minimum_detectable_effect,
    paired_difference,
    paired_t_test,
)


def require_same_queries(a: Evaluation, b: Evaluation) -> None:
    """Check that two evaluations are of the same queries in the same order.

    Raises:
        DataError: they are not.
    """
    if a.query_ids != b.query_ids:
        raise DataError("The evaluations are not of the same queries", remedy="Evaluate both on the same split")


def metric_table(systems: Mapping[str, Evaluation], metrics: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the mean of every metric with its bootstrap interval.

    Args:
        systems: name -> evaluation.
        metrics: metrics to show; all by default.

    Returns:
        Columns system, metric, value, ci_low, ci_high, n.
    """
    rows = []
    for name, evaluation in systems.items():
        for metric in metrics or evaluation.values:
            interval = bootstrap_ci(evaluation.of(metric))
            row = {"system": name, "metric": metric, "value": interval.mean}
            rows.append({**row, "ci_low": interval.low, "ci_high": interval.high, "n": interval.n})
    return pd.DataFrame(rows)


def compare_systems(
    systems: Mapping[str, Evaluation],
    against: Evaluation,
    metrics: Sequence[str] = ("ndcg@10",),
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare each system with `against`, and say which difference so many queries could detect.

    The p-values of the randomisation test are corrected by Holm over the systems, separately for every metric: the
    family of tests is the set of systems that you may pick the best of.

    Args:
        systems: name -> evaluation of the same queries as `against`.
        against: the baseline.
        metrics: metrics to compare by.
        seed: of bootstrap and randomisation.

    Returns:
        Columns system, metric, n, baseline, value, difference, ci_low, ci_high, relative, p_value (randomisation),
        p_t (t-test), p_holm, detectable (the smallest true difference that so many queries show with power 0.8), wins,
        ties, losses. Means are over the queries that have a value from both systems.

    Raises:
        DataError: the evaluations are not of the same queries.
    """
    rows = [
        {"system": name, "metric": metric, **_compare(evaluation, against, metric, seed)}
        for metric in metrics
        for name, evaluation in systems.items()
    ]
    table = pd.DataFrame(rows)
    if len(table):
        adjusted = table.groupby("metric")["p_value"].transform(lambda p: holm(p.to_numpy()))
        table.insert(table.columns.get_loc("p_t") + 1, "p_holm", adjusted)
    return table


def _compare(a: Evaluation, b: Evaluation, metric: str, seed: int) -> dict[str, float]:
    require_same_queries(a, b)
    of_a, of_b = a.of(metric), b.of(metric)
    outcome, has_both = paired_difference(of_a, of_b, seed=seed), ~np.isnan(of_a - of_b)
    return {
        "n": outcome.n,
        "baseline": _mean(of_b[has_both]),
        "value": _mean(of_a[has_both]),
        "difference": outcome.mean,
        "ci_low": outcome.low,
        "ci_high": outcome.high,
        "relative": outcome.relative,
        "p_value": outcome.p_value,
        "p_t": paired_t_test(of_a, of_b),
        "detectable": minimum_detectable_effect(of_a - of_b),
        "wins": outcome.wins,
        "ties": outcome.ties,
        "losses": outcome.losses,
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
