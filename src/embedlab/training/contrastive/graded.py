"""Training on graded pairs: two texts and how alike they are, from 0 to 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from embedlab.data.dataset import Dataset, GradedPair
from embedlab.models.prompts import prompts_of
from embedlab.training.batches import TokenisedCollator
from embedlab.training.examples import Row, number_rows
from embedlab.training.fit import FitResult, FitSettings, fit
from embedlab.training.losses import EmbeddingLoss

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator

GradedLossName = Literal["cosine", "cosent", "angle"]


class GradedLoss(EmbeddingLoss):
    """A loss of sentence-transformers for graded pairs, at every Matryoshka dimension.

    - `cosine`: `(cos(a, b) - grade)^2`, which asks for exact cosines.
    - `cosent`: `log(1 + sum exp((s_lower - s_higher) / t))` over all two pairs of the batch of which one is graded
      higher, s being the cosine: it asks for the order alone (Huang et al. 2024).
    - `angle`: the same with a similarity that does not flatten out near 1, where the cosine has no gradient (Li and
      Li, ACL 2024).

    The columns are the two texts.

    Args:
        model: the model being trained.
        grades: (rows,), by the row number in the labels.
        kind: which.
        temperature: t, of the last two.
        dims: dimensions to train; None trains the full embedding only.
    """

    def __init__(
        self,
        model: nn.Module,
        grades: Tensor,
        kind: GradedLossName,
        temperature: float = 0.05,
        dims: Sequence[int] | None = None,
    ) -> None:
        from sentence_transformers.sentence_transformer import losses

        super().__init__(model, dims)
        self.kind, self._grades = kind, grades
        if kind == "cosine":
            self._loss = losses.CosineSimilarityLoss(model)
        else:
            self._loss = {"cosent": losses.CoSENTLoss, "angle": losses.AnglELoss}[kind](model, scale=1 / temperature)

    def targets(self, labels: Tensor) -> Tensor:
        """Grades (B,) of labels (B, 3): the numbers of both texts, then that of the row."""
        return self._grades[labels[:, -1].cpu()].to(labels.device)

    def at_width(self, embeddings: Sequence[Tensor], targets: Tensor | None) -> Tensor:
        """The library's loss of both columns and their grades."""
        return self._loss.compute_loss_from_embeddings(list(embeddings), targets)

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of the loss."""
        return {"kind": self.kind, **super().get_config_dict()}


def graded_rows(
    dataset: Dataset, rows: Sequence[Row], similarity: Callable[[str, str], float] | None = None
) -> list[GradedPair]:
    """Graded pairs of everything a dataset knows: its own, and (query, document) of contrastive rows.

    Args:
        dataset: its `graded_pairs` come first.
        rows: (query, positive, negative, …) texts. The positive's grade is 1, a negative's its similarity to the
            positive.
        similarity: of two document texts, from 0 to 1; 0 for every negative when None.
    """
    pairs = list(dataset.graded_pairs)
    for query, positive, *negatives in rows:
        pairs.append(GradedPair(query, positive, 1.0))
        pairs += [GradedPair(query, n, similarity(positive, n) if similarity else 0.0) for n in negatives]
    return pairs


def by_text(corpus: Mapping[str, str], similarity: Callable[[str, str], float]) -> Callable[[str, str], float]:
    """A similarity of document ids, such as `data.icd10cm.code_similarity`, as one of their texts.

    A text that several documents share stands for the first of them.
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
    temperature: float = 0.05,
    dims: Sequence[int] | None = None,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    evaluator: BaseEvaluator | None = None,
    output_dir: str,
    stage: str = "train",
) -> FitResult:
    """Fine-tune `model` in place on graded pairs and leave it with its best weights on dev.

    Args:
        model: the model to train.
        pairs: two texts and a grade each.
        settings: how to train.
        loss, temperature: see `GradedLoss`.
        dims: Matryoshka dimensions; the full one only when not given.
        query_prompt, document_prompt: put before the first and the second text; the model's own when None.
        evaluator: scores dev, larger is better; its `primary_metric` chooses the weights.
        output_dir: scratch folder of the Trainer.
        stage: what progress reports call this.
    """
    rows = number_rows((pair.text1, pair.text2) for pair in pairs)
    labels = [[*numbers, row] for row, numbers in enumerate(rows.dataset["label"])]
    grades = torch.tensor([pair.score for pair in pairs], dtype=torch.float32)
    return fit(
        model,
        rows.dataset.remove_columns("label").add_column("label", labels),
        GradedLoss(model, grades, loss, temperature, dims),
        settings,
        collator=TokenisedCollator(model, rows.texts, rows.columns, *prompts_of(model, query_prompt, document_prompt)),
        evaluator=evaluator,
        output_dir=output_dir,
        stage=stage,
    )
