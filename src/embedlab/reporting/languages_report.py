"""What notebook 13 shows: quality by language as a figure, and in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from embedlab.reporting.figures import COLOURS, new_axes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def draw_by_language(table: pd.DataFrame, systems: Sequence[str]) -> Figure:
    """Draw the quality of systems for the queries of every language, with 95 % intervals.

    Args:
        table: from `quality_by_language`.
        systems: which of its systems, at most as many as there are colours; those without a value are left out.
    """
    languages = list(dict.fromkeys(table["slice"]))
    figure, axes = new_axes("Which queries find the right document?", "language of the queries", "nDCG@10")
    for number, (colour, system) in enumerate(zip(COLOURS, systems, strict=False)):
        rows = table[(table["system"] == system) & table["mean"].notna()]
        if rows.empty:
            continue
        places = [languages.index(name) + 0.12 * (number - (len(systems) - 1) / 2) for name in rows["slice"]]
        errors = [rows["mean"] - rows["ci_low"], rows["ci_high"] - rows["mean"]]
        axes.errorbar(places, rows["mean"], yerr=errors, fmt="o", color=colour, label=system)
    axes.set_xticks(range(len(languages)), languages)
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def reading(table: pd.DataFrame, system: str, against: str) -> str:
    """Say in which languages a system is strongest and weakest, and where it gained most.

    Args:
        table: from `quality_by_language`.
        system, against: two of its systems.
    """
    means = table.pivot(index="slice", columns="system", values="mean")
    values = means[system].dropna()
    gains = (means[system] - means[against]).dropna()
    best, worst = values.idxmax(), values.idxmin()
    sentences = [
        f"{system}: nDCG@10 is highest for {best} ({values[best]:.3f}), lowest for {worst} ({values[worst]:.3f})."
    ]
    if len(gains) > 1:
        most = gains.idxmax()
        sentences.append(f"Against {against} it gained most for {most} ({gains[most]:+.3f}).")
    return " ".join(sentences)


def directions_reading(table: pd.DataFrame, system: str, against: str) -> str:
    """Say for every kind of direction how good two systems are on average, and where the first is weakest.

    Args:
        table: from `quality_by_direction`.
        system, against: two of its systems.
    """
    sentences = []
    for kind, rows in table.groupby("kind", sort=False):
        of_system = rows[rows["system"] == system].set_index("direction")["mean"]
        other = rows.loc[rows["system"] == against, "mean"]
        worst = of_system.idxmin()
        means = f"{of_system.mean():.3f} for {system}, {other.mean():.3f} for {against}"
        lowest = f"lowest for {worst} ({of_system[worst]:.3f})"
        sentences.append(f"{kind}: mean nDCG@10 of {len(of_system)} tasks {means}; {lowest}.")
    return "\n".join(sentences)
