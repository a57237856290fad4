"""The systems of a contest against its reference, from the metric rows of a run or of its record."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from embedlab.evaluation.significance import ALPHA, holm
from embedlab.runs.records import MetricRow

METRIC = "ndcg@10"
VERDICTS = ("better", "level", "worse")
COSTS = ("seconds", "CPU seconds", "peak bytes", "bytes per vector")  # late interaction: bytes of all vectors of a text
FORGETTING, FORGETTING_LOW, FORGETTING_HIGH = "forgetting", "forgetting low", "forgetting high"


def standings(metrics: Sequence[MetricRow], reference: str) -> pd.DataFrame:
    """Compare all systems with the reference.

    Args:
        metrics: rows of a run of notebook 16_arena, with the differences from the reference.
        reference: a system.

    Returns:
        One row per system: system, nDCG@10 with ci_low, ci_high and n, difference from the reference with its interval
        (low, high), p of the randomisation test after Holm over all systems, verdict, `COSTS`, and forgetting: the
        change of nDCG@10 against the base model on queries of another domain, with its interval. The reference has no
        difference, and a system without training neither costs nor forgetting.
    """
    measured = [row for row in metrics if row.metric == METRIC and row.task == "retrieval"]
    values = {row.system: row for row in measured if row.statistic == "value"}
    against = {row.system: row for row in measured if row.statistic == "difference" and row.against == reference}
    chances = {row.system: row.value for row in measured if row.statistic == "p_value" and row.against == reference}
    adjusted = dict(zip(chances, holm([float(value or 0) for value in chances.values()]), strict=True))
    costs = {(row.system, row.metric): row.value for row in metrics if row.metric in COSTS}
    forgotten = {row.system: row for row in metrics if row.stage == "probe" and row.statistic == "difference"}
    rows: list[dict[str, object]] = []
    for system, row in values.items():
        standing: dict[str, object] = {"system": system, METRIC: row.value}
        standing |= {"ci_low": row.ci_low, "ci_high": row.ci_high, "n": row.n}
        standing |= {"difference": None, "low": None, "high": None, "p (Holm)": None, "verdict": ""}
        if difference := against.get(system):
            p_value = adjusted[system]
            standing |= {"difference": difference.value, "low": difference.ci_low, "high": difference.ci_high}
            standing |= {"p (Holm)": p_value, "verdict": verdict(float(difference.value or 0), p_value)}
        standing |= {name: costs.get((system, name)) for name in COSTS}
        change = forgotten.get(system)
        interval = {FORGETTING_LOW: change and change.ci_low, FORGETTING_HIGH: change and change.ci_high}
        rows.append(standing | {FORGETTING: change and change.value} | interval)
    numbers = (*COSTS, FORGETTING, FORGETTING_LOW, FORGETTING_HIGH)  # also in a run that has none of them
    return pd.DataFrame(rows).astype(dict.fromkeys(numbers, float))


def verdict(difference: float, p_value: float) -> str:
    """Say whether a system is better or worse than the reference, or level with it; one of `VERDICTS`.

    Args:
        difference: mean of system minus reference, over the same queries.
        p_value: after the correction for several comparisons.
    """
    better, level, worse = VERDICTS
    if p_value >= ALPHA:
        return level
    return better if difference > 0 else worse
