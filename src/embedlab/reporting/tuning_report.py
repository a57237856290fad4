"""The one-page report of a tuning run: what was tried, what won and why, what it costs, what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from embedlab import escaping
from embedlab.evaluation.metrics import Evaluation
from embedlab.evaluation.significance import PairedDifference, bootstrap_ci
from embedlab.reporting.tables import markdown
from embedlab.tuning.candidate import METRIC
from embedlab.tuning.choice import Choice
from embedlab.tuning.workbench import Workbench

if TYPE_CHECKING:
    import pandas as pd

FEW_TEST_QUERIES = 50


def tried(bench: Workbench, choice: Choice) -> pd.DataFrame:
    """Return `Workbench.table` with one more column: why a candidate that scored higher did not win."""
    table = bench.table().sort_values(f"{METRIC} on dev", ascending=False, ignore_index=True)
    names = table["candidate"]
    table["verdict"] = ["winner" if name == choice.winner.name else choice.why_not.get(name, "") for name in names]
    return table


def advice(bench: Workbench, choice: Choice, gain: PairedDifference, over_hybrid: PairedDifference) -> list[str]:
    """Say what to do next, in one sentence each.

    Args:
        bench: the run.
        choice: the winner.
        gain: winner against the base model on test.
        over_hybrid: winner against hybrid search with the base model on test.
    """
    lines = []
    if choice.winner.name == "base":
        lines.append("No candidate beat the base model on dev: keep it. More pairs or another base model may help.")
    elif gain.low <= 0:
        lines.append("The test does not show a gain over the base model: its interval includes 0.")
    hybrid = "hybrid search, BM25 fused with the base model, which needs no training"
    if over_hybrid.high < 0:
        lines.append(f"Use {hybrid}: it beats the winner on test. Try hybrid search with the winner too.")
    elif not over_hybrid.low > 0 and (choice.winner.name != "base" or over_hybrid.mean < 0):
        lines.append(
            f"The winner does not clearly beat {hybrid}: compare both on your own queries, and try hybrid search with "
            "the winner."
        )
    if gain.n < FEW_TEST_QUERIES:
        lines.append(f"{gain.n} test queries give wide intervals: label more before you decide.")
    is_tuned = "contrastive" in bench.candidates
    if "contrastive" in bench.params.recipes_to_try and not is_tuned:
        lines.append("The time was too short to fine-tune the transformer: give more minutes.")
    if is_tuned and not bench.is_whole:
        lines.append("Training used a sample of the data, because of the time: give more minutes.")
    lines.append("Check the model on your own queries with notebook 09_evaluate, then ship it with 10_deploy.")
    return lines


def page(
    bench: Workbench,
    choice: Choice,
    test: Mapping[str, Evaluation],
    measured: Mapping[str, float],
    next_steps: Sequence[str],
) -> str:
    """Write the report as Markdown.

    Args:
        bench: the run.
        choice: the winner.
        test: system -> evaluation on test.
        measured: costs of the winner, see `Limits.measured`.
        next_steps: from `advice`.
    """
    import pandas as pd

    winner = choice.winner
    intervals = {system: bootstrap_ci(evaluation.of(METRIC)) for system, evaluation in test.items()}
    cells = [f"{i.mean:.3f} [{i.low:.3f}, {i.high:.3f}]" for i in intervals.values()]
    quality = pd.DataFrame({"system": list(test), METRIC: cells})
    costs = pd.DataFrame({"what": list(measured), "value": [f"{value:.4g}" for value in measured.values()]})
    return "\n".join(
        [
            f"# Tuning report: {escaping.markdown(bench.data.name)}",
            "",
            f"**Winner: {escaping.markdown(winner.name)}** ({escaping.markdown(winner.detail)}), "
            f"{winner.vectors.dim} dimensions. Chosen on dev among {len(bench.candidates)} candidates in "
            f"{bench.clock.spent / 60:.1f} of {bench.clock.seconds / 60:g} minutes.",
            "",
            "## Test, used once",
            "",
            markdown(quality),
            "",
            "## What the winner costs",
            "",
            markdown(costs),
            "",
            "## What was tried",
            "",
            markdown(tried(bench, choice).round(4)),
            "",
            "## What to do next",
            "",
            *(f"- {line}" for line in next_steps),
            "",
        ]
    )
