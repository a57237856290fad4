"""The gate before a release: no slice and no probe may drop past its budget.

Every check is a paired difference tuned - base with a budget, the drop that is tolerated. The rule:

- **fail**: the drop exceeds the budget *and* chance does not explain it (randomisation p, Holm over all checks,
  below alpha);
- **unsure**: not failed, but the 95 % interval reaches past the budget, or there is no interval: too few queries to
  rule the drop out;
- **pass**: the whole interval lies above minus the budget.

So a small slice cannot fail on noise, and silence about it is not read as safety either: the gate is passed when no
check fails, and when none is unsure if it is asked to be strict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from embedlab.errors import ParameterError
from embedlab.evaluation.metrics import Evaluation
from embedlab.evaluation.significance import PairedDifference, holm
from embedlab.evaluation.slices import Fields, slice_differences

FAIL, UNSURE, PASS = "fail", "unsure", "pass"
COLUMNS = ("check", "slice", "n", "difference", "ci_low", "ci_high", "p_value", "budget")
HIGH_RISK = ("risk", "high-risk")  # the slice with a budget of its own, as `segments` names it


@dataclass(frozen=True)
class Budgets:
    """Largest tolerated drops, in points of the metric (0.02 is two points of nDCG x 100).

    Attributes:
        overall: of the mean over all queries.
        slice: of a slice's mean.
        high_risk: of the mean of the high-risk slice.
        probe: of a general probe's score.
        alpha: level of the tests.
    """

    overall: float = 0.0
    slice: float = 0.02
    high_risk: float = 0.01
    probe: float = 0.03
    alpha: float = 0.05

    def __post_init__(self) -> None:
        for name in ("overall", "slice", "high_risk", "probe"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ParameterError(f"A budget of {getattr(self, name)}", remedy="Give 0 or more", field=name)
        if not 0 < self.alpha < 1:
            raise ParameterError(f"alpha is {self.alpha}", remedy="Choose one between 0 and 1", field="alpha")


@dataclass(frozen=True, eq=False)
class Gate:
    """What the gate found.

    Attributes:
        table: one row per check: check, slice, n, difference, ci_low, ci_high, p_value, budget, p_holm, verdict; the
            worst first.
    """

    table: pd.DataFrame

    def passed(self, *, strict: bool = False) -> bool:
        """No check failed; when `strict`, none is unsure either."""
        bad = (FAIL, UNSURE) if strict else (FAIL,)
        return not self.table["verdict"].isin(bad).any()

    def summary(self) -> str:
        """One line: how many checks passed, are unsure and failed, and which failed."""
        counts = self.table["verdict"].value_counts()
        line = ", ".join(f"{counts.get(verdict, 0)} {verdict}" for verdict in (PASS, UNSURE, FAIL))
        failed = self.table[self.table["verdict"] == FAIL]
        names = "; ".join(f"{f'{row.check} {row.slice}'.strip()} {row.difference:+.3f}" for row in failed.itertuples())
        return f"{len(self.table)} checks: {line}" + (f" ({names})" if names else "")


def slice_checks(
    a: Evaluation, b: Evaluation, fields: Fields, by: Sequence[str], metric: str, budgets: Budgets
) -> pd.DataFrame:
    """One check per value of every field in `by`: columns `COLUMNS`. Raises what `slice_differences` does."""
    tables = []
    for name in by:
        table = slice_differences(a, b, fields, name, metric).assign(check=name)
        table["budget"] = [
            budgets.high_risk if (name, value) == HIGH_RISK else budgets.slice for value in table["slice"]
        ]
        tables.append(table[list(COLUMNS)])
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(COLUMNS))


def difference_checks(differences: Mapping[str, PairedDifference], budget: float) -> pd.DataFrame:
    """One check per named difference, e.g. overall or of each probe: columns `COLUMNS`."""
    rows = [
        (name, "", outcome.n, outcome.mean, outcome.low, outcome.high, outcome.p_value, budget)
        for name, outcome in differences.items()
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def judge(checks: Iterable[pd.DataFrame], *, alpha: float = 0.05) -> Gate:
    """Apply the rule to all checks together.

    Raises:
        ParameterError: when there is no check at all, which would pass everything.
    """
    filled = [table for table in checks if len(table)]
    if not filled:
        raise ParameterError("The gate has nothing to check", remedy="Give it a slice or a probe", field="gate")
    table = pd.concat(filled, ignore_index=True)
    table["p_holm"] = holm(table["p_value"].to_numpy(float))
    failed = (table["difference"] < -table["budget"]) & (table["p_holm"] < alpha)
    safe = table["ci_low"] >= -table["budget"]
    table["verdict"] = np.select([failed, safe], [FAIL, PASS], UNSURE)
    order = table["verdict"].map({FAIL: 0, UNSURE: 1, PASS: 2})
    return Gate(table.iloc[np.lexsort((table["difference"], order))].reset_index(drop=True))
