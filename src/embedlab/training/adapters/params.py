"""Kinds of adapters, their settings, and the parameters of the notebook on closed models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from embedlab.engine import NotNegative
from embedlab.params import TEMPERATURE, Count, CountOrNone, PositiveFloat, Text, TrainingParams
from embedlab.training.distillation.embeddings import static_settings
from embedlab.training.fit import FitSettings

Kind = Literal["query-linear", "linear", "low-rank", "mlp", "query-mlp"]
KINDS: dict[Kind, str] = {
    "query-linear": "a linear map of the query vectors; document vectors stay as they are",
    "linear": "one linear map of query and document vectors",
    "low-rank": "one linear map of query and document vectors: the identity plus a matrix of low rank",
    "mlp": "one network with a hidden layer, added to query and document vectors",
    "query-mlp": "a network with a hidden layer, added to the query vectors; document vectors stay as they are",
}


# Chosen on the dev queries of icd10cm:mini. A query-side map fits its training queries soon, so it learns more slowly.
LEARNING_RATES: dict[Kind, float] = {
    "query-linear": 1e-4, "query-mlp": 2e-4, "linear": 5e-4, "low-rank": 5e-4, "mlp": 5e-4
}  # fmt: skip


@dataclass(frozen=True)
class AdapterSettings:
    """How to train an adapter.

    Attributes:
        steps: optimiser steps; training ends earlier when dev has not improved for `patience` evaluations.
        batch_size: pairs per step.
        learning_rate: of AdamW; None is the kind's own, see `LEARNING_RATES`.
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
    learning_rate: float | None = None
    weight_decay: float = 0.0
    random_negatives: int = 2_048
    rank: int = 32
    hidden: int = 256
    temperature: float = TEMPERATURE
    every: int = 20
    patience: int = 10  # a shorter one ends on the noise of a small dev set
    seed: int = 0


class AdapterParams(TrainingParams):
    """Parameters of notebook 14_closed_models."""

    model_name: str  # empty: the local base, behind a server on this machine
    local_base: Text
    replacement: str  # another model, to see what survives a change; empty: none
    kinds: list[Kind]
    steps: Count
    hard_negatives: CountOrNone
    static_epochs: PositiveFloat
    price: NotNegative
    probe: str

    def adapter_settings(self) -> AdapterSettings:
        """Return the settings of every adapter."""
        steps = min(self.steps, self.max_steps) if self.max_steps else self.steps
        return AdapterSettings(steps=steps, seed=self.seed)

    def static_settings(self) -> tuple[FitSettings, FitSettings]:
        """Return the settings of the static model's distillation, and of its contrastive training on the pairs."""
        return static_settings(self, self.static_epochs)
