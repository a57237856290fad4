"""Kinds of adapters, their settings, and the parameters of the notebook on closed models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from embedlab.engine import NotNegative
from embedlab.params import TEMPERATURE, Count, CountOrNone, Params, PositiveFloat, Text

Kind = Literal["query-linear", "linear", "low-rank", "mlp", "query-mlp"]
KINDS: dict[Kind, str] = {
    "query-linear": "a linear map of the query vectors; document vectors stay as they are",
    "linear": "one linear map of query and document vectors",
    "low-rank": "one linear map of query and document vectors: the identity plus a matrix of low rank",
    "mlp": "one network with a hidden layer, added to query and document vectors",
    "query-mlp": "a network with a hidden layer, added to the query vectors; document vectors stay as they are",
}


@dataclass(frozen=True)
class AdapterSettings:
    """How to train an adapter.

    Attributes:
        steps: optimiser steps; training ends earlier when dev has not improved for `patience` evaluations.
        batch_size: pairs per step.
        learning_rate: of AdamW.
        weight_decay: of AdamW, on the difference to the identity; it pulls the adapter back to the untouched model.
        random_negatives: random documents per step, shared by the batch.
        rank: of the low-rank map.
        hidden: width of the hidden layer of a network.
        temperature: of the loss, see `losses.info_nce`.
        every: steps between dev evaluations.
        patience: dev evaluations without a better value before training ends.
        seed: of batches, random documents and weights.
    """

    steps: int = 400
    batch_size: int = 256
    learning_rate: float = 5e-4
    weight_decay: float = 0.0
    random_negatives: int = 2_048
    rank: int = 32
    hidden: int = 256
    temperature: float = TEMPERATURE
    every: int = 20
    patience: int = 5
    seed: int = 0


class AdapterParams(Params):
    """Parameters of notebook 14_closed_models."""

    dataset: Text
    model_name: Text
    static_base: Text
    kinds: list[Kind]
    max_steps: CountOrNone = 0
    max_examples: CountOrNone = 0
    steps: Count
    learning_rate: PositiveFloat
    hard_negatives: CountOrNone
    static_epochs: PositiveFloat
    price: NotNegative
    probe: str

    def adapter_settings(self) -> AdapterSettings:
        """Return the settings of every adapter."""
        steps = min(self.steps, self.max_steps) if self.max_steps else self.steps
        return AdapterSettings(steps=steps, learning_rate=self.learning_rate, seed=self.seed)
