"""Parameters of the notebook on data sources."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from embedlab.params import Count, PositiveFloat, TrainingParams


class SourcesParams(TrainingParams):
    """Parameters of the notebook on data sources; with an empty `chat_url`, no language model is used."""

    epochs: PositiveFloat
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: PositiveFloat
    per_document: Count
    click_queries: Count
    sessions: Annotated[list[Count], Field(min_length=1)]
    shuffle: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    chat_url: str
    chat_model: str
