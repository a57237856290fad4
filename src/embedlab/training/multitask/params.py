"""Parameters of notebook 08: several objectives at once, and how much the model may forget."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from embedlab.params import PositiveFloat, Share, TrainingParams
from embedlab.training.distillation.embeddings import STATIC_CONTRASTIVE_BATCH, STATIC_LEARNING_RATE
from embedlab.training.fit import FitSettings

KINDS = ("retrieval", "similarity", "classification", "clustering")
STATIC_EPOCHS = 8.0


class MultitaskParams(TrainingParams):
    """Parameters of multi-task training and of the recipes against forgetting."""

    tasks_dir: str = ""
    tuned_model: str = ""
    epochs: PositiveFloat
    learning_rate: PositiveFloat
    task_weights: Annotated[list[PositiveFloat], Field(min_length=4, max_length=4)]
    sampling: Literal["proportional", "round_robin"]
    layer_decay: Share
    replay_share: Annotated[float, Field(gt=0, lt=1)]
    forgetting_budget: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    @property
    def weights(self) -> dict[str, float]:
        """Kind of task -> weight of its loss."""
        return dict(zip(KINDS, self.task_weights, strict=True))

    def fit_settings(self, **changes: Any) -> FitSettings:
        """Return the training settings, with one dev evaluation per epoch; `changes` override single settings."""
        common: dict[str, Any] = {"epochs": self.epochs, "learning_rate": self.learning_rate, "engine": self.engine}
        run = {"max_steps": self.max_steps, "sampling": self.sampling, "seed": self.seed}
        run["evaluations"] = max(1, round(self.epochs))
        return FitSettings(**{**common, **run, **changes})

    def static_settings(self) -> FitSettings:
        """Return the training settings of the static model."""
        settings = {"batch_size": STATIC_CONTRASTIVE_BATCH, "learning_rate": STATIC_LEARNING_RATE, "weight_decay": 0.0}
        return self.fit_settings(epochs=STATIC_EPOCHS, evaluations=4, sampling="proportional", **settings)
