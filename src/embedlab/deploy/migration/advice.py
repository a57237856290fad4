"""Say in plain words what a comparison of options advises."""

from __future__ import annotations

from embedlab.deploy.migration.compare import Comparison
from embedlab.deploy.migration.costs import Cost, cost_key
from embedlab.deploy.migration.options import STAY
from embedlab.evaluation.significance import PairedDifference


def advice(comparison: Comparison) -> list[str]:
    """Say in sentences what to do and why."""
    decision, settings = comparison.decision, comparison.settings
    chosen, best = comparison.of(decision.recommended), comparison.of(decision.best)
    sentences = [f"Recommended: {chosen.meaning}."]
    if chosen is best:
        sentences.append(f"On dev it has the highest nDCG@10, {chosen.dev:.3f}, and no cheaper option is as good.")
    else:
        difference = _signed(chosen.to_best)
        sentences.append(
            f"On dev, {best.option} has the highest nDCG@10, {best.dev:.3f}. The difference of {chosen.option} to it "
            f"is {difference}: the whole interval is above -{settings.tolerance:g} (the tolerance), and it is cheaper."
        )
    if chosen.option == STAY:
        sentences.append("The index stays as it is.")
    else:
        sentences.append(
            f"On test, nDCG@10 changes by {_signed(chosen.to_stay)} against staying; it is {chosen.kept.mean:.1%} "
            f"[{chosen.kept.low:.1%}, {chosen.kept.high:.1%}] of what re-embedding with the new model reaches."
        )
    sentences.append(_cost_sentence(chosen.cost))
    if waiting := [name for name in decision.undecided() if _is_cheaper(comparison, name)]:
        count = comparison.queries["dev"]
        sentences.append(
            f"Cheaper, and perhaps as good: {', '.join(waiting)}. {count:,} dev queries are too few to show it; add "
            f"queries, or accept a larger tolerance than {settings.tolerance:g}."
        )
    for name in decision.forgetting:
        row = comparison.of(name)
        change = "" if row.forgetting is None else f" ({_signed(row.forgetting)} on the probe)"
        sentences.append(f"Left out because it forgets: {name}{change}.")
    reasons = "; ".join(f"{name}: {verdict}" for name, verdict in comparison.verdict.checks.items())
    sentences.append(f"Gate on test: {comparison.verdict.verdict}" + (f" ({reasons})." if reasons else "."))
    return sentences


def _is_cheaper(comparison: Comparison, name: str) -> bool:
    chosen = comparison.of(comparison.decision.recommended)
    return cost_key(comparison.of(name).cost) < cost_key(chosen.cost)


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
