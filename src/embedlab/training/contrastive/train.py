"""Contrastive fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args

import numpy as np
from pydantic import Field

from embedlab.errors import ParameterError
from embedlab.models.encode import encode
from embedlab.models.prompts import prompts_of
from embedlab.params import Count, CountOrNone, PositiveFloat, Share, TrainingParams
from embedlab.training.batches import TokenisedCollator
from embedlab.training.contrastive.ance import Renew, RenewingCollator, numbered
from embedlab.training.contrastive.graded import GradedLossName
from embedlab.training.contrastive.negative_sources import EXPERT, Source
from embedlab.training.fit import FitResult, FitSettings, fit
from embedlab.training.losses import CachedLoss, ContrastiveLoss, GuidedLoss, SymmetricLoss, TripletLoss

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator
    from torch import nn

    from embedlab.training.examples import TrainingRows

RankingLossName = Literal["infonce", "symmetric", "cached", "gist", "triplet"]
Encode = Callable[..., np.ndarray]  # called like `embedlab.models.encode.encode`
Margin = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ContrastiveParams(TrainingParams):
    """Parameters of a contrastive fine-tune; a notebook may leave out those it does not teach."""

    epochs: PositiveFloat
    batch_size: Annotated[int, Field(ge=2)]  # a batch of one has no negatives
    learning_rate: PositiveFloat
    temperature: PositiveFloat = 0.05
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
        """Whether the loss takes graded pairs and not rows of a query and its documents."""
        return self.loss in get_args(GradedLossName)

    @property
    def use_triplets(self) -> bool:
        """Whether the dataset's expert triplets are trained on."""
        return EXPERT in self.negatives

    def mining(self) -> dict[str, Any]:
        """How many hard negatives to mine, and what the filters of `mine_hard_negatives` are set to."""
        margins = {"relative_margin": self.relative_margin, "absolute_margin": self.absolute_margin}
        ranks = {"skip_first": self.skip_first, "last_rank": self.last_rank}
        return {"per_pair": self.hard_negatives, "guided": self.loss == "gist", **margins, **ranks}

    def fit_settings(self) -> FitSettings:
        """How to train."""
        return FitSettings(
            epochs=self.epochs,
            max_steps=self.max_steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            patience=self.patience,
            seed=self.seed,
            layer_decay=self.layer_decay,
            embedding_rate=self.embedding_rate,
        )

    def dims(self, model: SentenceTransformer) -> list[int]:
        """Matryoshka dimensions, largest first, the model's full one always among them.

        Raises:
            ParameterError: a dimension that the model does not have.
        """
        full = model.get_embedding_dimension()
        if too_large := [dim for dim in self.matryoshka_dims if dim > full]:
            remedy = f"Choose 1 to {full}"
            raise ParameterError(
                f"{self.model_name} has no {too_large[0]} dimensions", remedy=remedy, field="matryoshka_dims"
            )
        return sorted({full, *self.matryoshka_dims}, reverse=True)


class Guide(NamedTuple):
    """A guide model's unit vectors (N, e) of every text as a query and as a document, by text number."""

    queries: np.ndarray
    documents: np.ndarray


def as_guide(model: SentenceTransformer, texts: Sequence[str], encode: Encode = encode) -> Guide:
    """What `model`, as it is now and with its own prompts, makes of every text.

    Args:
        model: the guide: the base model before it is trained, or a stronger one.
        texts: of the training rows, in the order of their numbers.
        encode: stands in for `models.encode.encode`.
    """
    prompts = prompts_of(model)
    documents = encode(model, texts, stage="encode for the guide", prompt=prompts.document)
    if prompts.query == prompts.document:
        return Guide(documents, documents)
    return Guide(encode(model, texts, stage="encode for the guide", prompt=prompts.query), documents)


def ranking_loss(
    name: RankingLossName,
    model: SentenceTransformer,
    temperature: float = 0.05,
    dims: Sequence[int] | None = None,
    guide: Guide | None = None,
) -> nn.Module:
    """The loss called `name`, on columns query, positive, hard negatives.

    `infonce` and `cached` are the same sum, the second with the memory of a small batch (GradCache); `symmetric` adds
    the direction from document to query; `gist` masks what `guide` takes for a better answer; `triplet` looks at a
    row's own hard negatives alone.

    Raises:
        ParameterError: `gist` without a guide.
    """
    if name == "gist":
        if guide is None:
            raise ParameterError("gist needs a guide", remedy="Encode the texts with a guide model", field="loss")
        return GuidedLoss(model, *guide, temperature, dims)
    if name == "triplet":
        return TripletLoss(model, dims=dims)
    loss = (SymmetricLoss if name == "symmetric" else ContrastiveLoss)(model, temperature, dims)
    return CachedLoss(loss) if name == "cached" else loss


def train_contrastive(
    model: SentenceTransformer,
    rows: TrainingRows,
    settings: FitSettings,
    *,
    loss: RankingLossName = "infonce",
    temperature: float = 0.05,
    dims: Sequence[int] | None = None,
    guide: Guide | None = None,
    renew: Renew | None = None,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    evaluator: BaseEvaluator | None = None,
    output_dir: str,
    stage: str = "train",
) -> FitResult:
    """Fine-tune `model` in place and leave it with its best weights on dev.

    Every row's query is trained to rank its own document over all other documents of the batch and its hard negatives,
    or as `loss` says.

    Args:
        model: the model to train.
        rows: from `training.examples.number_rows`.
        settings: how to train.
        loss: see `ranking_loss`.
        temperature: of the softmax over candidates.
        dims: Matryoshka dimensions; the full one only when not given.
        guide: of the loss `gist`, for the texts of `rows`.
        renew: gives the rows of the next epoch, see `RenewingCollator`; the same rows every epoch when None.
        query_prompt, document_prompt: put before every query and every document; the model's own when None.
        evaluator: scores dev, larger is better; its `primary_metric` chooses the weights.
        output_dir: scratch folder of the Trainer.
        stage: what progress reports call this.

    Raises:
        ParameterError: the triplet loss on rows without hard negatives, or `gist` without a guide.
    """
    if loss == "triplet" and len(rows.columns) < 3:
        remedy = "Set hard_negatives to 1 or more"
        raise ParameterError("the triplet loss has no negatives to look at", remedy=remedy, field="hard_negatives")
    prompts = prompts_of(model, query_prompt, document_prompt)
    if renew is None:
        dataset, collator = rows.dataset, TokenisedCollator(model, rows.texts, rows.columns, *prompts)
    else:
        dataset, collator = numbered(rows), RenewingCollator(model, rows, renew, *prompts)
    return fit(
        model,
        dataset,
        ranking_loss(loss, model, temperature, dims, guide),
        settings,
        collator=collator,
        evaluator=evaluator,
        output_dir=output_dir,
        stage=stage,
    )
