"""Contrastive fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from embedlab.errors import ParameterError
from embedlab.params import Count, CountOrNone, PositiveFloat, Share, TrainingParams
from embedlab.training.batches import TokenisedCollator
from embedlab.training.fit import FitResult, FitSettings, fit
from embedlab.training.losses import ContrastiveLoss

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator

    from embedlab.training.examples import TrainingRows


class ContrastiveParams(TrainingParams):
    """Parameters of a contrastive fine-tune; a notebook may leave out those it does not teach."""

    epochs: PositiveFloat
    batch_size: Annotated[int, Field(ge=2)]  # a batch of one has no negatives
    learning_rate: PositiveFloat
    temperature: PositiveFloat = 0.05
    hard_negatives: CountOrNone = 1
    relative_margin: Share = 0.95
    use_triplets: bool = True
    matryoshka_dims: list[Count]
    patience: CountOrNone = 0

    def fit_settings(self) -> FitSettings:
        """How to train."""
        return FitSettings(
            epochs=self.epochs,
            max_steps=self.max_steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            patience=self.patience,
            seed=self.seed,
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


def train_contrastive(
    model: SentenceTransformer,
    rows: TrainingRows,
    settings: FitSettings,
    *,
    temperature: float = 0.05,
    dims: Sequence[int] | None = None,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    evaluator: BaseEvaluator | None = None,
    output_dir: str,
    stage: str = "train",
) -> FitResult:
    """Fine-tune `model` in place and leave it with its best weights on dev.

    Every row's query is trained to rank its own document over all other documents of the batch and its hard negatives.

    Args:
        model: the model to train.
        rows: from `training.examples.number_rows`.
        settings: how to train.
        temperature: of the softmax over candidates.
        dims: Matryoshka dimensions; the full one only when not given.
        query_prompt, document_prompt: put before every query and every document.
        evaluator: scores dev, larger is better; its `primary_metric` chooses the weights.
        output_dir: scratch folder of the Trainer.
        stage: what progress reports call this.
    """
    return fit(
        model,
        rows.dataset,
        ContrastiveLoss(model, temperature, dims),
        settings,
        collator=TokenisedCollator(model, rows.texts, rows.columns, query_prompt, document_prompt),
        evaluator=evaluator,
        output_dir=output_dir,
        stage=stage,
    )
