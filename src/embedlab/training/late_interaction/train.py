"""Train late interaction: sentence-transformers' `MultiVectorEncoderTrainer` with its multiple negatives loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from embedlab.models.late_interaction import encode_tokens
from embedlab.models.prompts import prompts_of
from embedlab.params import TEMPERATURE
from embedlab.search.late_interaction import max_sim
from embedlab.training.batches import TokenisedCollator
from embedlab.training.engine import prepare
from embedlab.training.examples import Row
from embedlab.training.fit import FitResult, FitSettings, fit

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.evaluation import BaseEvaluator

    from embedlab.training.examples import TrainingRows


def train_late_interaction(
    model: MultiVectorEncoder,
    rows: TrainingRows,
    settings: FitSettings,
    *,
    temperature: float = TEMPERATURE,
    evaluator: BaseEvaluator | None = None,
    output_dir: str,
) -> FitResult:
    """Train a late-interaction model in place and restore its best weights on dev.

    The loss is `MultiVectorMultipleNegativesRankingLoss`: the softmax over the documents of the batch. In training the
    score is MaxSim divided by the number of query tokens, a mean of cosines, so it has the temperature of a single
    vector. The division changes no ranking, and search uses the plain sum. Batches hold no text twice and no known
    positive of another query, because this loss has no mask for them.

    Args:
        model: from `models.late_interaction`.
        rows: from `training.examples.number_rows`.
        settings: training settings.
        temperature: of the softmax.
        evaluator: computes the dev value (larger is better); its `primary_metric` chooses the weights.
        output_dir: scratch folder of the Trainer.
    """
    from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss
    from sentence_transformers.multi_vector_encoder.scoring import mean_colbert_scores

    prepare(model, settings.engine)
    loss = MultiVectorMultipleNegativesRankingLoss(model, scale=1 / temperature, similarity_fct=mean_colbert_scores)
    return fit(
        model,
        rows.dataset,
        loss,
        replace(settings, no_duplicates=True),
        collator=TokenisedCollator(model, rows.texts, rows.columns, *prompts_of(model)),
        evaluator=evaluator,
        output_dir=output_dir,
        stage="train late interaction",
    )


def score_rows_by_tokens(
    model: MultiVectorEncoder, rows: Sequence[Row], *, temperature: float = TEMPERATURE
) -> np.ndarray:
    """Score the documents of every row, as a teacher of a single-vector model; see `distillation.distil_scores`.

    Args:
        model: a trained late-interaction model.
        rows: (query, positive, negatives) with the same number of documents each.
        temperature: of the training; the scores are logits of its softmax.

    Returns:
        float32 (rows, documents), the positive first.
    """
    queries = {text: row for row, text in enumerate(dict.fromkeys(row[0] for row in rows))}
    documents = {text: row for row, text in enumerate(dict.fromkeys(text for row in rows for text in row[1:]))}
    query_tokens = encode_tokens(model, list(queries), "query")
    document_tokens = encode_tokens(model, list(documents), "document")
    scores = np.empty((len(rows), len(rows[0]) - 1), dtype=np.float32)
    for number, (query, *texts) in enumerate(rows):
        tokens = query_tokens[queries[query]]
        scores[number] = max_sim(tokens, document_tokens, np.array([documents[text] for text in texts])) / len(tokens)
    return scores / np.float32(temperature)
