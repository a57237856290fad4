"""Say in plain words what a comparison of options advises."""

from __future__ import annotations

from embedlab.deploy.migration.compare import Comparison, Row
from embedlab.deploy.migration.costs import Cost, cost_key
from embedlab.deploy.migration.decision import Verdict
from embedlab.deploy.migration.options import STAY
from embedlab.evaluation.gate import UNSURE
from embedlab.evaluation.significance import PairedDifference
from embedlab.finding import Finding, finding


def advice(comparison: Comparison) -> list[str]:
    """Say in sentences what to do and why."""
    row = comparison.of(comparison.decision.recommended)
    sentences = [f"Recommended: {row.meaning}.", _reason(comparison, row)]
    if row.option != STAY:
        sentences.append(
            f"On test, nDCG@10 changes by {_signed(row.to_stay)} against staying; it is {row.share_kept.mean:.1%} "
            f"[{row.share_kept.low:.1%}, {row.share_kept.high:.1%}] of what re-embedding with the new model reaches."
        )
    return [*sentences, _cost_sentence(row.cost), *_left_out(comparison), _gate_sentence(comparison.verdict)]


def _reason(comparison: Comparison, row: Row) -> str:
    decision = comparison.decision
    best = comparison.of(decision.best)
    if row.option != decision.candidate:
        gain = decision.to_stay[decision.candidate]
        too_few = finding(gain.low, gain.high, gain.n) is Finding.TOO_FEW
        not_above = "The interval is not above 0, so a gain is not shown"
        why = f"{gain.n} dev queries are too few to show a gain" if too_few else not_above
        return (
            f"On dev, the candidate is {decision.candidate}: nDCG@10 changes by {_signed(gain)} against staying. "
            f"{why}. More than {comparison.queries['dev']:,} dev queries may show one."
        )
    if row is best:
        return f"On dev it has the highest nDCG@10, {row.dev:.3f}, and no cheaper option is shown to be as good."
    return (
        f"On dev, {best.option} has the highest nDCG@10, {best.dev:.3f}. The difference of {row.option} to it is "
        f"{_signed(row.to_best)}: the whole interval is above -{comparison.settings.tolerance:g} (the tolerance), "
        "and it is cheaper."
    )


def _left_out(comparison: Comparison) -> list[str]:
    """Say which cheaper options were not chosen, and why."""
    decision, sentences = comparison.decision, []
    if waiting := [name for name in decision.undecided() if _is_cheaper(comparison, name)]:
        sentences.append(
            f"Cheaper, and perhaps as good: {', '.join(waiting)}. {comparison.queries['dev']:,} dev queries are too "
            f"few to show it. Add queries, or accept a larger tolerance than {comparison.settings.tolerance:g}."
        )
    if decision.forgetting:
        named = [
            f"{name} ({_signed(change)})" for name in decision.forgetting if (change := comparison.of(name).forgetting)
        ]
        sentences.append(f"Left out because of a drop on the probe: {', '.join(named)}.")
    return sentences


def _gate_sentence(verdict: Verdict) -> str:
    reasons = "; ".join(f"{name}: {outcome}" for name, outcome in verdict.checks.items())
    meaning = " Unsure: too few queries to exclude a loss beyond the budget." if verdict.verdict == UNSURE else ""
    return f"Gate on test: {verdict.verdict}" + (f" ({reasons})." if reasons else ".") + meaning


def _is_cheaper(comparison: Comparison, name: str) -> bool:
    if name == STAY and not comparison.settings.can_stay:
        return False
    row = comparison.of(comparison.decision.recommended)
    return cost_key(comparison.of(name).cost) < cost_key(row.cost)


def _cost_sentence(cost: Cost) -> str:
    if not cost.documents:
        return "Nothing is encoded."
    parts = [f"{cost.documents:,} documents to encode"]
    if cost.hours is not None:
        parts.append(f"{cost.hours:.3g} hours of one process")
    if cost.price is not None:
        parts.append(f"a price of {cost.price:.3g}")
    if cost.days is not None:
        parts.append(f"{cost.days:.3g} days until the last one")
    return f"Cost: {', '.join(parts)}."


def _signed(difference: PairedDifference) -> str:
    return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
