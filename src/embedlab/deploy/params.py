"""Parameters of the deployment notebook."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from embedlab.params import Count, CountOrNone, PositiveFloat, TrainingParams


class DeployParams(TrainingParams):
    """What is shipped, and how it is watched."""

    epochs: PositiveFloat
    batch_size: Annotated[int, Field(ge=2)]  # a batch of one has no negatives
    learning_rate: PositiveFloat
    k: Count
    adapter_sample: Annotated[int, Field(ge=2)]
    alpha: Annotated[float, Field(gt=0, lt=1)]
    drift_repeats: CountOrNone
