"""Parameters of an evaluation: what is compared with what, and how much it may lose where."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from embedlab.evaluation.gate import Budgets
from embedlab.params import Count, Text, TrainingParams

Budget = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class EvaluateParams(TrainingParams):
    """Parameters of the evaluation notebook; `model_name` is the candidate."""

    against: Text
    metric: Text = "ndcg@10"
    kind: str = ""
    high_risk: list[str] = []
    probes: list[Text] = ["pydocs"]
    slice_budget: Budget = 0.02
    risk_budget: Budget = 0.01
    probe_budget: Budget = 0.03
    token_budget: Count = 256
    probe_queries: Count = 250

    @property
    def tunes(self) -> bool:
        """Whether the candidate has to be made first: the same name twice asks for a short fine-tune of it."""
        return self.model_name == self.against

    def budgets(self) -> Budgets:
        """The gate's budgets; the mean over all queries may not drop at all."""
        return Budgets(slice=self.slice_budget, high_risk=self.risk_budget, probe=self.probe_budget)
