"""Contrastive fine-tuning: SentenceTransformerTrainer with MultipleNegativesRankingLoss and its relatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from embedlab.errors import ParameterError
from embedlab.models.encode import encode
from embedlab.models.prompts import prompts_of
from embedlab.models.sides import is_static, sides_of
from embedlab.params import TEMPERATURE, Count, CountOrNone, PositiveFloat, Share, ShareOrNone, TrainingParams
from embedlab.training.batches import TokenisedCollator
from embedlab.training.contrastive.ance import Renew, RenewingCollator, with_row_indices
from embedlab.training.contrastive.graded import GradedLossName, is_graded
from embedlab.training.contrastive.negative_sources import EXPERT, Source
from embedlab.training.engine import prepare
from embedlab.training.fit import FitResult, FitSettings, fit
from embedlab.training.losses import (
    TOKENS_PER_FORWARD,
    CachedLoss,
    ContrastiveLoss,
    GuidedLoss,
    SymmetricLoss,
    TripletLoss,
)
from embedlab.training.outcome import ENOUGH_STEPS

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator
    from torch import nn

    from embedlab.search.judged import Judged
    from embedlab.training.examples import TrainingRows

RankingLossName = Literal["infonce", "symmetric", "cached", "gist", "triplet"]
Encode = Callable[..., np.ndarray]  # called like `embedlab.models.encode.encode`
Margin = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ContrastiveParams(TrainingParams):
    """Parameters of a contrastive fine-tune. A notebook can omit those with a default.

    Attributes:
        epochs: passes over the training rows.
        linear_start: share of a trained linear map that is appended to the base model before the fine-tune, see
            `Probe.blended`; 0 appends none.
        min_steps: at least this many steps, with more epochs on small data.
        batch_size: rows per step.
        learning_rate: peak learning rate.
        temperature: temperature of the softmax over candidates.
        loss: name of the loss, see `ranking_loss` and `graded.GradedLoss`.
        negatives: sources of hard negatives, see `negative_sources.Source`.
        hard_negatives: mined negatives per pair; 0 uses in-batch negatives only.
        relative_margin: see `mining.score_ceiling`.
        absolute_margin: see `mining.score_ceiling`.
        skip_first: ranks that mining skips.
        last_rank: last rank that mining uses.
        lora_rank: rank of the LoRA adapter; 0 trains all weights.
        matryoshka_dims: dimensions to train.
        patience: dev evaluations without improvement before training stops; 0 never stops early.
        layer_decay: factor on the learning rate from one layer to the layer below.
        embedding_rate: factor on the learning rate of the token embeddings.
    """

    epochs: PositiveFloat
    linear_start: ShareOrNone = 0.0
    min_steps: CountOrNone = ENOUGH_STEPS
    batch_size: Annotated[int, Field(ge=2)]  # a batch of one has no negatives
    learning_rate: PositiveFloat
    temperature: PositiveFloat = TEMPERATURE
    loss: Literal[RankingLossName, GradedLossName] = "infonce"
    negatives: list[Source] = ["base", EXPERT]
    hard_negatives: CountOrNone = 1
    relative_margin: Share = 0.95
    absolute_margin: Margin = 0.0
    skip_first: CountOrNone = 0
    last_rank: Count = 100
    lora_rank: CountOrNone = 0
    matryoshka_dims: list[Count]
    patience: CountOrNone = 0
    layer_decay: Share = 1.0
    embedding_rate: PositiveFloat = 1.0

    @property
    def graded(self) -> bool:
        """Whether the loss trains on graded pairs instead of (query, positive, negatives) rows."""
        return is_graded(self.loss)

    @property
    def use_triplets(self) -> bool:
        """Whether to train on the dataset's expert triplets."""
        return EXPERT in self.negatives

    def mining(self) -> dict[str, Any]:
        """Return the keyword arguments of `mine_sources`."""
        margins = {"relative_margin": self.relative_margin, "absolute_margin": self.absolute_margin}
        ranks = {"skip_first": self.skip_first, "last_rank": self.last_rank}
        return {"per_pair": self.hard_negatives, "guided": self.loss == "gist", **margins, **ranks}

    def fit_settings(self) -> FitSettings:
        """Return the settings of the training loop."""
        return FitSettings(
            epochs=self.epochs,
            min_steps=self.min_steps,
            max_steps=self.max_steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            patience=self.patience,
            seed=self.seed,
            layer_decay=self.layer_decay,
            embedding_rate=self.embedding_rate,
            engine=self.engine,
        )

    def dims(self, model: SentenceTransformer) -> list[int]:
        """Return the Matryoshka dimensions, largest first; the full dimension is always included.

        Raises:
            ParameterError: a dimension exceeds that of the model.
        """
        full = model.get_embedding_dimension()
        if too_large := [dim for dim in self.matryoshka_dims if dim > full]:
            problem = f"dimension {too_large[0]} exceeds the {full} dimensions of {self.model_name}"
            raise ParameterError(problem, remedy=f"Choose values from 1 to {full}", field="matryoshka_dims")
        return sorted({full, *self.matryoshka_dims}, reverse=True)


class Guide(NamedTuple):
    """A guide model's unit vectors of all texts, as queries and as documents.

    Attributes:
        queries: (N, e), by text index.
        documents: (N, e), by text index.
    """

    queries: np.ndarray
    documents: np.ndarray


def as_guide(model: SentenceTransformer, texts: Sequence[str], encode: Encode = encode) -> Guide:
    """Encode all texts with a guide model and its own prompts.

    Args:
        model: the guide: the base model before training, or a stronger model.
        texts: N texts of the training rows, in the order of their indices.
        encode: replaces `models.encode.encode`, e.g. `EmbeddingCache().encode`.
    """
    sides = sides_of(model)
    documents = encode(sides.document.model, texts, stage="encode for the guide", prompt=sides.document.prompt)
    if sides.are_equal:
        return Guide(documents, documents)
    return Guide(encode(sides.query.model, texts, stage="encode for the guide", prompt=sides.query.prompt), documents)


def ranking_loss(
    name: RankingLossName,
    model: SentenceTransformer,
    temperature: float = TEMPERATURE,
    dims: Sequence[int] | None = None,
    guide: Guide | None = None,
    judged: Judged | None = None,
) -> nn.Module:
    """Create the loss called `name`, on columns query, positive, hard negatives.

    - `infonce`: MultipleNegativesRankingLoss;
    - `symmetric`: the mean of both directions, query to document and document to query;
    - `cached`: `infonce` with the memory of a small batch (GradCache, CachedMultipleNegativesRankingLoss);
    - `gist`: `infonce` without the negatives that `guide` ranks above the positive (GISTEmbedLoss);
    - `triplet`: TripletLoss on a row's own hard negatives.

    Args:
        name: one of the names above.
        model: the model being trained.
        temperature: see `losses.info_nce`; not used by `triplet`.
        dims: Matryoshka dimensions; None trains the full embedding only.
        guide: from `as_guide`, needed by `gist`.
        judged: all relevant pairs, which never count as negatives; see `TrainingRows.judged`.

    Raises:
        ParameterError: `gist` without a guide, or `cached` for a static model.
    """
    if name == "gist":
        if guide is None:
            raise ParameterError(
                "the loss gist needs a guide", remedy="Pass guide=as_guide(model, texts)", field="loss"
            )
        return GuidedLoss(model, *guide, temperature, dims, judged=judged)
    if name == "triplet":
        return TripletLoss(model, dims)
    kind = SymmetricLoss if name == "symmetric" else ContrastiveLoss
    loss = kind(model, temperature, dims, judged=judged)
    if name != "cached":
        return loss
    if any(is_static(side.model) for side in sides_of(model)):
        problem = "the loss cached splits batches for transformers, and this model, or one side of it, is static"
        raise ParameterError(problem, remedy="Set loss=infonce, which needs little memory here", field="loss")
    return CachedLoss(loss, mini_batch_num_tokens=TOKENS_PER_FORWARD)


def train_contrastive(
    model: SentenceTransformer,
    rows: TrainingRows,
    settings: FitSettings,
    *,
    loss: RankingLossName = "infonce",
    temperature: float = TEMPERATURE,
    dims: Sequence[int] | None = None,
    guide: Guide | None = None,
    renew: Renew | None = None,
    evaluator: BaseEvaluator | None = None,
    output_dir: str,
    stage: str = "train",
) -> FitResult:
    """Fine-tune `model` in place with a contrastive loss and restore its best weights on dev.

    This is SentenceTransformerTrainer with MultipleNegativesRankingLoss (or another `loss`), false-negative masks and
    Matryoshka dimensions. The model's own query and document prompts are prepended.

    Args:
        model: the model to train.
        rows: from `training.examples.number_rows`.
        settings: training settings.
        loss: name of the loss, see `ranking_loss`.
        temperature: see `losses.info_nce`.
        dims: Matryoshka dimensions; None trains the full embedding only.
        guide: guide embeddings of the texts of `rows`, for the loss `gist`.
        renew: returns the rows of the next epoch, see `RenewingCollator`; None keeps the rows.
        evaluator: computes the dev value (larger is better); its `primary_metric` chooses the weights.
        output_dir: scratch folder of the Trainer.
        stage: name of this training in progress reports.

    Returns:
        History, best dev value and its step.

    Raises:
        ParameterError: the loss `triplet` on rows without hard negatives, or `gist` without a guide.
    """
    if loss == "triplet" and len(rows.columns) < 3:
        remedy = "Set hard_negatives to 1 or more"
        raise ParameterError("the triplet loss needs hard negatives", remedy=remedy, field="hard_negatives")
    prepare(model, settings.engine)
    prompts = prompts_of(model)
    if renew is None:
        dataset, collator = rows.dataset, TokenisedCollator(model, rows.texts, rows.columns, *prompts)
    else:
        dataset, collator = with_row_indices(rows), RenewingCollator(model, rows, renew, *prompts)
    return fit(
        model,
        dataset,
        ranking_loss(loss, model, temperature, dims, guide, rows.judged),
        settings,
        collator=collator,
        evaluator=evaluator,
        output_dir=output_dir,
        stage=stage,
    )
