"""Train one model on several objectives: every batch comes from one task and is scored by that task's loss.

The Trainer of sentence-transformers draws the batches (`FitSettings.sampling`): in proportion to the tasks' sizes, or
one task after the other. If task i fills the share p_i of the steps and its loss has the weight w_i, the mean gradient
of a step is `sum_i p_i * w_i * g_i`. Sampling and weights therefore control the same sum; sampling also sets the cost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sentence_transformers.base.sampler import DefaultBatchSampler, GroupByLabelBatchSampler
from torch import Tensor, nn
from torch.utils.data import RandomSampler

from embedlab.errors import DataError, ParameterError
from embedlab.models.prompts import prompts_of
from embedlab.training.batches import TokenisedCollator
from embedlab.training.distillation.embeddings import EmbeddingDistillationLoss
from embedlab.training.examples import number_rows
from embedlab.training.fit import FitResult, FitSettings, fit
from embedlab.training.losses import ContrastiveLoss

if TYPE_CHECKING:
    import datasets
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator

    from embedlab.data.dataset import GradedPair
    from embedlab.data.tasks import Labelled, Task

CLASS, SCORE = "class", "score"  # names of the label columns
MARGIN = 0.2  # of a triplet, in cosine distance


@dataclass(frozen=True)
class Objective:
    """One task in the form that the Trainer takes.

    Attributes:
        rows: text columns, `label` with the text numbers, and for labelled rows also `class` or `score`.
        collator: turns rows into a batch.
        loss: computes the loss of a batch.
        weight: factor on the loss.
    """

    rows: datasets.Dataset
    collator: TokenisedCollator
    loss: nn.Module
    weight: float = 1.0

    def weighted(self, weight: float) -> Objective:
        """Return a copy with another weight."""
        return replace(self, weight=weight)


class WeightedLoss(nn.Module):
    """Multiply a loss by a constant: `weight * loss(batch)`.

    Args:
        loss: any sentence-transformers loss.
        weight: the factor.
    """

    def __init__(self, loss: nn.Module, weight: float) -> None:
        super().__init__()
        self.loss: Any = loss  # its `model` and `get_config_dict` are not part of nn.Module
        self.weight = weight

    @property
    def model(self) -> SentenceTransformer:
        """The model being trained; the Trainer reads it from the loss."""
        return self.loss.model

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Return the loss of one batch, a scalar."""
        return self.weight * self.loss(sentence_features, labels)

    def get_config_dict(self) -> dict[str, Any]:
        """Return what the model card says about the loss."""
        return {"weight": self.weight, "loss": type(self.loss).__name__, **self.loss.get_config_dict()}


class LabelledCollator(TokenisedCollator):
    """A `TokenisedCollator` whose batches carry the rows' class or score in `label` instead of text numbers.

    Args:
        model: gives the tokenizer.
        texts: text number -> text.
        columns: one name per text number in a row's `label`.
        column: name of the column with the class or score.
    """

    def __init__(
        self, model: SentenceTransformer, texts: Sequence[str], columns: Sequence[str], *, column: str
    ) -> None:
        super().__init__(model, texts, columns)
        self.column = column

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the features of every text column, and `label` (rows,)."""
        return {**super().__call__(rows), "label": torch.tensor([row[self.column] for row in rows])}


class ByTask:
    """Collator of several tasks: hand a batch to the collator of the task that its rows come from."""

    valid_label_columns = (CLASS,)  # the column that `GroupByLabelBatchSampler` groups by

    def __init__(self, collators: Mapping[str, Callable[[list[dict[str, Any]]], dict[str, Any]]]) -> None:
        self.collators = dict(collators)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the batch with the name of its task; the Trainer chooses the loss by this name."""
        name = rows[0]["dataset_name"]
        return {"dataset_name": name, **self.collators[name](rows)}


def retrieval(model: SentenceTransformer, pairs: Iterable[tuple[str, ...]]) -> Objective:
    """Rank a query's document above all other documents of the batch (MultipleNegativesRankingLoss, InfoNCE).

    Queries and documents get the model's own prompts, as in evaluation.

    Args:
        model: the model to train.
        pairs: (query, positive, negative, …) texts.
    """
    rows = number_rows(pairs)
    collator = TokenisedCollator(model, rows.texts, rows.columns, *prompts_of(model))
    return Objective(rows.dataset, collator, ContrastiveLoss(model, judged=rows.judged))


def similarity(model: SentenceTransformer, pairs: Iterable[GradedPair]) -> Objective:
    """Order pairs of texts by their similarity scores (CoSENTLoss over all pairs of a batch).

    Args:
        model: the model to train.
        pairs: two texts and their similarity, any scale.
    """
    from sentence_transformers.sentence_transformer.losses import CoSENTLoss

    pairs = list(pairs)
    rows = number_rows((pair.text1, pair.text2) for pair in pairs)
    labelled = rows.dataset.add_column(SCORE, [float(pair.score) for pair in pairs])
    return Objective(labelled, LabelledCollator(model, rows.texts, rows.columns, column=SCORE), CoSENTLoss(model))


def classification(model: SentenceTransformer, examples: Iterable[Labelled]) -> Objective:
    """Bring texts of a class together and separate the classes (BatchAllTripletLoss).

    For few, large classes: every triplet of the batch that violates the margin counts (Hermans et al. 2017).

    Args:
        model: the model to train.
        examples: texts with their class.

    Raises:
        DataError: fewer than two classes have two texts.
    """
    from sentence_transformers.sentence_transformer.losses import BatchAllTripletLoss

    return _grouped(model, examples, BatchAllTripletLoss)


def clustering(model: SentenceTransformer, examples: Iterable[Labelled]) -> Objective:
    """Do the same for many small groups, with semi-hard triplets only (BatchSemiHardTripletLoss).

    Small groups have close relatives in other groups, so the hardest triplets are often label noise (FaceNet, Schroff
    et al. 2015).

    Args:
        model: the model to train.
        examples: texts with their group.

    Raises:
        DataError: fewer than two groups have two texts.
    """
    from sentence_transformers.sentence_transformer.losses import BatchSemiHardTripletLoss

    return _grouped(model, examples, BatchSemiHardTripletLoss)


def anchor(model: SentenceTransformer, texts: Sequence[str], vectors: np.ndarray) -> Objective:
    """Keep the embeddings of general texts close to those of the base model, by distillation.

    This regularises the embeddings instead of the weights (L2-SP, Li et al. 2018). A penalty on the weights holds all
    of them equally, also those that no general text depends on, and Adam rescales its gradient. The anchor needs texts
    only, no pairs.

    Args:
        model: the model to train.
        texts: N texts of a general domain.
        vectors: (N, d) the base model's embeddings of `texts`.
    """
    rows = _single_texts(texts)
    targets = torch.from_numpy(np.array(vectors, dtype=np.float32))
    return Objective(rows, TokenisedCollator(model, list(texts), ["text"]), EmbeddingDistillationLoss(model, targets))


def objective(model: SentenceTransformer, task: Task, weight: float = 1.0) -> Objective:
    """Return the objective for a task's kind over its training examples.

    Args:
        model: the model to train.
        task: its kind and training examples.
        weight: factor on the loss.
    """
    builders: dict[str, Callable[[SentenceTransformer, Any], Objective]] = {
        "retrieval": retrieval,
        "similarity": similarity,
        "classification": classification,
        "clustering": clustering,
    }
    return builders[task.kind](model, task.train).weighted(weight)


def train_multitask(
    model: SentenceTransformer,
    objectives: Mapping[str, Objective],
    settings: FitSettings,
    *,
    evaluator: BaseEvaluator | None = None,
    output_dir: str,
    stage: str = "train",
) -> FitResult:
    """Train `model` in place on several objectives and restore its best weights on dev.

    This is the SentenceTransformerTrainer with one dataset and one loss per task. An epoch is one pass over all tasks;
    with `sampling="round_robin"` it ends with the smallest task. Batches of labelled texts hold at least two texts of
    every class in them (`GroupByLabelBatchSampler`), otherwise they would form no triplet.

    Args:
        model: the model that the objectives were made for.
        objectives: task name -> objective.
        settings: how to train.
        evaluator: scores dev, larger is better; its `primary_metric` chooses the weights.
        output_dir: scratch folder of the Trainer.
        stage: name of this training in progress reports.

    Returns:
        History and best dev value of the training.

    Raises:
        ParameterError: there is no objective.
    """
    if not objectives:
        raise ParameterError("There is no objective to train on", remedy="Give at least one", field="objectives")
    return fit(
        model,
        {name: task.rows for name, task in objectives.items()},
        {name: WeightedLoss(task.loss, task.weight) for name, task in objectives.items()},
        settings,
        collator=ByTask({name: task.collator for name, task in objectives.items()}),
        batch_sampler=_batches,
        evaluator=evaluator,
        output_dir=output_dir,
        stage=stage,
    )


def _batches(dataset: datasets.Dataset, **kwargs: Any) -> DefaultBatchSampler:
    """Return the batches of one task: shuffled, and grouped by class if the rows have classes."""
    if CLASS in dataset.column_names:
        return GroupByLabelBatchSampler(dataset, **kwargs)
    return DefaultBatchSampler(RandomSampler(dataset, generator=kwargs["generator"]), **kwargs)


def _grouped(model: SentenceTransformer, examples: Iterable[Labelled], loss: Callable[..., nn.Module]) -> Objective:
    from sentence_transformers.sentence_transformer.losses import BatchHardTripletLossDistanceFunction as Distance

    usable = _without_single_texts(list(examples))
    class_number = {label: number for number, label in enumerate(sorted({example.label for example in usable}))}
    texts = [example.text for example in usable]
    rows = _single_texts(texts).add_column(CLASS, [class_number[example.label] for example in usable])
    triplets = loss(model, distance_metric=Distance.cosine_distance, margin=MARGIN)
    return Objective(rows, LabelledCollator(model, texts, ["text"], column=CLASS), triplets)


def _without_single_texts(examples: Sequence[Labelled]) -> list[Labelled]:
    """Drop the examples that are the only one of their class: they form no triplet."""
    sizes = Counter(example.label for example in examples)
    usable = [example for example in examples if sizes[example.label] > 1]
    if len({example.label for example in usable}) < 2:
        problem = f"Expected two or more classes with two texts each, got none in {len(examples)} labelled texts"
        raise DataError(problem, remedy="Give several texts of several classes", field="label")
    return usable


def _single_texts(texts: Sequence[str]) -> datasets.Dataset:
    from datasets import Dataset

    return Dataset.from_dict({"text": list(texts), "label": [[number] for number in range(len(texts))]})
