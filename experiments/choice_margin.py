"""How much better must a tuned model be on dev before `tune` prefers it to the base model?

    python -m experiments.choice_margin

The test queries of each arena run stand for all queries. Dev sets are drawn from them with replacement, 400 times.
Each rule chooses on dev among the base model, the linear map, the concatenation and the fine-tune of the run, and the
choice is scored on all queries. In the second part a constant is taken from each tuned model, so that it is 0.01 worse
than the base model: a world in which training does harm.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from embedlab.reporting.publish import read_published
from embedlab.reporting.tables import markdown
from embedlab.runs.per_query import query_values
from embedlab.tuning.choice import mean_and_error

SYSTEMS = ["base", "embedlab-linear", "embedlab-base-static", "embedlab-contrastive"]
PART = {3: 1}  # the fine-tune starts from the linear map, and must beat it by one standard error
MARGINS = [0.0, 0.5, 1.0, 2.0]  # standard errors
DEV_SIZES = [30, 100, 300]
REPEATS = 400


def chosen(dev: np.ndarray, margin: float) -> int:
    """Return the column of the best system on dev (Q, S) that beats column 0 by `margin` standard errors."""
    for column in np.argsort(-dev.mean(axis=0), kind="stable"):
        parts = [(0, margin)] + ([(PART[column], 1.0)] if column in PART else [])
        leads = [(*mean_and_error(dev[:, column] - dev[:, part]), errors) for part, errors in parts]
        if column == 0 or all(mean > errors * error for mean, error, errors in leads):
            return int(column)
    return 0


def simulate(values: np.ndarray, dev_size: int, *, seed: int = 0) -> dict[float, tuple[float, float, float]]:
    """Return for each margin the mean gain over base, its 10th percentile, and how often base was chosen.

    Args:
        values: nDCG@10 (Q, S), the base model first.
        dev_size: dev queries.
        seed: of the dev sets.
    """
    generator, gain = np.random.default_rng(seed), values.mean(axis=0) - values[:, 0].mean()
    gains: dict[float, list[float]] = {margin: [] for margin in MARGINS}
    bases = dict.fromkeys(MARGINS, 0)
    for _ in range(REPEATS):
        dev = values[generator.integers(len(values), size=dev_size)]
        for margin in MARGINS:
            column = chosen(dev, margin)
            gains[margin].append(gain[column])
            bases[margin] += column == 0
    return {
        margin: (float(np.mean(gains[margin])), float(np.quantile(gains[margin], 0.1)), bases[margin] / REPEATS)
        for margin in MARGINS
    }


def values_of(run_id: str) -> np.ndarray:
    """Return nDCG@10 of the test queries of an arena run (Q, S) for `SYSTEMS`."""
    values = {measured.system: series for measured, series in query_values(run_id, "ndcg@10").items()}
    return pd.DataFrame(values)[SYSTEMS].to_numpy()


def table(run_ids: Sequence[str], *, harm: float | None = None) -> pd.DataFrame:
    """Simulate every run; with `harm`, every tuned system is that much worse than the base model on average."""
    rows = []
    for run_id in run_ids:
        values = values_of(run_id)
        if harm is not None:
            values = values - (values.mean(axis=0) - values[:, 0].mean())
            values[:, 1:] -= harm
        for size in DEV_SIZES:
            cells = {
                f"{margin:g}": f"{mean:+.4f} ({low:+.3f}), {base:.0%}"
                for margin, (mean, low, base) in simulate(values, size).items()
            }
            rows.append({"run": run_id, "dev queries": size, **cells})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    arena = read_published().arena
    print("Tuned systems as they are:\n", markdown(table(arena)), sep="\n")
    print("Tuned systems that are 0.01 worse than base:\n", markdown(table(arena, harm=0.01)), sep="\n")
