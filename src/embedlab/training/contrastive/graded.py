"""Training on graded pairs: two texts and a similarity grade from 0 to 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from embedlab.data.dataset import Dataset, GradedPair
from embedlab.models.prompts import prompts_of
from embedlab.params import TEMPERATURE
from embedlab.training.batches import TokenisedCollator
from embedlab.training.engine import prepare
from embedlab.training.examples import Row, number_rows
from embedlab.training.fit import FitResult, FitSettings, fit
from embedlab.training.losses import EmbeddingLoss

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator
    from typing_extensions import TypeIs

GradedLossName = Literal["cosine", "cosent", "angle"]


def is_graded(loss: str) -> TypeIs[GradedLossName]:
    """Return whether a loss trains on graded pairs."""
    return loss in get_args(GradedLossName)


class GradedLoss(EmbeddingLoss):
    """A loss of sentence-transformers for graded pairs, averaged over Matryoshka dimensions.

    - `cosine` (CosineSimilarityLoss): `(cos(a, b) - grade)^2`. It fits exact cosines.
    - `cosent` (CoSENTLoss): `log(1 + sum exp((s_lower - s_higher) / t))` over all pairs of rows with different grades,
      where s is the cosine. It fits the order only (Huang et al. 2024).
    - `angle` (AnglELoss): like `cosent`, with a similarity that keeps a gradient near 1, where the cosine is flat (Li
      and Li, ACL 2024).

    The columns are the two texts.

    Args:
        model: the model being trained.
        grades: float (rows,), grades by row index.
        kind: one of the names above.
        temperature: t of `cosent` and `angle`.
        dims: dimensions to train; None trains the full embedding only.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        grades: Tensor,
        kind: GradedLossName,
        temperature: float = TEMPERATURE,
        dims: Sequence[int] | None = None,
    ) -> None:
        from sentence_transformers.sentence_transformer import losses

        super().__init__(model, dims)
        self.kind, self._grades = kind, grades
        if kind == "cosine":
            self._loss = losses.CosineSimilarityLoss(model)
        else:
            self._loss = {"cosent": losses.CoSENTLoss, "angle": losses.AnglELoss}[kind](model, scale=1 / temperature)

    def targets(self, labels: Tensor | None) -> Tensor:
        """Look up the grades (B,) of labels (B, 3): the indices of both texts, then the row index."""
        assert labels is not None  # they hold the row index
        return self._grades[labels[:, -1].cpu()].to(labels.device)

    def at_width(self, embeddings: Sequence[Tensor], targets: Tensor | None) -> Tensor:
        """Compute the sentence-transformers loss at one dimension; see `EmbeddingLoss.at_width`."""
        return self._loss.compute_loss_from_embeddings(list(embeddings), targets)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings that the model card shows."""
        return {"kind": self.kind, **super().get_config_dict()}


def graded_rows(
    dataset: Dataset, rows: Sequence[Row], similarity: Callable[[str, str], float] | None = None
) -> list[GradedPair]:
    """Collect graded pairs: those of the dataset, and (query, document) pairs from contrastive rows.

    Args:
        dataset: its `graded_pairs` come first.
        rows: (query, positive, negative, …) texts. A positive has grade 1; the grade of a negative is its similarity
            to the positive.
        similarity: similarity of two document texts, from 0 to 1; None gives every negative grade 0.
    """
    pairs = list(dataset.graded_pairs)
    for query, positive, *negatives in rows:
        pairs.append(GradedPair(query, positive, 1.0))
        pairs += [GradedPair(query, n, similarity(positive, n) if similarity else 0.0) for n in negatives]
    return pairs


def by_text(corpus: Mapping[str, str], similarity: Callable[[str, str], float]) -> Callable[[str, str], float]:
    """Turn a similarity of document ids, such as `data.icd10cm.code_similarity`, into one of document texts.

    If several documents share a text, the first one counts.
    """
    ids: dict[str, str] = {}
    for document, text in corpus.items():
        ids.setdefault(text, document)
    return lambda a, b: similarity(ids[a], ids[b])


def train_graded(
    model: SentenceTransformer,
    pairs: Sequence[GradedPair],
    settings: FitSettings,
    *,
    loss: GradedLossName = "cosent",
    temperature: float = TEMPERATURE,
    dims: Sequence[int] | None = None,
    evaluator: BaseEvaluator | None = None,
    output_dir: str,
) -> FitResult:
    """Fine-tune `model` in place on graded pairs and restore its best weights on dev.

    The model's own prompts are prepended: `query` to the first text, `document` to the second.

    Args:
        model: the model to train.
        pairs: two texts and a grade each.
        settings: training settings.
        loss: see `GradedLoss`.
        temperature: see `GradedLoss`.
        dims: Matryoshka dimensions; None trains the full embedding only.
        evaluator: computes the dev value (larger is better); its `primary_metric` chooses the weights.
        output_dir: scratch folder of the Trainer.
    """
    prepare(model, settings.engine)
    rows = number_rows((pair.text1, pair.text2) for pair in pairs)
    labels = [[*numbers, row] for row, numbers in enumerate(rows.dataset["label"])]
    grades = torch.tensor([pair.score for pair in pairs], dtype=torch.float32)
    return fit(
        model,
        rows.dataset.remove_columns("label").add_column("label", labels),
        GradedLoss(model, grades, loss, temperature, dims),
        settings,
        collator=TokenisedCollator(model, rows.texts, rows.columns, *prompts_of(model)),
        evaluator=evaluator,
        output_dir=output_dir,
    )
