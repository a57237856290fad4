"""2D Matryoshka training: embeddings that can be truncated, and models that still work without their last layers.

`training.losses.ContrastiveLoss` with several dimensions trains truncated embeddings. Here the same loss is also
computed on the output of earlier layers (Matryoshka2dLoss in sentence-transformers; Li et al., 2D Matryoshka Sentence
Embeddings, 2024). The layers are the same in every step, as in Zhuang et al., Starbucks, 2024.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from embedlab.errors import ParameterError
from embedlab.models.layers import final_norm, layer_count
from embedlab.models.packing import merge_columns
from embedlab.models.prompts import prompts_of
from embedlab.params import TEMPERATURE, Count, PositiveFloat
from embedlab.training import group
from embedlab.training.batches import TokenisedCollator
from embedlab.training.contrastive.train import ContrastiveParams
from embedlab.training.engine import prepare
from embedlab.training.fit import FitResult, FitSettings, fit
from embedlab.training.losses import false_negative_mask, info_nce

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from embedlab.search.judged import Judged
    from embedlab.training.examples import TrainingRows


class MatryoshkaParams(ContrastiveParams):
    """Parameters of the Matryoshka notebook: a contrastive fine-tune, and how its embeddings are searched.

    Attributes:
        tuned_model: folder of a fine-tuned model to use; empty trains one.
        layers: layer counts to train.
        shortlist: documents that the search with truncated embeddings passes on to rescoring.
        tolerance: loss of nDCG@10 that is acceptable.
        corpus_sizes: corpus sizes for which search time is measured.
    """

    tuned_model: str = ""
    layers: list[Count]
    shortlist: Annotated[int, Field(ge=10)]  # nDCG@10 needs ten documents
    tolerance: PositiveFloat
    corpus_sizes: list[Count]

    def depths(self, model: SentenceTransformer) -> list[int]:
        """Return the layer counts to train and evaluate, largest first; the full depth is always included.

        Raises:
            ParameterError: a layer count exceeds the depth of the model.
            ModelError: the model has no plain list of layers.
        """
        deepest = layer_count(model)
        if too_deep := [count for count in self.layers if count > deepest]:
            problem = f"layer count {too_deep[0]} exceeds the {deepest} layers of {self.model_name}"
            raise ParameterError(problem, remedy=f"Choose values from 1 to {deepest}", field="layers")
        return sorted({deepest, *self.layers}, reverse=True)


def embed_layers(model: nn.Module, columns: list[dict[str, Any]], layers: Sequence[int]) -> list[list[Tensor]]:
    """Compute sentence embeddings after each of `layers`; packed columns need one forward pass in all.

    Args:
        model: a sentence-transformers model.
        columns: features of each column.
        layers: layer counts, from 1 to the model's depth.

    Returns:
        Per layer count one (B, d) tensor per column, equal to the embeddings of the model truncated to that many
        layers (`models.layers.keep_layers`).
    """
    layer_count(model)  # raises if there are no layers
    merged = merge_columns(columns)
    with _hidden_states(model):
        outputs = [model(features) for features in ([merged] if merged else columns)]
    by_layer = [[_pool(model, output, layer) for output in outputs] for layer in layers]
    return [list(outputs[0].chunk(len(columns))) for outputs in by_layer] if merged else by_layer


@contextmanager
def _hidden_states(model: SentenceTransformer) -> Iterator[None]:
    """Make the transformer return the output of every layer inside the block."""
    config = model[0].model.config
    previous, config.output_hidden_states = config.output_hidden_states, True
    try:
        yield
    finally:
        config.output_hidden_states = previous


def _pool(model: SentenceTransformer, output: dict[str, Any], layer: int) -> Tensor:
    states = output["all_layer_embeddings"]  # the first is the word embeddings
    tokens = states[layer]
    if layer < len(states) - 1 and (norm := final_norm(model)) is not None:
        tokens = norm(tokens)  # only the last state has passed it
    features = {**output, "token_embeddings": tokens}
    for module in list(model)[1:]:
        features = module(features)
    return group.whole(features["sentence_embedding"], output)


class LayeredContrastiveLoss(nn.Module):
    """The mean of `ContrastiveLoss` over all combinations of layers and dimensions.

    Args:
        model: the model being trained.
        layers: layer counts to train, e.g. (6, 3).
        dims: dimensions to train at each layer count.
        judged: all relevant pairs, see `false_negative_mask`.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[int], dims: Sequence[int], *, judged: Judged | None = None
    ) -> None:
        super().__init__()
        self.model, self.judged = model, judged
        self.layers, self.dims = tuple(layers), tuple(dims)

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Encode the columns query, positive, hard negatives and compute the loss, a scalar.

        Args:
            sentence_features: features of each column.
            labels: int (B, 2 + n), see `false_negative_mask`; None masks nothing.
        """
        mask = None if labels is None else false_negative_mask(labels, self.judged)
        losses = []
        for queries, *documents in embed_layers(self.model, list(sentence_features), self.layers):
            candidates = torch.cat(documents)
            losses += [info_nce(queries[:, :dim], candidates[:, :dim], TEMPERATURE, mask) for dim in self.dims]
        return torch.stack(losses).mean()

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings that the model card shows."""
        return {"temperature": TEMPERATURE, "layers": list(self.layers), "dims": list(self.dims)}


def train_matryoshka(
    model: SentenceTransformer,
    rows: TrainingRows,
    settings: FitSettings,
    *,
    layers: Sequence[int],
    dims: Sequence[int],
    output_dir: str,
    stage: str = "train",
) -> FitResult:
    """Fine-tune `model` in place at all combinations of layers and dimensions; the last weights are kept.

    The model's own query and document prompts are prepended. There is no early stopping on dev, so models trained at
    different dimensions are compared after equal work.

    Args:
        model: the model to train.
        rows: from `training.examples.number_rows`.
        settings: training settings.
        layers: layer counts to train; only the full depth trains a plain model.
        dims: dimensions to train; only the full dimension trains without Matryoshka.
        output_dir: scratch folder of the Trainer.
        stage: name of this training in progress reports.

    Returns:
        History and steps; there is no dev value.
    """
    prepare(model, settings.engine)
    loss = LayeredContrastiveLoss(model, layers, dims, judged=rows.judged)
    collator = TokenisedCollator(model, rows.texts, rows.columns, *prompts_of(model))
    return fit(model, rows.dataset, loss, settings, collator=collator, output_dir=output_dir, stage=stage)
