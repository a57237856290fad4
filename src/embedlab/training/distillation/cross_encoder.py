"""Train a cross-encoder on labelled pairs, and train an embedding model on its scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from embedlab.errors import DataError
from embedlab.models.packing import embed_columns
from embedlab.models.prompts import prompts_of
from embedlab.models.tokens import count_overflowing
from embedlab.params import TEMPERATURE, Count, PositiveFloat, TrainingParams
from embedlab.training.contrastive.negative_sources import Rankers, Retriever, mine_sources
from embedlab.training.engine import prepare
from embedlab.training.examples import Row, TrainingRows, contrastive_rows
from embedlab.training.fit import FitResult, FitSettings, fit
from embedlab.training.losses import false_negative_mask, info_nce
from embedlab.training.truncated import Cut, report_cut

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator
    from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss, MarginMSELoss

    from embedlab.data.dataset import Dataset
    from embedlab.search.judged import Judged
    from embedlab.search.vectors import Vectors
    from embedlab.training.contrastive.mining import MiningReport

ScoreLoss = Literal["margin_mse", "kl"]

HOLD_OUT = 10  # every tenth row is not trained on; the scores are calibrated on these
ONE_HOT = 100.0  # softmax of (100, 0, ..., 0) is (1, 0, ..., 0) in float32
WHOLE_BATCH = -1  # one forward for all pairs of a step takes a fifth less time than sixteen pairs at a time


class RerankerParams(TrainingParams):
    """Parameters of notebook 07_reranker."""

    tuned_model: str = ""
    start_model: str = ""
    retrievers: Annotated[list[Retriever], Field(min_length=1)]
    negatives: Count
    epochs: PositiveFloat
    batch_size: Count
    learning_rate: PositiveFloat
    depth: Count
    score_loss: ScoreLoss

    def fit_settings(self, **changes: float) -> FitSettings:
        """Return the training settings; `changes` override single fields of `FitSettings`."""
        names = ("epochs", "learning_rate", "max_steps", "seed", "engine")
        return FitSettings(**{**{name: getattr(self, name) for name in names}, **changes})


def candidate_lists(
    data: Dataset, base: Vectors, tuned: Vectors, *, retrievers: Sequence[Retriever], negatives: int, seed: int = 0
) -> tuple[list[Row], dict[str, MiningReport]]:
    """Build the lists that a reranker is trained on: a query, its answer, and candidates of several retrievers.

    No candidate is left out for its score. The reranker has to learn from documents that a retriever ranks above the
    answer. A model that was trained on these queries makes few such mistakes on them; other retrievers make more.

    Args:
        data: dataset with training pairs.
        base: training queries and corpus under the base model.
        tuned: both under the fine-tuned model, which `self` stands for.
        retrievers: names as in `negative_sources.Retriever`; their candidates are taken in turn.
        negatives: candidates per list.
        seed: of the random documents that fill lists with too few candidates.

    Returns:
        Rows (query, positive, negatives), and retriever -> report of the filters.
    """
    rankers = Rankers.of(data, base, tuned)
    mined, reports = mine_sources(data, retrievers, rankers, per_pair=negatives, absolute_margin=-math.inf)
    return contrastive_rows(data, mined, hard_negatives=negatives, use_triplets=False, seed=seed), reports


def train_cross_encoder(
    encoder: CrossEncoder, rows: Sequence[Row], settings: FitSettings, *, output_dir: str, hold_out: int = HOLD_OUT
) -> list[dict[str, float | None]]:
    """Train a cross-encoder in place to score the positive of a row above its negatives.

    This is sentence-transformers' `CrossEncoderTrainer` with `ListNetLoss` and a one-hot target: the cross-entropy of
    choosing the positive among the documents of the row (Gao, Dai & Callan, ECIR 2021).

    Args:
        encoder: from `models.cross_encoder.cross_encoder_from`.
        rows: (query, positive, negatives) with the same number of documents each.
        settings: how to train; there is no dev evaluation.
        output_dir: scratch folder of the Trainer.
        hold_out: leave out every `hold_out`-th row, from the first, for `calibrate_scores`; 0 leaves out none.

    Returns:
        The training log, one row per logged step.

    Raises:
        ModelError: the loss became infinite or not a number.
        ParameterError: see `training.fit.fit`.
    """
    from datasets import Dataset
    from sentence_transformers.cross_encoder.losses import ListNetLoss

    training_rows = [row for i, row in enumerate(rows) if not hold_out or i % hold_out]
    target = [ONE_HOT] + [0.0] * (len(rows[0]) - 2)
    columns = {
        "query": [row[0] for row in training_rows],
        "documents": [row[1:] for row in training_rows],
        "label": [target] * len(training_rows),
    }
    loss = ListNetLoss(encoder, mini_batch_size=WHOLE_BATCH)
    stage = "train cross-encoder"
    prepare(encoder, settings.engine)
    report_cut(stage, _cut(encoder, training_rows), encoder.max_seq_length)
    return fit(encoder, Dataset.from_dict(columns), loss, settings, output_dir=output_dir, stage=stage).history


def _cut(encoder: CrossEncoder, rows: Sequence[Row]) -> Cut:
    """Count the truncated pairs of (query, document)."""
    pairs = [(row[0], document) for row in rows for document in row[1:]]
    encoded = encoder.tokenizer(pairs, truncation=True, max_length=encoder.max_seq_length)
    return Cut(len(pairs), count_overflowing(encoded))


class Calibrated(NamedTuple):
    """Scores on a scale on which their softmax is a good probability.

    Attributes:
        scores: (rows, documents) logits divided by the temperature.
        temperature: what they were divided by.
        accuracy: share of the held-out rows whose positive has the highest score.
    """

    scores: np.ndarray
    temperature: float
    accuracy: float


def calibrate_scores(scores: np.ndarray, hold_out: int = HOLD_OUT) -> Calibrated:
    """Divide scores by the temperature that gives the best probabilities on the held-out rows.

    Temperature scaling (Guo et al., ICML 2017) changes no ranking.

    Args:
        scores: (rows, documents) logits, the positive first.
        hold_out: the rows that `train_cross_encoder` left out: every `hold_out`-th.

    Raises:
        DataError: there are fewer than two documents per row.
    """
    held_out = scores[::hold_out]
    temperature = calibration_temperature(held_out)
    return Calibrated(scores / temperature, temperature, float((held_out.argmax(1) == 0).mean()))


def calibration_temperature(scores: np.ndarray) -> float:
    """Find T with the lowest negative log-likelihood of the first column under `softmax(scores / T)`.

    Args:
        scores: (rows, documents) logits, the positive first.

    Raises:
        DataError: there are fewer than two documents per row.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    if scores.ndim != 2 or scores.shape[1] < 2:
        problem = f"calibration needs scores (rows, documents) with at least 2 documents, got shape {scores.shape}"
        raise DataError(problem, remedy="Score the positive and at least one negative per row")
    minimum = minimize_scalar(
        lambda log_t: -log_softmax(scores / np.exp(log_t), axis=1)[:, 0].mean(), bounds=(-5, 5), method="bounded"
    )
    return float(np.exp(minimum.x))


class ScoreDistillationLoss(nn.Module):
    """InfoNCE plus `MarginMSELoss` or `DistillKLDivLoss` of sentence-transformers on a cross-encoder's scores.

    The student's score is cos / temperature, the logit that InfoNCE trains. The teacher's scores are calibrated
    logits, so both are on one scale. MarginMSE is the squared difference of the (positive - negative) margins
    (Hofstätter et al. 2020); KL is KL(teacher || student) over the documents of the row.

    Args:
        model: the student.
        scores: (rows, 1 + n) teacher scores of the documents of each row, the positive first.
        kind: "margin_mse" or "kl".
        weight: of the second term; 0 is InfoNCE alone.
        temperature: of the student's scores.
        judged: all relevant pairs, see `false_negative_mask`.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        scores: Tensor,
        kind: ScoreLoss = "kl",
        *,
        weight: float = 1.0,
        temperature: float = TEMPERATURE,
        judged: Judged | None = None,
    ) -> None:
        super().__init__()
        self.judged = judged
        self.model, self.weight, self.temperature, self.kind = model, weight, temperature, kind
        self._scores, self._term = scores, self._library_loss()

    def _library_loss(self) -> MarginMSELoss | DistillKLDivLoss:
        from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss, MarginMSELoss

        kinds = {"margin_mse": MarginMSELoss, "kl": DistillKLDivLoss}
        return kinds[self.kind](self.model, similarity_fct=self._logits)

    def _logits(self, queries: Tensor, documents: Tensor) -> Tensor:
        return nn.functional.cosine_similarity(queries, documents) / self.temperature

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor) -> Tensor:
        """Compute the loss of one batch.

        Args:
            sentence_features: features of the columns query, positive, negatives.
            labels: (B, columns + 1): the index of the text in every column, then the index of the row.
        """
        embeddings = embed_columns(self.model, list(sentence_features))
        mask = false_negative_mask(labels[:, :-1], self.judged)
        loss = info_nce(embeddings[0], torch.cat(embeddings[1:]), self.temperature, mask)
        if not self.weight:
            return loss
        targets = self._scores[labels[:, -1].cpu()].to(loss.device)
        return loss + self.weight * self._term.compute_loss_from_embeddings(embeddings, targets)

    def get_config_dict(self) -> dict[str, Any]:
        """Return what the model card shows."""
        return {"kind": self.kind, "weight": self.weight, "temperature": self.temperature}


def distil_scores(
    student: SentenceTransformer,
    rows: TrainingRows,
    scores: np.ndarray,
    settings: FitSettings,
    *,
    kind: ScoreLoss = "kl",
    weight: float = 1.0,
    evaluator: BaseEvaluator | None = None,
    output_dir: str,
) -> FitResult:
    """Train an embedding model in place on labelled rows and the scores of a cross-encoder, with the model's prompts.

    Args:
        student: a sentence-transformers model with a transformer.
        rows: from `training.examples.number_rows`.
        scores: (rows, 1 + n) calibrated teacher scores of the documents of each row, the positive first.
        settings: how to train.
        kind: the loss on the scores, see `ScoreDistillationLoss`.
        weight: of that loss; 0 trains on the labels alone.
        evaluator: dev evaluation; the student keeps the weights with the best value.
        output_dir: scratch folder of the Trainer.

    Raises:
        DataError: the shape of `scores` does not match the rows.
    """
    from embedlab.training.batches import TokenisedCollator

    expected = (len(rows), len(rows.columns) - 1)
    if scores.shape != expected:
        problem = f"expected scores of shape {expected} (rows, documents), got {scores.shape}"
        raise DataError(problem, remedy="Score exactly the rows that you train on")
    prepare(student, settings.engine)
    labels = [[*text_indices, row] for row, text_indices in enumerate(rows.dataset["label"])]
    return fit(
        student,
        rows.dataset.remove_columns("label").add_column("label", labels),
        ScoreDistillationLoss(student, torch.from_numpy(scores), kind, weight=weight, judged=rows.judged),
        settings,
        collator=TokenisedCollator(student, rows.texts, rows.columns, *prompts_of(student)),
        evaluator=evaluator,
        output_dir=output_dir,
        stage="distil scores",
    )
