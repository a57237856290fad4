"""Two-dimensional Matryoshka training: embeddings that can be cut in width and models that can be cut in depth.

Width alone is `training.losses.ContrastiveLoss` with several dimensions. Here the same loss is also put on earlier
layers of the transformer, so that a model keeps ranking when its last layers are taken off: Li et al., 2D Matryoshka
Sentence Embeddings, 2024, with fixed layers in every step as in Zhuang et al., Starbucks, 2024.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from embedlab.errors import ParameterError
from embedlab.models.layers import layer_count
from embedlab.models.packing import merge_columns
from embedlab.params import Count, PositiveFloat
from embedlab.training.batches import TokenisedCollator
from embedlab.training.contrastive.train import ContrastiveParams
from embedlab.training.fit import FitResult, FitSettings, fit
from embedlab.training.losses import false_negative_mask, info_nce

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from embedlab.training.examples import TrainingRows


class MatryoshkaParams(ContrastiveParams):
    """Parameters of the Matryoshka notebook: a contrastive fine-tune, and how its embeddings are searched."""

    tuned_model: str = ""
    layers: list[Count]
    shortlist: Annotated[int, Field(ge=10)]  # ten documents are scored
    tolerance: PositiveFloat
    corpus_sizes: list[Count]

    def depths(self, model: SentenceTransformer) -> list[int]:
        """Layer counts to train and evaluate, deepest first, the whole model always among them.

        Raises:
            ParameterError: more layers than the model has.
            ModelError: the model has no plain list of layers.
        """
        deepest = layer_count(model)
        if too_deep := [count for count in self.layers if count > deepest]:
            problem = f"{self.model_name} has no {too_deep[0]} layers"
            raise ParameterError(problem, remedy=f"Choose 1 to {deepest}", field="layers")
        return sorted({deepest, *self.layers}, reverse=True)


def embed_layers(model: nn.Module, columns: list[dict[str, Any]], layers: Sequence[int]) -> list[list[Tensor]]:
    """Sentence embeddings after each of `layers`, in one forward where the columns are packed.

    Args:
        model: a sentence-transformers model.
        columns: features of every column.
        layers: layer counts, from 1 to the model's depth.

    Returns:
        For every layer one (batch, d) tensor per column: what the model cut to so many layers
        (`models.layers.keep_layers`) gives.
    """
    merged = merge_columns(columns)
    with _hidden_states(model):
        outputs = [model(features) for features in ([merged] if merged else columns)]
    embedded = [[_pool(model, output, layer) for output in outputs] for layer in layers]
    return [list(one[0].chunk(len(columns))) for one in embedded] if merged else embedded


@contextmanager
def _hidden_states(model: SentenceTransformer) -> Iterator[None]:
    """Let the transformer return the output of every layer."""
    config = model[0].model.config
    before, config.output_hidden_states = config.output_hidden_states, True
    try:
        yield
    finally:
        config.output_hidden_states = before


def _pool(model: SentenceTransformer, output: dict[str, Any], layer: int) -> Tensor:
    features = {**output, "token_embeddings": output["all_layer_embeddings"][layer]}  # 0 is the word embeddings
    for module in list(model)[1:]:
        features = module(features)
    return features["sentence_embedding"]


class LayeredContrastiveLoss(nn.Module):
    """`ContrastiveLoss` at every pair of a layer and a dimension: the mean over both.

    Args:
        model: the model being trained, not wrapped for distributed training.
        layers: layer counts to train, e.g. (6, 3).
        dims: dimensions to train at each.
        temperature: see `info_nce`.
    """

    def __init__(self, model: nn.Module, layers: Sequence[int], dims: Sequence[int], temperature: float = 0.05) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature
        self.layers, self.dims = tuple(layers), tuple(dims)

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Loss of one batch: the columns are query, positive, hard negatives; labels as in `false_negative_mask`."""
        mask = None if labels is None else false_negative_mask(labels)
        losses = []
        for queries, *documents in embed_layers(self.model, list(sentence_features), self.layers):
            candidates = torch.cat(documents)
            losses += [info_nce(queries[:, :dim], candidates[:, :dim], self.temperature, mask) for dim in self.dims]
        return torch.stack(losses).mean()

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of the loss."""
        return {"temperature": self.temperature, "layers": list(self.layers), "dims": list(self.dims)}


def train_matryoshka(
    model: SentenceTransformer,
    rows: TrainingRows,
    settings: FitSettings,
    *,
    layers: Sequence[int],
    dims: Sequence[int],
    temperature: float = 0.05,
    output_dir: str,
    stage: str = "train",
) -> FitResult:
    """Fine-tune `model` in place at every pair of a layer and a dimension, and leave it with its last weights.

    Dev chooses nothing here, so that models trained at different dimensions are compared after equal work.

    Args:
        model: the model to train.
        rows: from `training.examples.number_rows`.
        settings: how to train.
        layers: layer counts to train; the model's depth alone trains the whole model only.
        dims: dimensions to train; the full width alone is training without Matryoshka.
        temperature: of the softmax over candidates.
        output_dir: scratch folder of the Trainer.
        stage: what progress reports call this.
    """
    loss = LayeredContrastiveLoss(model, layers, dims, temperature)
    collator = TokenisedCollator(model, rows.texts, rows.columns)
    return fit(model, rows.dataset, loss, settings, collator=collator, output_dir=output_dir, stage=stage)
