"""The systems of every dataset against the reference, over one run or over several with different seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from embedlab.arena.standings import COSTS, FORGETTING, METRIC, verdict
from embedlab.errors import RecordError
from embedlab.evaluation.significance import bootstrap_ci, holm, paired_difference
from embedlab.runs.per_query import FILE, Measured, mean_over_runs, query_values

RELATIVE_TIME = "relative CPU time"
COMPARED = (METRIC, "ci_low", "ci_high", "n", "difference", "low", "high", "p (Holm)", "verdict")
TO_BEST, TO_BEST_LOW, TO_BEST_HIGH = "to best", "to best low", "to best high"
REMEDY = "Correct the runs under arena in experiments/published.yaml"

ValuesOf = Callable[[str, str], Mapping[Measured, pd.Series]]


def over_seeds(results: pd.DataFrame, values_of: ValuesOf = query_values) -> pd.DataFrame:
    """Compare the systems of every dataset with the reference. With several seeds, each query is averaged over them.

    Args:
        results: rows of `arena.standings` with the columns dataset, seed and run.
        values_of: (run, metric) -> the values per query of its systems, for datasets with several runs.

    Returns:
        One row per dataset and system: dataset, system, seeds, nDCG@10 with ci_low, ci_high and n, difference from the
        reference in the same runs with its interval (low, high), p (Holm, over the systems of the dataset), verdict;
        then means over its runs of `COSTS` and of the forgetting; and its CPU time divided by that of the reference in
        the same run, the geometric mean.

    Raises:
        RecordError: runs of one dataset have different references or test queries, a system was measured twice with
            one seed, or values per query are missing.
    """
    references = results[results["verdict"] == ""].set_index("run")["CPU seconds"]  # they are compared with nothing
    results = results.assign(logarithm=np.log(results["CPU seconds"] / results["run"].map(references)))
    tables = []
    for dataset, rows in results.groupby("dataset", sort=False):
        reference = _reference(str(dataset), rows)
        systems = rows.groupby("system", sort=False)
        costs = systems[[*COSTS, FORGETTING]].mean()
        costs[RELATIVE_TIME] = np.exp(systems["logarithm"].mean())
        several = rows["run"].nunique() > 1
        compared = _averaged(rows, reference, values_of) if several else rows.set_index("system")[list(COMPARED)]
        table = pd.concat([systems["seed"].nunique().rename("seeds"), compared, costs], axis=1).reset_index()
        table.insert(0, "dataset", dataset)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def with_best(datasets: pd.DataFrame, results: pd.DataFrame, values_of: ValuesOf = query_values) -> pd.DataFrame:
    """Add the difference from the best system of each dataset, which is the one with the highest value on test.

    The best one has luck on its side, so an interval below 0 is weaker evidence than one against the reference.

    Args:
        datasets: from `over_seeds`.
        results, values_of: see `over_seeds`. Each system is averaged over its own runs.

    Returns:
        The same rows with the columns `TO_BEST`, `TO_BEST_LOW` and `TO_BEST_HIGH`; the best system has 0.

    Raises:
        RecordError: values per query are missing, or runs of one dataset have different test queries.
    """
    runs = results.groupby(["dataset", "system"], sort=False)["run"].agg(list)
    values, rows = _by_system(results, values_of), []
    for dataset, of_dataset in datasets.groupby("dataset", sort=False):
        best = of_dataset.loc[of_dataset[METRIC].idxmax(), "system"]
        highest = _mean(values, runs[dataset, best], best)
        for system in of_dataset["system"]:
            change = paired_difference(*_same_queries(_mean(values, runs[dataset, system], system), highest))
            rows.append([dataset, system, change.mean, change.low, change.high])
    added = pd.DataFrame(rows, columns=["dataset", "system", TO_BEST, TO_BEST_LOW, TO_BEST_HIGH])
    return datasets.merge(added, on=["dataset", "system"], validate="1:1")


def _same_queries(a: pd.Series, b: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """The values of two series over the same queries, in one order."""
    if set(a.index) != set(b.index):
        raise RecordError("systems of one dataset have different test queries", remedy=REMEDY)
    return a.to_numpy(), b.loc[a.index].to_numpy()


def _reference(dataset: str, rows: pd.DataFrame) -> str:
    """The reference of a dataset's runs; raises an error if they do not belong together."""
    references = [str(system) for system in rows[rows["verdict"] == ""]["system"].unique()]
    if len(references) > 1:
        raise RecordError(f"the runs of {dataset} have different references: {', '.join(references)}", remedy=REMEDY)
    if len(twice := rows[rows.duplicated(["system", "seed"])]):
        system, seed = twice.iloc[0][["system", "seed"]]
        raise RecordError(f"{dataset}: {system} was measured twice with seed {seed}", remedy=REMEDY)
    return references[0]


def _averaged(rows: pd.DataFrame, reference: str, values_of: ValuesOf) -> pd.DataFrame:
    """Compare the systems of one dataset over several runs; the columns `COMPARED` by system."""
    values = _by_system(rows, values_of)
    compared = {}
    for system, of_system in rows.groupby("system", sort=False):
        mean, baseline = (_mean(values, of_system["run"].tolist(), name) for name in (str(system), reference))
        interval = bootstrap_ci(mean.to_numpy())
        gain = paired_difference(mean.to_numpy(), baseline.to_numpy()) if system != reference else None
        compared[system] = {
            METRIC: interval.mean,
            "ci_low": interval.low,
            "ci_high": interval.high,
            "n": interval.n,
            "difference": gain and gain.mean,
            "low": gain and gain.low,
            "high": gain and gain.high,
            "p (Holm)": gain and gain.p_value,
        }
    table = pd.DataFrame.from_dict(compared, orient="index").astype(float).astype({"n": int})
    compared_rows = table.index != reference
    table.loc[compared_rows, "p (Holm)"] = holm(table.loc[compared_rows, "p (Holm)"].tolist())
    table["verdict"] = [
        "" if system == reference else verdict(difference, p_value)
        for system, difference, p_value in table[["difference", "p (Holm)"]].itertuples()
    ]
    return table.rename_axis("system")


def _by_system(rows: pd.DataFrame, values_of: ValuesOf) -> dict[str, dict[str, pd.Series]]:
    """Run -> system -> its value for each query."""
    return {
        run: {measured.system: series for measured, series in values_of(run, METRIC).items()}
        for run in rows["run"].unique()
    }


def _mean(values: Mapping[str, Mapping[str, pd.Series]], runs: Sequence[str], system: str) -> pd.Series:
    """The mean over runs of a system's value for each query."""
    if missing := [run for run in runs if system not in values[run]]:
        raise RecordError(f"{missing[0]} has no values per query of {system}", remedy=f"Restore its {FILE}")
    mean = mean_over_runs([values[run][system] for run in runs])
    if mean is None:
        raise RecordError(f"the runs {', '.join(runs)} have different test queries", remedy=REMEDY)
    return mean
