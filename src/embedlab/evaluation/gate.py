"""The gate before a release: no slice and no probe may drop by more than its budget.

Every check is a paired difference, candidate - base, with a budget: the drop that is tolerated. The rule:

- **fail**: the drop exceeds the budget *and* is significant (randomisation test, Holm over all checks, below alpha);
- **unsure**: not failed, but the 95 % interval reaches below minus the budget, or there is no interval: too few queries
  to exclude such a drop;
- **pass**: the whole interval lies above minus the budget.

A small slice cannot fail by noise, and it does not pass just because nothing is known about it. The gate passes if no
check fails; a strict gate also requires that none is unsure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from embedlab.errors import ParameterError
from embedlab.evaluation.budgets import Budgets
from embedlab.evaluation.metrics import Evaluation
from embedlab.evaluation.significance import PairedDifference, holm
from embedlab.evaluation.slices import Fields, slice_differences

FAIL, UNSURE, PASS = "fail", "unsure", "pass"
COLUMNS = ("check", "slice", "n", "difference", "ci_low", "ci_high", "p_value", "budget")
HIGH_RISK = ("risk", "high-risk")  # the slice with a budget of its own, as `segments` names it


@dataclass(frozen=True, eq=False)
class Gate:
    """The verdicts of all checks.

    Attributes:
        table: one row per check: check, slice, n, difference, ci_low, ci_high, p_value, budget, p_holm, verdict; the
            worst first.
    """

    table: pd.DataFrame

    def passed(self, *, strict: bool = False) -> bool:
        """Return whether no check failed; with `strict`, also whether none is unsure."""
        bad = (FAIL, UNSURE) if strict else (FAIL,)
        return not self.table["verdict"].isin(bad).any()

    def summary(self) -> str:
        """Return one line: how many checks pass, are unsure and fail, which fail, and whether to ship."""
        counts = self.table["verdict"].value_counts()
        line = ", ".join(f"{counts.get(verdict, 0)} {verdict}" for verdict in (PASS, UNSURE, FAIL))
        failed = self.table[self.table["verdict"] == FAIL]
        names = "; ".join(f"{f'{row.check} {row.slice}'.strip()} {row.difference:+.3f}" for row in failed.itertuples())
        if len(failed):
            conclusion = "do not ship the model"
        elif counts.get(UNSURE, 0):
            conclusion = "nothing fails; more test queries or a larger budget decide what is unsure"
        else:
            conclusion = "ship the model"
        return f"{len(self.table)} checks: {line}" + (f" ({names})" if names else "") + f": {conclusion}"


def slice_checks(
    a: Evaluation, b: Evaluation, fields: Fields, by: Sequence[str], metric: str, budgets: Budgets
) -> pd.DataFrame:
    """Make one check per value of every field in `by`.

    Args:
        a, b: candidate and base, on the same queries.
        fields: query id -> {field name: value}.
        by: names of the fields.
        metric: e.g. `ndcg@10`.
        budgets: tolerated drops.

    Returns:
        Columns `COLUMNS`.

    Raises:
        ParameterError: no query has a field, or the metric was not computed.
        DataError: the evaluations are not of the same queries.
    """
    tables = []
    for name in by:
        table = slice_differences(a, b, fields, name, metric).assign(check=name)
        table["budget"] = [
            budgets.high_risk if (name, value) == HIGH_RISK else budgets.slice for value in table["slice"]
        ]
        tables.append(table[list(COLUMNS)])
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(COLUMNS))


def difference_checks(differences: Mapping[str, PairedDifference], budget: float) -> pd.DataFrame:
    """Make one check per named difference, e.g. the overall one or that of each probe.

    Args:
        differences: name -> difference, candidate - base.
        budget: tolerated drop.

    Returns:
        Columns `COLUMNS`.
    """
    rows = [
        (name, "", outcome.n, outcome.mean, outcome.low, outcome.high, outcome.p_value, budget)
        for name, outcome in differences.items()
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def judge(checks: Iterable[pd.DataFrame], *, alpha: float = Budgets.alpha) -> Gate:
    """Apply the rule to all checks together.

    Args:
        checks: tables of `slice_checks` and `difference_checks`.
        alpha: significance level, after Holm's correction over all checks.

    Raises:
        ParameterError: there is no check; an empty gate would pass everything.
    """
    tables = [table for table in checks if len(table)]
    if not tables:
        raise ParameterError("The gate has no check", remedy="Give it at least one slice or probe", field="gate")
    table = pd.concat(tables, ignore_index=True)
    table["p_holm"] = holm(table["p_value"].to_numpy(float))
    failed = (table["difference"] < -table["budget"]) & (table["p_holm"] < alpha)
    safe = table["ci_low"] >= -table["budget"]
    table["verdict"] = np.select([failed, safe], [FAIL, PASS], UNSURE)
    order = table["verdict"].map({FAIL: 0, UNSURE: 1, PASS: 2})
    return Gate(table.iloc[np.lexsort((table["difference"], order))].reset_index(drop=True))
