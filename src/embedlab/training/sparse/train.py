"""Train a sparse model: sentence-transformers' `SparseEncoderTrainer` with `SpladeLoss`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from embedlab.models.prompts import prompts_of
from embedlab.training.batches import TokenisedCollator
from embedlab.training.engine import prepare
from embedlab.training.fit import FitResult, FitSettings, fit

if TYPE_CHECKING:
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.evaluation import BaseEvaluator

    from embedlab.training.examples import TrainingRows

DOCUMENT_WEIGHT, QUERY_WEIGHT = 3e-3, 5e-3  # of the FLOPS regulariser: larger weights give sparser vectors


def train_sparse(
    model: SparseEncoder,
    rows: TrainingRows,
    settings: FitSettings,
    *,
    document_weight: float = DOCUMENT_WEIGHT,
    query_weight: float = QUERY_WEIGHT,
    evaluator: BaseEvaluator | None = None,
    output_dir: str,
) -> FitResult:
    """Train a sparse model in place and restore its best weights on dev.

    The loss is `SpladeLoss` around `SparseMultipleNegativesRankingLoss`: the softmax over the documents of the batch,
    plus the FLOPS regulariser, which makes weights zero (Formal et al., SPLADE, SIGIR 2021). Its weights grow from 0
    during the first third of the training. Batches hold no text twice and no known positive of another query, because
    this loss has no mask for them.

    Args:
        model: from `models.sparse.sparse_from`, or any `SparseEncoder` with one encoder.
        rows: from `training.examples.number_rows`.
        settings: training settings.
        document_weight, query_weight: weights of the regulariser for documents and queries.
        evaluator: computes the dev value (larger is better); its `primary_metric` chooses the weights.
        output_dir: scratch folder of the Trainer.
    """
    from sentence_transformers.sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss

    prepare(model, settings.engine)
    loss = SpladeLoss(
        model,
        SparseMultipleNegativesRankingLoss(model),
        document_regularizer_weight=document_weight,
        query_regularizer_weight=query_weight,
    )
    return fit(
        model,
        rows.dataset,
        loss,
        replace(settings, no_duplicates=True),
        collator=TokenisedCollator(model, rows.texts, rows.columns, *prompts_of(model)),
        evaluator=evaluator,
        output_dir=output_dir,
        stage="train sparse",
    )
