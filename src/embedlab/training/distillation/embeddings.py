"""Teach a student the teacher's embedding space: the same vectors, and the same similarities between texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedlab.errors import ParameterError
from embedlab.params import Count, CountOrNone, PositiveFloat, TrainingParams
from embedlab.training.fit import FitResult, FitSettings, fit

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator

STATIC_LEARNING_RATE = 3e-3  # a table of rows takes far larger steps than layers do
STATIC_BATCHES = (512, 256)  # distilling, contrasting
SHORTER = (256, 128, 64, 32, 16)  # dimensions that a table of words is also scored at


class DistillationParams(TrainingParams):
    """Parameters of a distillation: a teacher, the students to train, and how long."""

    teacher: str = ""
    students: list[Literal["layers", "narrow", "static", "both", "labelled", "scored"]]
    student_layers: Count
    student_dim: Count
    epochs: PositiveFloat
    learning_rate: PositiveFloat
    static_epochs: PositiveFloat
    random_negatives: CountOrNone
    score_loss: Literal["margin_mse", "kl"]

    def fit_settings(self, **changes: float) -> FitSettings:
        """How to train a transformer student; `changes` are other `FitSettings`."""
        common = {"epochs": self.epochs, "learning_rate": self.learning_rate}
        return FitSettings(**{**common, "max_steps": self.max_steps, "seed": self.seed, **changes})

    def static_settings(self) -> tuple[FitSettings, FitSettings]:
        """How to distil a static student, and how to contrast it afterwards."""
        common = {"learning_rate": STATIC_LEARNING_RATE, "weight_decay": 0.0}
        return tuple(
            self.fit_settings(epochs=epochs, batch_size=batch_size, **common)
            for epochs, batch_size in zip((5.0, self.static_epochs), STATIC_BATCHES, strict=True)
        )


def vector_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared distance of unit vectors, (B, d) each: `2 (1 - cos)`, so the MSE and the cosine loss in one."""
    return (F.normalize(student, dim=-1) - F.normalize(teacher, dim=-1)).square().sum(-1).mean()


def similarity_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """How differently the two see who is alike in a batch: mean KL(teacher || student) over its texts.

    Each text's distribution is the softmax of its cosines to all other texts of the batch, divided by the temperature
    (SEED, Fang et al., ICLR 2021). The two may differ in dimension.

    Args:
        student: (B, d).
        teacher: (B, e).
        temperature: smaller looks at the nearest texts only.
    """
    log_p, log_q = (_log_similarities(vectors, temperature) for vectors in (teacher, student))
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def _log_similarities(vectors: Tensor, temperature: float) -> Tensor:
    """Row-wise log-softmax of the cosines (B, B - 1), a text's cosine to itself left out."""
    unit = F.normalize(vectors, dim=-1)
    others = ~torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    return (unit @ unit.T)[others].view(len(unit), -1).div(temperature).log_softmax(-1)


class EmbeddingDistillationLoss(nn.Module):
    """`vector_loss` + weight * `similarity_loss` against teacher vectors computed once.

    Args:
        model: the student.
        targets: (N, d) teacher vectors in the student's dimension, by text number.
        teacher: (N, e) teacher vectors as they are; `targets` when not given.
        weight: of the similarity loss.
        temperature: of the similarity loss.
    """

    def __init__(
        self,
        model: nn.Module,
        targets: Tensor,
        teacher: Tensor | None = None,
        *,
        weight: float = 1.0,
        temperature: float = 0.05,
    ) -> None:
        super().__init__()
        self.model, self.weight, self.temperature = model, weight, temperature
        self._targets, self._teacher = targets, targets if teacher is None else teacher

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor) -> Tensor:
        """Loss of one batch of one column; `labels` (B, 1) are the numbers of its texts."""
        (column,) = sentence_features
        student, numbers = self.model(column)["sentence_embedding"], labels[:, 0].cpu()
        targets, teacher = (vectors[numbers].to(student.device) for vectors in (self._targets, self._teacher))
        alike = similarity_loss(student, teacher, self.temperature) if len(numbers) > 2 else student.new_zeros(())
        return vector_loss(student, targets) + self.weight * alike

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of the loss."""
        return {"weight": self.weight, "temperature": self.temperature}


def distil(
    student: SentenceTransformer,
    texts: Sequence[str],
    teacher: np.ndarray,
    settings: FitSettings,
    *,
    collator: Callable[[list[dict[str, Any]]], dict[str, Any]],
    projection: Tensor | None = None,
    weight: float = 1.0,
    temperature: float = 0.05,
    evaluator: BaseEvaluator | None = None,
    output_dir: str,
    stage: str = "distil",
) -> FitResult:
    """Train `student` in place to place `texts` where the teacher does; no labels are needed.

    Args:
        student: any sentence-transformers model.
        texts: what to learn on: the corpus and the training queries, or any text of the domain.
        teacher: (N, e) the teacher's vectors of `texts`.
        settings: how to train.
        collator: `TokenisedCollator` or `BagCollator` over `texts` with the one column "text".
        projection: (e, d) from the teacher's space into the student's, where the student is narrower.
        weight, temperature: of `similarity_loss`.
        evaluator: scores dev, larger is better; its `primary_metric` chooses the weights.
        output_dir: scratch folder of the Trainer.
        stage: what progress reports call this.

    Raises:
        ParameterError: the teacher's vectors, projected, do not have the student's dimension.
    """
    from datasets import Dataset

    vectors = torch.from_numpy(np.array(teacher, dtype=np.float32))
    targets = vectors if projection is None else vectors @ projection
    if targets.shape[1] != (wanted := student.get_embedding_dimension()):
        problem = f"the student has {wanted} dimensions, its targets {targets.shape[1]}"
        raise ParameterError(problem, remedy="Pass the projection that the student was built with")
    rows = Dataset.from_dict({"text": list(texts), "label": [[number] for number in range(len(texts))]})
    loss = EmbeddingDistillationLoss(student, targets, vectors, weight=weight, temperature=temperature)
    return fit(
        student, rows, loss, settings, collator=collator, evaluator=evaluator, output_dir=output_dir, stage=stage
    )
