"""What a run shows, in words computed from its own rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from embedlab.errors import ParameterError
from embedlab.finding import Finding, finding
from embedlab.runs.records import MetricRow
from embedlab.runs.summary import format_row, format_value
from embedlab.training.outcome import NOTHING_LEARNED, by_training, judge_training

CHEAPER = ("bm25", "hybrid", "linear-probe")  # what a fine-tuned model must beat to be worth its training


def describe_difference(
    rows: Sequence[MetricRow],
    system: str,
    against: str,
    *,
    metric: str = "ndcg@10",
    split: str = "test",
    task: str = "retrieval",
    history: Sequence[Mapping[str, float]] = (),
) -> str:
    """A difference with its interval, and one line of advice.

    Args:
        rows: of one run.
        system, against: what was compared.
        metric, split, task: of the comparison.
        history: the training log, rows with `step` and `dev`; it tells whether training stopped too early.

    Returns:
        Two or three sentences, and one for every cheaper system that `system` was compared with and does not beat.

    Raises:
        ParameterError: the rows hold no such comparison.
    """
    comparison = {"system": system, "against": against, "metric": metric, "split": split, "task": task}
    difference = _last(rows, statistic="difference", **comparison)
    if difference is None or difference.value is None:
        raise _unknown_comparison(rows, system, against, metric, split, task)
    relative = _last(rows, statistic="relative_difference", **comparison)
    percent = f", {relative.value:+.0%}" if relative and relative.value is not None else ""
    queries = f" on {difference.n:,} {split} queries" if difference.n else f" on {split}"
    where = {"metric": metric, "split": split, "task": task, "statistic": "value"}
    # A search with a shortlist has a stage of its own, and other dimensions than the difference, such as the base of a
    # concatenation, have their own values.
    stage: dict[str, object] = {"stage": difference.stage}
    dim: dict[str, object] = {"dim": difference.dim}
    nearest: list[dict[str, object]] = [stage | dim, stage, dim, {}]
    values = [
        next((row for same in nearest if (row := _last(rows, system=name, **same, **where))), None)
        for name in (against, system)
    ]
    change = ""
    if all(row is not None and row.value is not None for row in values):
        before, after = (format_value(row.value) for row in values if row is not None)
        change = f"{against} {before}, {system} {after}: "
    first = f"{metric}{queries}: {change}a difference of {format_row(difference)}{percent}."
    cheaper = [describe_unbeaten(row) for row in _cheaper_and_unbeaten(rows, comparison)]
    return " ".join([first, _advice(difference, system, against, history), *cheaper])


def _last(rows: Sequence[MetricRow], **fields: object) -> MetricRow | None:
    """The last row with these fields."""
    matching = [row for row in rows if all(getattr(row, name) == value for name, value in fields.items())]
    return matching[-1] if matching else None


def _advice(difference: MetricRow, system: str, against: str, history: Sequence[Mapping[str, float]]) -> str:
    findings: dict[str, str] = {}
    for rows in by_training(history).values():  # one by one: the losses of two stages have different scales
        findings |= judge_training(rows)
    if NOTHING_LEARNED in findings and not difference.value:
        return " ".join(findings.values())
    return " ".join([describe_interval(difference, system, against), *findings.values()])


def describe_interval(difference: MetricRow, system: str, against: str) -> str:
    """Say in one sentence whether a system is better or worse than another, or neither is shown."""
    low, high, n = difference.ci_low, difference.ci_high, difference.n
    if low == high == 0:
        return f"{system} and {against} have the same value on every query."
    shown = {
        Finding.TOO_FEW: f"{n} queries are too few to show a difference. Collect more test queries.",
        Finding.LOSS: f"The interval excludes 0: {system} is worse than {against}. "
        f"Do not replace {against} by it, unless it is cheaper for you.",
        Finding.GAIN: f"The interval excludes 0: the gain over {against} is established on these queries.",
        Finding.NEITHER: "The interval includes 0: these queries do not show a difference. "
        "Collect more test queries or pairs.",
    }
    return shown[finding(low, high, n)]


def telling_differences(rows: Sequence[MetricRow], metric: str = "ndcg@10") -> list[MetricRow]:
    """Return the differences with an interval that tell something.

    A gain over a system below the base model tells nothing where the gain over the base model is there too: it looks
    like a success even if the base model is not beaten.

    Args:
        rows: of one run.
        metric: of the differences.
    """
    differences = [
        row for row in rows if row.metric == metric and row.statistic == "difference" and row.ci_low is not None
    ]
    means = {
        (row.system, row.split, row.task): row.value
        for row in reversed(rows)  # the full width was measured first
        if row.metric == metric and row.statistic == "value" and row.value is not None and row.stage == "retrieval"
    }
    against_base = {(row.system, row.split, row.task) for row in differences if row.against == "base"}

    def is_weaker(row: MetricRow) -> bool:
        against, base = (means.get((system, row.split, row.task)) for system in (row.against, "base"))
        return against is not None and base is not None and against < base

    return [row for row in differences if (row.system, row.split, row.task) not in against_base or not is_weaker(row)]


def describe_unbeaten(difference: MetricRow) -> str:
    """Say in one sentence that a system does not beat a cheaper one, from their difference."""
    is_worse = finding(difference.ci_low, difference.ci_high, difference.n) is Finding.LOSS
    verdict = "is worse than" if is_worse else "does not beat"
    cheaper = f"{difference.against}, which is much cheaper"
    return f"{difference.system} {verdict} {cheaper}: a difference of {format_row(difference)}."


def _cheaper_and_unbeaten(rows: Sequence[MetricRow], comparison: Mapping[str, str]) -> list[MetricRow]:
    """The latest differences of the system against other baselines and remedies that its interval does not exceed."""
    latest = {
        row.against: row
        for row in rows
        if row.statistic == "difference"
        and row.against in CHEAPER
        and row.against != comparison["against"]
        and all(getattr(row, name) == comparison[name] for name in ("system", "metric", "split", "task"))
    }
    return [row for row in latest.values() if row.ci_low is not None and row.ci_low <= 0]


def _unknown_comparison(
    rows: Sequence[MetricRow], system: str, against: str, metric: str, split: str, task: str
) -> ParameterError:
    comparisons = {f"{row.system} against {row.against} ({row.metric}, {row.split})": 0 for row in rows if row.against}
    problem = f"this run has no difference of {system} against {against} for {metric} of {task} on {split}"
    remedy = f"It has {'; '.join(comparisons)}" if comparisons else "Call run.difference(...) first"
    return ParameterError(problem, remedy=remedy)
