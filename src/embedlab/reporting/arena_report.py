"""What the arena shows: the figure and the reading of one run, and the leaderboard over all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from embedlab import paths
from embedlab.arena import recipe
from embedlab.arena.seeds import RELATIVE_TIME, TO_BEST_HIGH, over_seeds, with_best
from embedlab.arena.standings import COSTS, FORGETTING, METRIC, VERDICTS, standings
from embedlab.reporting import tables
from embedlab.reporting.figures import COLOURS, Label, draw_level, label_lines, label_points, new_axes
from embedlab.runs import records
from embedlab.runs.records import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME, DIFFERENCE, NEAR_BEST = "arena", "mean difference", "best or level with it"
GB = 1e9
DECIMALS = dict.fromkeys(COSTS, 0) | {"peak GB": 1, RELATIVE_TIME: 2}  # of a column; else 3
BASELINES = ("bm25", "base", "hybrid")


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


def leaderboard(datasets: pd.DataFrame) -> pd.DataFrame:
    """Rank the systems over all datasets.

    Args:
        datasets: from `arena.seeds.with_best`.

    Returns:
        One row per system, the best first: the mean difference from the reference over the datasets with this system;
        on how many of them it is better, level or worse; on how many it is the best system, or its interval against the
        best includes 0; its CPU time divided by that of the reference, the geometric
        mean; means of the peak memory in GB, the bytes per vector and the forgetting; then nDCG@10 per dataset.
    """
    by_dataset = datasets.pivot_table(METRIC, "system", "dataset", aggfunc="mean", sort=False)
    rows = []
    for system, of_system in datasets.groupby("system", sort=False):
        counts = of_system["verdict"].value_counts()
        row = {"system": system, DIFFERENCE: of_system["difference"].fillna(0).mean()}  # the reference has none
        row |= {name: counts.get(name, 0) for name in VERDICTS}
        row |= {NEAR_BEST: int((of_system[TO_BEST_HIGH] >= 0).sum())}
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
        RecordError: a run is missing or damaged, or does not fit the others (see `arena.seeds`).
    """
    results = all_standings(records.read(paths.runs_dir() / run_id) for run_id in run_ids)
    datasets = with_best(over_seeds(results), results)
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
        f"{METRIC} against the reference of the same runs (the row with relative CPU time 1), over {len(run_ids)} "
        "run(s); an empty cell was not run. 'best or level with it' counts the datasets on which a system has the "
        "highest value, or its 95 % interval against that system includes 0. With several seeds, each query is "
        "averaged over them first. Mean difference, peak memory, bytes per vector and forgetting are means over the "
        "datasets of a system. Relative CPU time is a multiple of the reference's in the same run, the geometric mean "
        "over datasets. "
        "Forgetting is the change of nDCG@10 on Python docstrings against the base model, without runs that train "
        "on docstrings. For late interaction, the bytes are those of all vectors of a document. arena_datasets has "
        "the intervals and the number of seeds, arena_runs every run, arena_recipes the commands. Peak memory is "
        "never below that of the notebook that starts a recipe."
    )
    captions = {NAME: caption}
    return [
        tables.write_table(table, name, caption=captions.get(name, "")) for name, table in published(run_ids).items()
    ]
