"""Contrastive fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from embedlab.training.batches import TokenisedCollator
from embedlab.training.fit import FitResult, FitSettings, fit
from embedlab.training.losses import ContrastiveLoss

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator

    from embedlab.training.examples import TrainingRows


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
