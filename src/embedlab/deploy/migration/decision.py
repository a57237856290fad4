"""The rule that chooses an option on dev, and the gate that checks the choice on test.

1. An option *forgets* if its drop on the probe, against staying, exceeds the budget and is significant (randomisation
   test, Holm over all options). It is left out.
2. The *best* option has the highest nDCG@10 on dev.
3. An option is *good enough* if the whole 95 % interval of its paired difference to the best one lies above
   -`tolerance`. The best one always is.
4. The *candidate* is the cheapest option that is good enough: fewest documents to encode, then fewest hours, mixed days
   and bytes, then the one that changes least.
5. The candidate is recommended if it is shown to be better than staying: the whole interval of its paired difference to
   staying lies above 0, on at least six queries. Otherwise you stay. If the old model is retired, you cannot stay, and
   this step is left out.

Test is looked at once, after the choice: the recommended option must be neither worse than the best one nor worse than
staying by more than the tolerance (`evaluation.gate`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from embedlab.deploy.migration.costs import Cost, cost_key
from embedlab.deploy.migration.options import STAY
from embedlab.evaluation.gate import FAIL, PASS, UNSURE, difference_checks, judge
from embedlab.evaluation.significance import PairedDifference, paired_difference
from embedlab.finding import Finding, finding


@dataclass(frozen=True)
class Decision:
    """What dev says.

    Attributes:
        recommended: name of the chosen option.
        candidate: name of the option that is recommended if it is shown to be better than staying.
        best: name of the option with the highest nDCG@10 on dev, among those that do not forget.
        to_best, to_stay: option -> paired difference on dev to the best one, and to staying.
        good_enough: names of the options within the tolerance.
        forgetting: names of the options that forget.
    """

    recommended: str
    candidate: str
    best: str
    to_best: Mapping[str, PairedDifference]
    to_stay: Mapping[str, PairedDifference]
    good_enough: tuple[str, ...]
    forgetting: tuple[str, ...]

    def undecided(self) -> list[str]:
        """Return the options that may be as good as the best one, but have too few dev queries to show it."""
        names = [name for name in self.to_best if name not in (*self.good_enough, *self.forgetting)]
        return [name for name in names if not self.to_best[name].high < 0]


@dataclass(frozen=True)
class Verdict:
    """What test says about the recommended option.

    Attributes:
        verdict: pass, unsure or fail.
        checks: name of a check -> its verdict.
    """

    verdict: str
    checks: Mapping[str, str]


def decide(
    dev: Mapping[str, np.ndarray],
    costs: Mapping[str, Cost],
    forgetting: Mapping[str, PairedDifference],
    *,
    tolerance: float,
    probe_budget: float,
    can_stay: bool = True,
) -> Decision:
    """Apply the rule.

    Args:
        dev: option -> nDCG@10 of every dev query (Q,), in the order from least change to most.
        costs: option -> its cost.
        forgetting: option -> paired difference to staying on the probe; empty without a probe.
        tolerance: loss of nDCG@10 that a cheaper option may have.
        probe_budget: tolerated drop on the probe.
        can_stay: False if the old model is retired.
    """
    forgets = _with_verdict(forgetting, probe_budget, FAIL) if forgetting else set()
    options = [name for name in dev if name not in forgets and (can_stay or name != STAY)]
    best = max(options, key=lambda name: float(np.nanmean(dev[name])))
    to_best, to_stay = (
        {name: paired_difference(values, dev[base]) for name, values in dev.items()} for base in (best, STAY)
    )
    within = {best, *_with_verdict(to_best, tolerance, PASS)}
    good_enough = [name for name in options if name in within]
    candidate = min(good_enough, key=lambda name: cost_key(costs[name]))
    gain = to_stay[candidate]
    is_shown = finding(gain.low, gain.high, gain.n) is Finding.GAIN
    recommended = candidate if is_shown or not can_stay else STAY
    forgetful = tuple(name for name in dev if name in forgets)
    return Decision(recommended, candidate, best, to_best, to_stay, tuple(good_enough), forgetful)


def check(
    decision: Decision,
    test: Mapping[str, np.ndarray],
    forgetting: Mapping[str, PairedDifference],
    *,
    tolerance: float,
    probe_budget: float,
    can_stay: bool = True,
) -> Verdict:
    """Check the recommended option on test.

    Args:
        decision: of `decide`.
        test: option -> nDCG@10 of every test query (Q,).
        forgetting: as for `decide`.
        tolerance, probe_budget, can_stay: as for `decide`; without staying, nothing is compared with it.

    Returns:
        The worst verdict of all checks; pass if there is nothing to check, because the old model is the best.
    """
    recommended = decision.recommended
    rivals = [name for name in dict.fromkeys((decision.best, *([STAY] if can_stay else []))) if name != recommended]
    against = {f"not worse than {name}": paired_difference(test[recommended], test[name]) for name in rivals}
    tables = [difference_checks(against, tolerance)]
    if recommended in forgetting and recommended != STAY:
        tables.append(difference_checks({"forgets nothing": forgetting[recommended]}, probe_budget))
    if not any(len(table) for table in tables):
        return Verdict(PASS, {})
    table = judge(tables).table
    checks = dict(zip(table["check"], table["verdict"], strict=True))
    return Verdict(next(verdict for verdict in (FAIL, UNSURE, PASS) if verdict in checks.values()), checks)


def _with_verdict(differences: Mapping[str, PairedDifference], budget: float, verdict: str) -> set[str]:
    table = judge([difference_checks(differences, budget)]).table
    return set(table.loc[table["verdict"] == verdict, "check"])
