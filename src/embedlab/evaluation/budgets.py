"""How much a release may lose: the budgets of the gate, stated once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from embedlab.errors import ParameterError
from embedlab.evaluation.significance import ALPHA


@dataclass(frozen=True)
class Budgets:
    """Largest tolerated drops, in points of the metric (0.02 is two points of nDCG x 100).

    Attributes:
        overall: of the mean over all queries.
        slice: of a slice's mean.
        high_risk: of the mean of the high-risk slice.
        probe: of a general probe's score.
        alpha: significance level of the tests.

    Raises:
        ParameterError: a budget is negative or not finite, or alpha is not between 0 and 1.
    """

    overall: float = 0.0
    slice: float = 0.02
    high_risk: float = 0.01
    probe: float = 0.03
    alpha: float = ALPHA

    def __post_init__(self) -> None:
        for name in ("overall", "slice", "high_risk", "probe"):
            if not 0 <= (budget := getattr(self, name)) < math.inf:
                problem = f"The {name} budget must be 0 or more, got {budget}"
                raise ParameterError(problem, remedy=f"Set it to {getattr(Budgets, name)}, for example", field=name)
        if not 0 < self.alpha < 1:
            problem = f"alpha must be between 0 and 1, got {self.alpha}"
            raise ParameterError(problem, remedy=f"Set alpha={ALPHA}, for example", field="alpha")
