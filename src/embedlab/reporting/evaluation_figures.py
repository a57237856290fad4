"""The figures of notebooks 08, 09 and 10. Each function takes a table and returns a figure; `Run.figure` saves both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedlab.reporting.figures import BASELINE, COLOURS, new_axes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_GROUPS = 6  # labels with a colour of their own
VERDICT_COLOURS = {"pass": COLOURS[2], "unsure": BASELINE, "fail": COLOURS[4]}


def trade_off(table: pd.DataFrame, target: str, budget: float) -> Figure:
    """Draw what a gain costs elsewhere: weight averages as two lines, the other recipes as labelled points.

    Args:
        table: from `trade_off_table`.
        target: name of the fine-tuned model in the names of the averages, e.g. "retrieval-only".
        budget: tolerated loss of general ability.
    """
    figure, axes = new_axes(
        "What does a gain cost elsewhere?",
        "change of nDCG@10 on Python docstrings (dev)",
        "gain of nDCG@10 in the domain (dev)",
    )
    steps = table["name"].str.match(rf"\d+% {target}$")
    with_static = table["name"].str.match(rf"\d+% {target} \+ static$")
    lines = (("base model to fine-tuned model, in steps of 25 %", steps), ("the same + static", with_static))
    for colour, (label, rows) in zip(COLOURS, lines, strict=False):
        _points(axes, table[rows], colour, label)
    for row in table[~steps & ~with_static].itertuples():
        axes.plot(row.change, row.gain, "o", color=COLOURS[2])
        axes.annotate(row.name, (row.change, row.gain), xytext=(5, -3), textcoords="offset points", fontsize=7)
    axes.axvline(-budget, color=BASELINE, linestyle="--", label="budget")
    axes.axhline(0, color=BASELINE, linewidth=0.8)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def _points(axes: Axes, rows: pd.DataFrame, colour: str, label: str) -> None:
    axes.errorbar(
        rows["change"],
        rows["gain"],
        xerr=[rows["change"] - rows["change_low"], rows["change_high"] - rows["change"]],
        yerr=[rows["gain"] - rows["gain_low"], rows["gain_high"] - rows["gain"]],
        fmt="o-",
        color=colour,
        ecolor=(colour, 0.3),
        label=label,
    )


def split_curves(table: pd.DataFrame) -> Figure:
    """Draw nDCG@10 of train, dev and test during training, with 95 % bands.

    Args:
        table: columns step, split, value, ci_low, ci_high.
    """
    figure, axes = new_axes(
        "Does the model only learn its training queries?", "training step", "nDCG@10 in a sample of documents"
    )
    for colour, (split, rows) in zip(COLOURS, table.groupby("split", sort=False), strict=False):
        axes.plot(rows["step"], rows["value"], "o-", color=colour, label=split)
        axes.fill_between(rows["step"], rows["ci_low"], rows["ci_high"], color=colour, alpha=0.15, linewidth=0)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def gate(table: pd.DataFrame) -> Figure:
    """Draw every check of the gate: difference, interval and budget, in the colour of the verdict.

    Args:
        table: `Gate.table`.
    """
    figure, axes = new_axes(
        "Where does the candidate win, where does it lose?",
        "candidate − base model, 95 % interval; tick: budget; green: pass, grey: unsure, red: fail",
        "",
    )
    for height, row in enumerate(table[::-1].itertuples()):
        axes.plot([row.ci_low, row.ci_high], [height, height], color=VERDICT_COLOURS[row.verdict])
        axes.plot(row.difference, height, "o", color=VERDICT_COLOURS[row.verdict])
        axes.plot(-row.budget, height, "|", color="black")
    names = [f"{row.check} {row.slice}"[:48] for row in table[::-1].itertuples()]
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.axvline(0, color=BASELINE, linestyle="--")
    return figure


def clusters(table: pd.DataFrame, label: str) -> Figure:
    """Draw documents on two principal components, coloured by their most frequent labels.

    Args:
        table: columns first, second, label.
        label: name of the label.
    """
    frequent = table["label"].value_counts().index[:MAX_GROUPS]
    groups = table["label"].where(table["label"].isin(frequent), "others")
    figure, axes = new_axes(
        f"Are documents of the same {label} close together?", "first principal component", "second principal component"
    )
    for colour, (group, rows) in zip((*COLOURS, BASELINE), table.groupby(groups), strict=False):
        axes.plot(rows["first"], rows["second"], ".", markersize=3, color=colour, label=group[:40])
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=7)
    return figure


def tuning_curves(curves: pd.DataFrame, recall: str, exact_ms: float) -> Figure:
    """Draw recall against latency, one line per index.

    Args:
        curves: from `deploy.tuning_curves`.
        recall: name of the recall column, e.g. "recall@10".
        exact_ms: median latency of exact search.
    """
    figure, axes = new_axes("What does recall cost?", "median latency of one query [ms]", f"{recall} (exact: 1)")
    for colour, (name, points) in zip(COLOURS, curves.groupby("index", sort=False), strict=False):
        axes.plot(points["p50_ms"], points[recall], "o-", color=colour, label=name)
    axes.axvline(exact_ms, color=BASELINE, linestyle="--", label="exact search")
    axes.set_xscale("log")
    axes.legend(frameon=False)
    return figure


def adapters(table: pd.DataFrame, old_value: float) -> Figure:
    """Draw how much of the new model's quality each adapter keeps.

    Args:
        table: columns name, value, ci_low, ci_high.
        old_value: of the old model.
    """
    figure, axes = new_axes("How much of the gain does an adapter keep?", "nDCG@10 (test)", "")
    ends = [table["value"] - table["ci_low"], table["ci_high"] - table["value"]]
    axes.errorbar(table["value"], table["name"], xerr=ends, fmt="o", color=COLOURS[0])
    axes.axvline(old_value, color=BASELINE, linestyle="--", label="old model")
    axes.invert_yaxis()
    axes.legend(frameon=False)
    return figure
