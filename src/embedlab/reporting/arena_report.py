"""What the arena shows: the figure and the reading of one run, and the leaderboard over all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from embedlab import paths
from embedlab.arena import recipe
from embedlab.arena.standings import COSTS, FORGETTING, METRIC, VERDICTS, standings, verdict
from embedlab.errors import RecordError
from embedlab.evaluation.significance import bootstrap_ci, holm, paired_difference
from embedlab.reporting import tables
from embedlab.reporting.figures import COLOURS, Label, draw_level, label_lines, label_points, new_axes
from embedlab.runs import records
from embedlab.runs.per_query import FILE, Measured, mean_over_runs, query_values
from embedlab.runs.records import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME, DIFFERENCE, RELATIVE_TIME = "arena", "mean difference", "relative CPU time"
GB = 1e9
DECIMALS = dict.fromkeys(COSTS, 0) | {"peak GB": 1, RELATIVE_TIME: 2}  # of a column; else 3
BASELINES = ("bm25", "base", "hybrid")

ValuesOf = Callable[[str, str], Mapping[Measured, pd.Series]]


def quality_and_cost(results: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw each recipe's nDCG@10 with its interval against its CPU time; systems without training are dashed lines.

    Args:
        results: from `Contest.results`.

    Returns:
        The figure and the table it is drawn from.
    """
    figure, axes = new_axes("What does quality cost?", "CPU seconds, from start to end (log scale)", f"{METRIC} (test)")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    trained = results[results["CPU seconds"].notna()]
    labels = []
    for number, (_, row) in enumerate(trained.iterrows()):
        colour, value = COLOURS[number % len(COLOURS)], row[METRIC]
        errors = [[value - row["ci_low"]], [row["ci_high"] - value]]
        axes.errorbar(row["CPU seconds"], value, yerr=errors, fmt="o", capsize=3, color=colour, alpha=0.8)
        labels.append(Label(row["system"], row["CPU seconds"], value, colour))
    axes.margins(x=0.2)
    levels = results[results["system"].isin(BASELINES)]
    lines = [draw_level(axes, row[METRIC], row["system"]) for _, row in levels.iterrows()]
    label_lines(axes, lines)
    label_points(axes, labels)
    return figure, results


def reading(results: pd.DataFrame, reference: str) -> str:
    """Say in three sentences what a contest has shown.

    Args:
        results: from `Contest.results`.
        reference: the recipe that the others were compared with.
    """
    trained = results[results["CPU seconds"].notna()]
    best, cheapest = trained.iloc[0], trained.loc[trained["CPU seconds"].idxmin()]
    lines = [
        f"{best['system']} has the best {METRIC} of the recipes: {best[METRIC]:.3f} in {best['CPU seconds']:,.0f} s."
    ]
    if best["system"] != reference:
        gain = f"{best['difference']:+.3f} [{best['low']:+.3f}, {best['high']:+.3f}]"
        lines.append(f"Against {reference} that is {gain}, p (Holm) {best['p (Holm)']:.2g}: {best['verdict']}.")
    lines.append(f"The cheapest is {cheapest['system']}: {cheapest[METRIC]:.3f} in {cheapest['CPU seconds']:,.0f} s.")
    untrained = results[results["system"].isin(BASELINES)]
    if (ahead := untrained[untrained[METRIC] >= best[METRIC]]).shape[0]:
        lines.append(
            f"No recipe beats {ahead.iloc[0]['system']} ({ahead.iloc[0][METRIC]:.3f}), which needs no training."
        )
    return "\n".join(lines)


def all_standings(contests: Iterable[Record]) -> pd.DataFrame:
    """Collect the systems of several runs of notebook 16_arena.

    Returns:
        The rows of `arena.standings` of every run, with the dataset and the seed first, the run and its commit last.
    """
    tables = []
    for record in contests:
        table = standings(record.metrics, str(record.parameters["reference"]))
        table.insert(0, "dataset", _short(str(record.parameters["dataset"])))
        table.insert(1, "seed", record.parameters["seed"])
        tables.append(table.assign(run=record.run_id, commit=record.commit))
    return pd.concat(tables, ignore_index=True)


def _short(spec: str) -> str:
    """A dataset as a column: the last folder of a path, else the spec without its options."""
    return spec.partition("?")[0].removeprefix("beir:").rpartition("/")[2]


def over_seeds(results: pd.DataFrame, values_of: ValuesOf = query_values) -> pd.DataFrame:
    """Compare the systems of every dataset with the reference, after averaging each query over seeds.

    Args:
        results: from `all_standings`.
        values_of: (run, metric) -> the values per query of its systems.

    Returns:
        One row per dataset and system: dataset, system, seeds, nDCG@10 with ci_low, ci_high and n, difference from the
        reference of the same runs with its interval (low, high), p (Holm, over the systems of the dataset), verdict;
        then means over its runs of `COSTS` and of the forgetting; and its CPU time divided by that of the reference in
        the same run, the geometric mean.

    Raises:
        RecordError: a run has no values per query, or runs of one dataset have different test queries.
    """
    references = results[results["verdict"] == ""].set_index("run")  # it is compared with nothing
    logarithms = np.log(results["CPU seconds"] / results["run"].map(references["CPU seconds"]))
    results = results.assign(logarithm=logarithms)
    values = {run: _by_system(values_of(run, METRIC)) for run in results["run"].unique()}
    tables = []
    for dataset, of_dataset in results.groupby("dataset", sort=False):
        rows = []
        for system, of_system in of_dataset.groupby("system", sort=False):
            runs = of_system["run"].tolist()
            row = {"dataset": dataset, "system": system, "seeds": of_system["seed"].nunique()}
            row |= _compared(values, runs, str(system), [str(references.loc[run, "system"]) for run in runs])
            row |= {name: of_system[name].mean() for name in (*COSTS, FORGETTING)}
            rows.append(row | {RELATIVE_TIME: np.exp(of_system["logarithm"].mean())})
        tables.append(_judged(pd.DataFrame(rows)))
    return pd.concat(tables, ignore_index=True)


def _by_system(values: Mapping[Measured, pd.Series]) -> dict[str, pd.Series]:
    return {measured.system: series for measured, series in values.items()}


def _compared(
    values: Mapping[str, Mapping[str, pd.Series]], runs: Sequence[str], system: str, references: Sequence[str]
) -> dict[str, float]:
    """A system's mean over the queries, and its difference from the reference in the same runs, with intervals."""
    its_own = [values[run].get(system) for run in runs]
    of_reference = [values[run].get(reference) for run, reference in zip(runs, references, strict=True)]
    if any(series is None for series in [*its_own, *of_reference]):
        problem = f"the values per query of {system} are missing in one of {', '.join(runs)}"
        raise RecordError(problem, remedy=f"Restore its {FILE}")
    mean, reference_mean = (
        mean_over_runs([series for series in of if series is not None]) for of in (its_own, of_reference)
    )
    if mean is None or reference_mean is None or not mean.index.equals(reference_mean.index):
        remedy = "List runs of the same data under arena in experiments/published.yaml"
        raise RecordError(f"the runs {', '.join(runs)} have different test queries", remedy=remedy)
    interval = bootstrap_ci(mean.to_numpy())
    row = {METRIC: interval.mean, "ci_low": interval.low, "ci_high": interval.high, "n": interval.n}
    if system in references:
        return row
    gain = paired_difference(mean.to_numpy(), reference_mean.to_numpy())
    return row | {"difference": gain.mean, "low": gain.low, "high": gain.high, "p": gain.p_value}


def _judged(table: pd.DataFrame) -> pd.DataFrame:
    """Replace p by p after Holm's correction over the rows, and add the verdict; the reference has neither."""
    compared = table["p"].notna()
    adjusted = pd.Series(holm(table.loc[compared, "p"].tolist()), table.index[compared], dtype=float)
    verdicts = [
        verdict(difference, p_value) if p_value == p_value else ""
        for difference, p_value in zip(table["difference"], adjusted.reindex(table.index), strict=True)
    ]
    after = table.columns.get_loc("p")
    table = table.drop(columns="p")
    table.insert(after, "p (Holm)", adjusted)
    table.insert(after + 1, "verdict", verdicts)
    return table


def leaderboard(datasets: pd.DataFrame) -> pd.DataFrame:
    """Rank the systems over all datasets.

    Args:
        datasets: from `over_seeds`.

    Returns:
        One row per system, the best first: the mean difference from the reference over the datasets with this system;
        on how many of them it is better, level or worse; its CPU time divided by that of the reference, the geometric
        mean; means of the peak memory in GB, the bytes per vector and the forgetting; then nDCG@10 per dataset.
    """
    by_dataset = datasets.pivot_table(METRIC, "system", "dataset", aggfunc="mean", sort=False)
    rows = []
    for system, of_system in datasets.groupby("system", sort=False):
        counts = of_system["verdict"].value_counts()
        row = {"system": system, DIFFERENCE: of_system["difference"].fillna(0).mean()}  # the reference has none
        row |= {name: counts.get(name, 0) for name in VERDICTS}
        row[RELATIVE_TIME] = np.exp(np.log(of_system[RELATIVE_TIME]).mean())
        row |= {"peak GB": of_system["peak bytes"].mean() / GB}
        row |= {name: of_system[name].mean() for name in ("bytes per vector", FORGETTING)}
        rows.append(row | by_dataset.loc[system].to_dict())
    table = pd.DataFrame(rows)
    return table.sort_values(DIFFERENCE, ascending=False, ignore_index=True)


def recipe_table() -> pd.DataFrame:
    """Describe the recipes of this project: name, what it does, and the command that runs its file alone."""
    rows = [recipe.find(name) for name in recipe.names()]
    folder = paths.recipes_dir().relative_to(paths.project_root()).as_posix()
    return pd.DataFrame(
        {
            "recipe": entry.name,
            "what it does": entry.description,
            "command": f"python {folder}/{entry.path.name} DATA MODEL OUTPUT",
        }
        for entry in rows
    )


def published(run_ids: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Make the published tables from runs of notebook 16_arena: the leaderboard, datasets, runs and recipes.

    Returns:
        Name of the table -> table, with qualities to 3 decimals, gigabytes to one, and other costs as whole numbers.

    Raises:
        RecordError: a run is missing or damaged, or does not fit the others (see `over_seeds`).
    """
    results = all_standings(records.read(paths.runs_dir() / run_id) for run_id in run_ids)
    datasets = over_seeds(results)
    frames = {NAME: leaderboard(datasets), f"{NAME}_datasets": datasets, f"{NAME}_runs": results}
    rounded = {
        name: table.round({column: DECIMALS.get(column, 3) for column in table.select_dtypes("number")})
        .replace(-0.0, 0.0)
        .astype({column: "Int64" for column in COSTS if column in table})
        for name, table in frames.items()
    }
    return rounded | {f"{NAME}_recipes": recipe_table()}


def write(run_ids: Sequence[str]) -> list[Path]:
    """Write what `published` makes to results/tables."""
    caption = (
        f"{METRIC} against the reference of the same runs, over {len(run_ids)} run(s); an empty cell was not run. Each "
        "query is averaged over the seeds first. Mean difference, peak memory, bytes per vector and forgetting are "
        "means over the datasets of a system. Relative CPU time is a multiple of the reference's in the same run, the "
        "geometric mean. Forgetting is the change of nDCG@10 on Python docstrings against the base model, without runs "
        "that train on docstrings. For late interaction, the bytes are those of all vectors of a document. "
        "arena_datasets has the intervals and the number of seeds, arena_runs every run, arena_recipes the commands."
    )
    captions = {NAME: caption}
    return [
        tables.write_table(table, name, caption=captions.get(name, "")) for name, table in published(run_ids).items()
    ]
