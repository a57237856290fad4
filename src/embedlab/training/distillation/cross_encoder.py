"""A cross-encoder as teacher: tuned on the domain, its scores calibrated and kept, a bi-encoder taught by them.

A cross-encoder reads query and document together and gives one score; it ranks better than two separate embeddings
can and is far too slow to search with. What it knows is passed on as scores of (query, document) pairs.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from embedlab.errors import DataError
from embedlab.io import atomic_path
from embedlab.models.fingerprint import model_fingerprint
from embedlab.models.packing import embed_columns
from embedlab.models.pair_pooling import PairProductPooling
from embedlab.params import Count, PositiveFloat, TrainingParams
from embedlab.training.callbacks import ProgressReport
from embedlab.training.examples import Row, TrainingRows
from embedlab.training.fit import FitResult, FitSettings, fit
from embedlab.training.losses import false_negative_mask, info_nce

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, CrossEncoderTrainingArguments, SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator

Pair = tuple[str, str]
ScoreLoss = Literal["margin_mse", "kl"]
Head = Literal["pooled", "product"]

START_TEMPERATURE = 0.05  # cosine / this is the logit that bi-encoders here are trained with
ONE_HOT = 100.0  # softmax of (100, 0, …, 0) is (1, 0, …, 0) in float32
WHOLE_BATCH = -1  # one forward for all pairs of a step: a fifth less time than sixteen pairs at a time
PAIRS_PER_FORWARD = 128


class RerankerParams(TrainingParams):
    """Parameters of a reranker: the model that it starts from, how it is trained, how deep it reads, how it teaches."""

    tuned_model: str = ""
    negatives: Count
    relative_margin: PositiveFloat
    epochs: PositiveFloat
    batch_size: Count
    learning_rate: PositiveFloat
    depth: Count
    score_loss: ScoreLoss

    def fit_settings(self, **changes: float) -> FitSettings:
        """How to train; `changes` are other `FitSettings`."""
        names = ("epochs", "learning_rate", "max_steps", "seed")
        return FitSettings(**{**{name: getattr(self, name) for name in names}, **changes})


def cross_encoder_from(model: SentenceTransformer, *, head: Head = "pooled", seed: int = 0) -> CrossEncoder:
    """A cross-encoder on a copy of a bi-encoder's transformer.

    Query and document share one text type embedding, as in the models this starts from: what tells them apart is the
    separator between them. So the packed forward, which knows no text types, and the stock one give equal scores.

    Args:
        model: a transformer with pooling; a packed one gives a packed cross-encoder.
        head: "pooled" puts a fresh linear layer on the model's own pooling of all tokens. "product" pools query and
            document apart (`models.segments`) and begins as their cosine / `START_TEMPERATURE`, so that what the model
            knows is not lost: the better start where pairs are few.
        seed: of a fresh layer.
    """
    from sentence_transformers import CrossEncoder

    transformer = copy.deepcopy(model[0])
    types = getattr(getattr(transformer.model, "embeddings", None), "token_type_embeddings", None)
    if types is not None:
        types.weight.data[:] = types.weight.data[:1].clone()
    dim = model.get_embedding_dimension()
    pooling = copy.deepcopy(model[1]) if head == "pooled" else PairProductPooling(model.tokenizer.sep_token_id, dim)
    return CrossEncoder(modules=[transformer, pooling, _head(dim, head, seed)], device=str(model.device))


def _head(dim: int, kind: Head, seed: int) -> nn.Module:
    from sentence_transformers.base.modules import Dense

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = Dense(dim, 1, activation_function=None, module_output_name="scores")
    if kind == "product":
        nn.init.constant_(head.linear.weight, 1 / START_TEMPERATURE)
        nn.init.zeros_(head.linear.bias)
    return head


def train_cross_encoder(
    encoder: CrossEncoder,
    rows: Sequence[Row],
    settings: FitSettings,
    *,
    output_dir: str,
    stage: str = "train cross-encoder",
) -> list[dict[str, float]]:
    """Tune `encoder` in place to score a row's positive above its negatives; returns the training log.

    The loss is the cross-entropy of choosing the positive among the row's documents (Gao, Dai & Callan, ECIR 2021),
    which is ListNet with a one-hot target.

    Args:
        encoder: from `cross_encoder_from`.
        rows: (query, positive, negative, …), equally wide.
        settings: how to train; there is no dev evaluation.
        output_dir: scratch folder of the Trainer.
        stage: what progress reports call this.
    """
    from datasets import Dataset
    from sentence_transformers import CrossEncoderTrainer
    from sentence_transformers.cross_encoder.losses import ListNetLoss
    from transformers import PrinterCallback

    target = [ONE_HOT] + [0.0] * (len(rows[0]) - 2)
    log = ProgressReport(stage, "")
    trainer = CrossEncoderTrainer(
        model=encoder,
        args=_arguments(settings, len(rows), output_dir),
        train_dataset=Dataset.from_dict(
            {"query": [row[0] for row in rows], "documents": [row[1:] for row in rows], "label": [target] * len(rows)}
        ),
        loss=ListNetLoss(encoder, mini_batch_size=WHOLE_BATCH),
        callbacks=[log],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return log.rows


def _arguments(settings: FitSettings, rows: int, output_dir: str) -> CrossEncoderTrainingArguments:
    """The same settings as `fit` gives a bi-encoder, without dev evaluations."""
    from sentence_transformers import CrossEncoderTrainingArguments

    from embedlab.training.fit import training_arguments

    given = training_arguments(settings, rows, False, output_dir)
    names = ("max_steps", "per_device_train_batch_size", "learning_rate", "warmup_steps", "weight_decay")
    more = ("logging_steps", "save_strategy", "seed", "disable_tqdm", "report_to", "dataloader_pin_memory")
    return CrossEncoderTrainingArguments(output_dir=output_dir, **{name: getattr(given, name) for name in names + more})


def score_pairs(encoder: CrossEncoder, pairs: Sequence[Pair], folder: Path | None = None) -> np.ndarray:
    """Raw logits of (query, document) pairs, float32 (len(pairs),); no sigmoid, which would flatten large margins.

    Args:
        encoder: the cross-encoder.
        pairs: what to score.
        folder: keeps the scores, under a name made from the encoder's weights and the pairs, so that they are
            computed once.
    """
    path = folder / f"{_identity(encoder, pairs)}.npy" if folder else None
    if path and path.exists():
        return np.load(path)
    scores = encoder.predict(
        list(pairs), batch_size=PAIRS_PER_FORWARD, activation_fn=nn.Identity(), show_progress_bar=False
    )
    scores = np.asarray(scores, dtype=np.float32).reshape(len(pairs))
    if path:
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.save(file, scores)
    return scores


def _identity(encoder: CrossEncoder, pairs: Sequence[Pair]) -> str:
    from sentence_transformers import SentenceTransformer

    digest = hashlib.sha256(model_fingerprint(SentenceTransformer(modules=list(encoder), device="cpu")).encode())
    for pair in pairs:
        digest.update("\0".join(pair).encode() + b"\0\0")
    return digest.hexdigest()[:16]


def score_rows(encoder: CrossEncoder, rows: Sequence[Row], folder: Path | None = None) -> np.ndarray:
    """Raw logits of every row's documents, float32 (rows, documents), the positive first; see `score_pairs`."""
    pairs = [(row[0], document) for row in rows for document in row[1:]]
    return score_pairs(encoder, pairs, folder).reshape(len(rows), -1)


def cosine_rows(model: SentenceTransformer, rows: Sequence[Row]) -> np.ndarray:
    """A bi-encoder's cosines of every row's documents, float32 (rows, documents), the positive first."""
    from embedlab.models.encode import encode

    place = {text: number for number, text in enumerate(dict.fromkeys(text for row in rows for text in row))}
    vectors, numbers = encode(model, list(place)), np.array([[place[text] for text in row] for row in rows])
    return np.einsum("rd,rnd->rn", vectors[numbers[:, 0]], vectors[numbers[:, 1:]])


def blend(logits: np.ndarray, cosines: np.ndarray, share: float) -> np.ndarray:
    """Two models' scores of the same pairs as one: `share` of the bi-encoder's logit, the rest the cross-encoder's.

    Args:
        logits: of the cross-encoder, any shape; NaN stays NaN.
        cosines: of the bi-encoder, the same shape; divided by `START_TEMPERATURE` they are logits too.
        share: from 0 to 1.
    """
    return (1 - share) * logits + share * cosines / START_TEMPERATURE


def calibration_temperature(scores: np.ndarray) -> float:
    """The T that makes `softmax(scores / T)` the best probabilities for the first column, on held-out rows.

    Minimises the negative log-likelihood; it changes no ranking (temperature scaling, Guo et al., ICML 2017).

    Args:
        scores: (rows, documents) logits, the right document first.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    if scores.ndim != 2 or scores.shape[1] < 2:
        raise DataError(f"scores of shape {scores.shape} cannot be calibrated", remedy="Give two documents a row")
    found = minimize_scalar(
        lambda log_t: -log_softmax(scores / np.exp(log_t), axis=1)[:, 0].mean(), bounds=(-5, 5), method="bounded"
    )
    return float(np.exp(found.x))


class ScoreDistillationLoss(nn.Module):
    """InfoNCE plus a term that pulls the student's scores of a row's documents towards the teacher's.

    The student's score is cos / temperature, the logit that InfoNCE trains; the teacher's are calibrated logits, so
    both are on one scale. The term is sentence-transformers' own: MarginMSE, the squared difference of (positive -
    negative) margins (Hofstätter et al. 2020), or KL(teacher || student) over the row's documents.

    Args:
        model: the student.
        scores: (rows, 1 + n) teacher scores of each row's documents, the positive first.
        kind: which term.
        weight: of that term; 0 is InfoNCE alone.
        temperature: of the student's scores.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        scores: Tensor,
        kind: ScoreLoss = "kl",
        *,
        weight: float = 1.0,
        temperature: float = 0.05,
    ) -> None:
        super().__init__()
        self.model, self.weight, self.temperature, self.kind = model, weight, temperature, kind
        self._scores, self._term = scores, self._library_loss()

    def _library_loss(self) -> nn.Module:
        from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss, MarginMSELoss

        kinds = {"margin_mse": MarginMSELoss, "kl": DistillKLDivLoss}
        return kinds[self.kind](self.model, similarity_fct=self._logits)

    def _logits(self, queries: Tensor, documents: Tensor) -> Tensor:
        return nn.functional.cosine_similarity(queries, documents) / self.temperature

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor) -> Tensor:
        """Loss of one batch; `labels` (B, columns + 1) hold the text numbers, then the number of the row."""
        embeddings = embed_columns(self.model, list(sentence_features))
        mask = false_negative_mask(labels[:, :-1])
        loss = info_nce(embeddings[0], torch.cat(embeddings[1:]), self.temperature, mask)
        if not self.weight:
            return loss
        targets = self._scores[labels[:, -1].cpu()].to(loss.device)
        return loss + self.weight * self._term.compute_loss_from_embeddings(embeddings, targets)

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of the loss."""
        return {"kind": self.kind, "weight": self.weight, "temperature": self.temperature}


def distil_scores(
    student: SentenceTransformer,
    rows: TrainingRows,
    scores: np.ndarray,
    settings: FitSettings,
    *,
    kind: ScoreLoss = "kl",
    weight: float = 1.0,
    temperature: float = 0.05,
    evaluator: BaseEvaluator | None = None,
    output_dir: str,
    stage: str = "distil scores",
) -> FitResult:
    """Train a bi-encoder in place on rows scored by a cross-encoder, and leave it with its best weights on dev.

    Args:
        student: a sentence-transformers model on a transformer.
        rows: from `training.examples.number_rows`.
        scores: (rows, 1 + n) calibrated teacher scores of each row's documents, the positive first.
        settings: how to train.
        kind, weight, temperature: see `ScoreDistillationLoss`; weight 0 is the control without the teacher.
        evaluator: scores dev, larger is better; its `primary_metric` chooses the weights.
        output_dir: scratch folder of the Trainer.
        stage: what progress reports call this.

    Raises:
        DataError: there is not one score per document.
    """
    from embedlab.training.batches import TokenisedCollator

    if scores.shape != (wanted := (len(rows), len(rows.columns) - 1)):
        raise DataError(f"scores of shape {scores.shape} for rows of {wanted}", remedy="Score these very rows")
    labels = [[*numbers, row] for row, numbers in enumerate(rows.dataset["label"])]
    loss = ScoreDistillationLoss(student, torch.from_numpy(scores), kind, weight=weight, temperature=temperature)
    return fit(
        student,
        rows.dataset.remove_columns("label").add_column("label", labels),
        loss,
        settings,
        collator=TokenisedCollator(student, rows.texts, rows.columns),
        evaluator=evaluator,
        output_dir=output_dir,
        stage=stage,
    )
