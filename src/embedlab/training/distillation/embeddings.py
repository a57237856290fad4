"""Distil embeddings: train a student to place texts where its teacher places them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedlab.errors import ModelError, ParameterError
from embedlab.models.adapter_folder import is_adapter_folder
from embedlab.models.api import is_api_name
from embedlab.models.prompts import prompts_of
from embedlab.models.tokens import prompt_length, to_features, token_ids
from embedlab.params import TEMPERATURE, Count, CountOrNone, PositiveFloat, TrainingParams
from embedlab.training.fit import FitResult, FitSettings, fit
from embedlab.training.truncated import Cut

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

STATIC_LEARNING_RATE = 3e-3  # token embeddings need far larger steps than transformer layers
STATIC_DISTILLATION_BATCH, STATIC_CONTRASTIVE_BATCH = 512, 256
STATIC_DISTILLATION_EPOCHS = 5.0


class DistillationParams(TrainingParams):
    """Parameters of notebook 06_distillation."""

    teacher: str = ""
    students: list[Literal["layers", "narrow", "static", "ngrams", "both", "labelled", "scored"]]
    student_layers: Count
    student_dim: Count
    epochs: PositiveFloat
    learning_rate: PositiveFloat
    static_epochs: PositiveFloat
    random_negatives: CountOrNone
    score_loss: Literal["margin_mse", "kl"]

    @property
    def teacher_system(self) -> str:
        """System name of the teacher in the record: the base model, one behind an API, or a fine-tuned one."""
        if self.teacher == self.model_name:
            return "base"
        return "closed" if is_api_name(self.teacher) or is_adapter_folder(self.teacher) else "contrastive"

    def fit_settings(self, **changes: Any) -> FitSettings:
        """Return the settings of a transformer student; `changes` override single fields of `FitSettings`."""
        common: dict[str, Any] = {"epochs": self.epochs, "learning_rate": self.learning_rate, "engine": self.engine}
        return FitSettings(**{**common, "max_steps": self.max_steps, "seed": self.seed, **changes})

    def student_settings(self) -> FitSettings:
        """Return the settings of the training on labels or scores that follows the distillation."""
        return self.fit_settings(learning_rate=self.learning_rate / 2, epochs=self.epochs / 2, evaluations=2)

    def static_settings(self) -> tuple[FitSettings, FitSettings]:
        """Return the settings of a static student: of its distillation, and of the contrastive training after it."""
        return static_settings(self, self.static_epochs)


def static_settings(params: TrainingParams, epochs: float) -> tuple[FitSettings, FitSettings]:
    """Return the settings of a static model's distillation, and of its contrastive training on the pairs.

    Args:
        params: its seed, maximum number of steps and engine are used.
        epochs: passes over the pairs.
    """
    common: dict[str, Any] = {"learning_rate": STATIC_LEARNING_RATE, "weight_decay": 0.0, "engine": params.engine}
    common |= {"max_steps": params.max_steps, "seed": params.seed}
    return (
        FitSettings(epochs=STATIC_DISTILLATION_EPOCHS, batch_size=STATIC_DISTILLATION_BATCH, **common),
        FitSettings(epochs=epochs, batch_size=STATIC_CONTRASTIVE_BATCH, **common),
    )


def vector_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared distance of unit vectors: `2 (1 - cos)`, which is both an MSE and a cosine loss.

    Args:
        student, teacher: (B, d) each.
    """
    return (F.normalize(student, dim=-1) - F.normalize(teacher, dim=-1)).square().sum(-1).mean()


def similarity_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean KL(teacher || student) of the similarities within a batch.

    Each text has a distribution over the other texts: the softmax of its cosines divided by the temperature (SEED,
    Fang et al., ICLR 2021). Student and teacher may differ in dimension.

    Args:
        student: (B, d).
        teacher: (B, e).
        temperature: a smaller value concentrates on the nearest texts.
    """
    log_p, log_q = (_log_similarities(vectors, temperature) for vectors in (teacher, student))
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def _log_similarities(vectors: Tensor, temperature: float) -> Tensor:
    """Return the row-wise log-softmax of the cosines (B, B - 1), without the cosine of a text to itself."""
    unit = F.normalize(vectors, dim=-1)
    off_diagonal = ~torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    return (unit @ unit.T)[off_diagonal].view(len(unit), -1).div(temperature).log_softmax(-1)


class EmbeddingDistillationLoss(nn.Module):
    """`vector_loss` + `similarity_loss` against teacher vectors that are computed once.

    Args:
        model: the student.
        targets: (N, d) teacher vectors in the student's dimensions, by text index.
        teacher: (N, e) teacher vectors in the teacher's own dimensions; `targets` when not given.
    """

    def __init__(self, model: nn.Module, targets: Tensor, teacher: Tensor | None = None) -> None:
        super().__init__()
        self.model, self._targets, self._teacher = model, targets, targets if teacher is None else teacher

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor) -> Tensor:
        """Compute the loss of one batch.

        Args:
            sentence_features: features of the one column of texts.
            labels: (B, 1), the index of each text.
        """
        (column,) = sentence_features
        student, indices = self.model(column)["sentence_embedding"], labels[:, 0].cpu()
        targets, teacher = (vectors[indices].to(student.device) for vectors in (self._targets, self._teacher))
        loss = vector_loss(student, targets)
        if len(indices) > 2:  # with two texts every distribution is (1,)
            loss = loss + similarity_loss(student, teacher, TEMPERATURE)
        return loss

    def get_config_dict(self) -> dict[str, Any]:
        """Return what the model card shows."""
        return {"temperature": TEMPERATURE}


class PromptedTexts:
    """Trainer collator of one column `text`, in which every text has the prompt of its role.

    Args:
        model: its tokenizer and its prompts are used.
        texts: N texts; the indices in `label` point into this list.
        queries: those of them that are queries; all others are documents.

    Raises:
        ModelError: pooling leaves out the prompt, whose length differs between queries and documents.
    """

    valid_label_columns = ("label",)

    def __init__(self, model: SentenceTransformer, texts: Sequence[str], queries: Collection[str] = ()) -> None:
        prompts, queries = prompts_of(model), frozenset(queries)
        roles = [text in queries for text in texts]
        lengths = {prompt_length(model, prompts.query if is_query else prompts.document) for is_query in {*roles}}
        if len(lengths) > 1 and not all(getattr(module, "include_prompt", True) for module in model):
            problem = "pooling leaves out the prompt, and the prompts of queries and documents differ in length"
            raise ModelError(problem, remedy="Distil the documents alone", field="model_name")
        self.model = model
        self._prompt = prompts.query if all(roles) else prompts.document
        prefixes = [(prompts.query if is_query else prompts.document) or "" for is_query in roles]
        self._token_ids = token_ids(model, [prefix + text for prefix, text in zip(prefixes, texts, strict=True)])
        self.cut = Cut(len(texts), self._token_ids.truncated)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the features of the texts, prefixed with `text_`, and `label` (B, 1) of text indices."""
        labels = [row["label"] for row in rows]
        features = to_features(self.model, [self._token_ids[index] for (index,) in labels], self._prompt)
        return {"label": torch.tensor(labels)} | {f"text_{key}": value for key, value in features.items()}


def distil(
    student: SentenceTransformer,
    texts: Sequence[str],
    teacher_vectors: np.ndarray,
    settings: FitSettings,
    *,
    collator: Callable[[list[dict[str, Any]]], dict[str, Any]],
    projection: Tensor | None = None,
    output_dir: str,
) -> FitResult:
    """Train `student` in place to give `texts` the vectors of its teacher. No labels are needed.

    Args:
        student: any sentence-transformers model with d dimensions.
        texts: N texts to learn on: corpus and training queries, or any text of the domain.
        teacher_vectors: (N, e) vectors of `texts`.
        settings: how to train.
        collator: `PromptedTexts` or `BagCollator` over `texts` with the one column "text".
        projection: (e, d) from the teacher's space into the student's, if the student has fewer dimensions.
        output_dir: scratch folder of the Trainer.

    Raises:
        ParameterError: the projected teacher vectors do not have the student's dimensions.
    """
    from datasets import Dataset

    vectors = torch.from_numpy(np.array(teacher_vectors, dtype=np.float32))
    targets = vectors if projection is None else vectors @ projection
    if targets.shape[1] != student.get_embedding_dimension():
        dim = student.get_embedding_dimension()
        problem = f"the student has {dim} dimensions, the teacher vectors have {targets.shape[1]}"
        remedy = "A teacher needs as many dimensions as its student, or more and a projection to the student's"
        raise ParameterError(problem, remedy=remedy, field="teacher")
    rows = Dataset.from_dict({"text": list(texts), "label": [[index] for index in range(len(texts))]})
    loss = EmbeddingDistillationLoss(student, targets, vectors)
    return fit(student, rows, loss, settings, collator=collator, output_dir=output_dir, stage="distil")
