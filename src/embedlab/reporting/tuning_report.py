"""The one-page report of a tuning run: what was tried, what won and why, what it costs, what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embedlab import escaping, paths
from embedlab.data.splits import MIN_TEST_QUERIES
from embedlab.evaluation.metrics import Evaluation
from embedlab.evaluation.significance import PairedDifference, bootstrap_ci
from embedlab.finding import Finding, finding
from embedlab.reporting.tables import markdown
from embedlab.runs.summary import format_value
from embedlab.tuning.candidate import METRIC
from embedlab.tuning.choice import Choice
from embedlab.tuning.workbench import Workbench

if TYPE_CHECKING:
    import pandas as pd

FEW_DEV_QUERIES = 30
COSTS = {
    "bytes": "bytes of a document vector (float32)",
    "forgetting": f"{METRIC} lost on Python docstrings (negative: gained)",
    "speed": "encoding speed, as a multiple of the base model's",
}

SHOWN = {
    Finding.TOO_FEW: "These are too few queries to show a gain.",
    Finding.GAIN: "The gain is shown: the interval is above 0.",
    Finding.LOSS: "It is worse than the base model.",
    Finding.NEITHER: "No gain is shown: the interval includes 0.",
}


def tried(bench: Workbench, choice: Choice) -> pd.DataFrame:
    """Return `Workbench.table` with one more column: why a candidate did not win, if a limit or a part excluded it."""
    table = bench.table().sort_values(f"{METRIC} on dev", ascending=False, ignore_index=True)
    names = table["candidate"]
    table["verdict"] = ["winner" if name == choice.winner.name else choice.why_not.get(name, "") for name in names]
    return table


def conclusion(choice: Choice, gain: PairedDifference) -> str:
    """Say in a few sentences whether the test shows a gain over the base model.

    Args:
        choice: the winner.
        gain: winner against the base model on test.
    """
    if choice.winner.name == "base":
        return "The base model stays: no candidate was chosen over it on dev."
    size = format_value(gain.mean, gain.low, gain.high, sign="+")
    tested = f"On {gain.n:,} test queries, {choice.winner.name} against the base model: {size} {METRIC}."
    found = finding(gain.low, gain.high, gain.n)
    sentences = [tested, SHOWN[found]]
    if limit := choice.why_not.get("base"):  # it has no parts, so nothing else can exclude it
        sentences.append(f"The base model breaks a limit: {limit}.")
    elif found is Finding.LOSS:
        sentences.append("Keep the base model.")
    return " ".join(sentences)


def advice(bench: Workbench, choice: Choice, gain: PairedDifference, over_hybrid: PairedDifference) -> list[str]:
    """Say what to do next, in one or two sentences each.

    Args:
        bench: the run.
        choice: the winner.
        gain: winner against the base model on test.
        over_hybrid: winner against hybrid search with the base model on test.
    """
    spec = shlex.quote(bench.params.dataset)
    more_queries = f"Add queries and judge their answers: `embedlab label next {spec} --queries FILE`"
    lines, dev_queries = [], len(bench.dev_data.qrels["dev"])
    if dev_queries < FEW_DEV_QUERIES:
        few = "too few to choose anything" if dev_queries < 2 else "few, so the choice among candidates is uncertain"
        lines.append(f"Dev queries: {dev_queries}, {few}. {more_queries}.")
    elif choice.winner.name == "base":
        lines.append("No candidate beat the base model on dev. More pairs or another base model may help.")
    hybrid = "hybrid search, BM25 fused with the base model, which needs no training"
    against_hybrid = finding(over_hybrid.low, over_hybrid.high, over_hybrid.n)
    if against_hybrid is Finding.LOSS:
        lines.append(f"Use {hybrid}: it beats the winner on test. Try hybrid search with the winner too.")
    elif against_hybrid is not Finding.GAIN and (choice.winner.name != "base" or over_hybrid.mean < 0):
        lines.append(
            f"The winner does not clearly beat {hybrid}: compare both on your own queries, and try hybrid search with "
            "the winner."
        )
    if gain.n < MIN_TEST_QUERIES:
        lines.append(f"Test queries: {gain.n}. Below {MIN_TEST_QUERIES}, intervals are wide. {more_queries}.")
    if ahead := [name for name in choice.why_not if bench.candidates[name].score > choice.winner.score]:
        lines.append(f"{ahead[0]} was higher on dev and was not chosen: the column verdict says why.")
    if "contrastive" in bench.skipped:
        lines.append(f"The transformer was not fine-tuned: {bench.skipped['contrastive']}.")
    elif not bench.is_whole:
        lines.append("Training used a sample of the data, because of the time: give more minutes.")
    return lines


def commands(bench: Workbench, choice: Choice, model: Path) -> list[str]:
    """Return the commands that follow: examine the winner query by query, then search with it.

    Args:
        bench: the run.
        choice: the winner.
        model: where the winner is saved.
    """
    spec = shlex.quote(bench.params.dataset)
    if choice.winner.name == "base":
        return [f"embedlab deploy index --dataset {spec} --model {shlex.quote(bench.params.model_name)}"]
    name = shlex.quote(paths.shown(model))
    return [f"embedlab evaluate {name} --dataset {spec}", f"embedlab deploy index --dataset {spec} --model {name}"]


def page(
    bench: Workbench,
    choice: Choice,
    test: Mapping[str, Evaluation],
    measured: Mapping[str, float],
    result: str,
    next_steps: Sequence[str],
    next_commands: Sequence[str],
) -> str:
    """Write the report as Markdown.

    Args:
        bench: the run.
        choice: the winner.
        test: system -> evaluation on test.
        measured: costs of the winner, see `Limits.measured`.
        result: from `conclusion`.
        next_steps: from `advice`.
        next_commands: from `commands`.
    """
    winner = choice.winner
    skipped = [f"- {recipe}: {reason}." for recipe, reason in bench.skipped.items()]
    title = [
        f"# Tuning report: {escaping.markdown(bench.data.name)}",
        "",
        f"**Winner: {escaping.markdown(winner.name)}** ({escaping.markdown(winner.detail)}), "
        f"{winner.vectors.dim} dimensions. Chosen on dev among {len(bench.candidates)} candidates in "
        f"{bench.clock.spent / 60:.1f} of {bench.clock.seconds / 60:g} minutes.",
        "",
        escaping.markdown(result),
        "",
    ]
    sections = {
        f"Test, used once: {len(bench.data.qrels['test']):,} queries": [_quality(test)],
        "What the winner costs": [_costs(measured)],
        "What was tried": [markdown(tried(bench, choice).round(4))],
        "What was not tried": skipped,
        "What to do next": [*(f"- {line}" for line in next_steps), "", "```sh", *next_commands, "```"],
    }
    parts = [[f"## {heading}", "", *lines, ""] for heading, lines in sections.items() if lines]
    return "\n".join([*title, *(line for part in parts for line in part)])


def _quality(test: Mapping[str, Evaluation]) -> str:
    """Tabulate the systems that were tested; a single query has no interval."""
    import pandas as pd

    intervals = [bootstrap_ci(evaluation.of(METRIC)) for evaluation in test.values()]
    cells = [format_value(interval.mean, interval.low, interval.high) for interval in intervals]
    return markdown(pd.DataFrame({"system": list(test), METRIC: cells}))


def _costs(measured: Mapping[str, float]) -> str:
    import pandas as pd

    values = [f"{value:.4g}" for value in measured.values()]
    return markdown(pd.DataFrame({"what": [COSTS[name] for name in measured], "value": values}))
