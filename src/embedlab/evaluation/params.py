"""Parameters of notebook 09: which models are compared, and how much the candidate may lose where."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from embedlab.evaluation.budgets import Budgets
from embedlab.models.adapter_folder import is_adapter_folder
from embedlab.models.api import require_local
from embedlab.params import Count, Text, TrainingParams

Budget = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class EvaluateParams(TrainingParams):
    """Parameters of an evaluation; `model_name` is the candidate, `against` the model in use."""

    against: Text
    kind: str = ""
    high_risk: list[str] = []
    probes: list[Text]
    slice_budget: Budget
    risk_budget: Budget
    probe_budget: Budget
    token_budget: Count
    probe_queries: Count

    @property
    def trains_candidate(self) -> bool:
        """Whether a candidate is fine-tuned first; naming the same model twice asks for it.

        Raises:
            ModelError: it is an API model, which cannot be fine-tuned.
        """
        trains = self.model_name == self.against
        if trains:
            require_local(self.model_name, is_api=is_adapter_folder(self.model_name))
        return trains

    @property
    def system(self) -> str:
        """System name of the candidate in the record."""
        return "contrastive" if self.trains_candidate else "candidate"

    def budgets(self) -> Budgets:
        """Return the budgets of the gate; the mean over all queries may not drop at all."""
        return Budgets(slice=self.slice_budget, high_risk=self.risk_budget, probe=self.probe_budget)
