"""Parameters of notebook 15_retrievers: sparse, late-interaction and asymmetric models from the same pairs."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from embedlab.params import Count, PositiveFloat, TrainingParams
from embedlab.training.distillation.embeddings import static_settings
from embedlab.training.fit import FitSettings

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class RetrieverParams(TrainingParams):
    """Parameters of notebook 15_retrievers.

    Attributes:
        epochs: passes over the rows, of every model with a transformer.
        batch_size: rows per step.
        learning_rate: peak.
        sparsity: weight of the FLOPS regulariser of documents; queries get the same.
        token_dim: dimensions of a token vector in late interaction.
        shortlist: documents that MaxSim orders.
        static_epochs: passes over the pairs in the training of static models.
    """

    epochs: PositiveFloat
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: PositiveFloat
    sparsity: Weight
    token_dim: Count
    shortlist: Annotated[int, Field(ge=10)]  # nDCG@10 needs ten documents
    static_epochs: PositiveFloat

    def fit_settings(self, **changes: Any) -> FitSettings:
        """Return the settings of a model with a transformer; `changes` override single fields of `FitSettings`."""
        names = ("epochs", "batch_size", "learning_rate", "max_steps", "seed", "engine")
        return FitSettings(**{**{name: getattr(self, name) for name in names}, "evaluations": 2, **changes})

    def static_settings(self) -> tuple[FitSettings, FitSettings]:
        """Return the settings of a static model's distillation, and of its training on the pairs."""
        return static_settings(self, self.static_epochs)
