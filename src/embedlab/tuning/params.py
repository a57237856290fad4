"""Parameters of notebook 12_tune."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from embedlab.params import CountOrNone, PositiveFloat, TrainingParams

Recipe = Literal["linear", "static", "contrastive", "merged", "distilled", "concatenation"]


class TuneParams(TrainingParams):
    """What to try, how long, and what the result may cost.

    Attributes:
        minutes: time for everything, from loading the data to the test.
        recipes_to_try: names of recipes in order, see `tuning.recipes`.
        max_forgetting: the most that nDCG@10 may fall on the probe of another domain; 1 allows everything.
        min_speed: encoding speed as a multiple of the base model's; 0 allows everything.
        max_bytes: bytes of a document vector in float32; 0 allows everything.
    """

    minutes: PositiveFloat
    recipes_to_try: Annotated[list[Recipe], Field(min_length=1)]
    max_forgetting: Annotated[float, Field(ge=0, le=1)] = 1.0
    min_speed: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    max_bytes: CountOrNone = 0
