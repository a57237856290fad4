"""One model, several objectives: every batch comes from one task and is scored by that task's loss.

The Trainer of sentence-transformers draws the batches (`FitSettings.sampling`: in proportion to the tasks' batches, or
in turns). Where task i fills the share p_i of the steps and its loss has the weight w_i, the mean gradient of a step is
`sum_i p_i w_i g_i`: sampling and weights are two handles on the same sum, and sampling also decides what it costs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from sentence_transformers.base.sampler import DefaultBatchSampler, GroupByLabelBatchSampler
from torch import Tensor, nn
from torch.utils.data import RandomSampler

from embedlab.errors import DataError, ParameterError
from embedlab.models.prompts import prompts_of
from embedlab.params import PositiveFloat, Share, TrainingParams
from embedlab.training.batches import TokenisedCollator
from embedlab.training.distillation.embeddings import STATIC_BATCHES, STATIC_LEARNING_RATE, EmbeddingDistillationLoss
from embedlab.training.examples import number_rows
from embedlab.training.fit import FitResult, FitSettings, fit
from embedlab.training.losses import ContrastiveLoss

if TYPE_CHECKING:
    import datasets
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator

    from embedlab.data.dataset import GradedPair
    from embedlab.data.tasks import Labelled, Task

CLASS, SCORE = "class", "score"  # columns of what a row is labelled with
MARGIN = 0.2  # of a triplet, in cosine distance
KINDS = ("retrieval", "similarity", "classification", "clustering")
TABLE_EPOCHS = 8.0


class MultitaskParams(TrainingParams):
    """Parameters of the notebook on several objectives and on what a model forgets."""

    tasks_dir: str = ""
    tuned_model: str = ""
    epochs: PositiveFloat
    learning_rate: PositiveFloat
    task_weights: Annotated[list[PositiveFloat], Field(min_length=4, max_length=4)]
    sampling: Literal["proportional", "round_robin"]
    layer_decay: Share
    replay_share: Annotated[float, Field(gt=0, lt=1)]
    forgetting_budget: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    @property
    def weights(self) -> dict[str, float]:
        """Kind of task -> weight of its loss."""
        return dict(zip(KINDS, self.task_weights, strict=True))

    def fit_settings(self, **changes: float) -> FitSettings:
        """How to train, with a dev evaluation an epoch; `changes` are other `FitSettings`."""
        common = {"epochs": self.epochs, "max_steps": self.max_steps, "learning_rate": self.learning_rate}
        run = {"sampling": self.sampling, "seed": self.seed, "evaluations": max(1, round(self.epochs))}
        return FitSettings(**{**common, **run, **changes})

    def table_settings(self) -> FitSettings:
        """How to train the table of words that stands beside a model."""
        settings = {"batch_size": STATIC_BATCHES[1], "learning_rate": STATIC_LEARNING_RATE, "weight_decay": 0.0}
        return self.fit_settings(epochs=TABLE_EPOCHS, evaluations=4, sampling="proportional", **settings)


@dataclass(frozen=True)
class Objective:
    """One task as the Trainer takes it.

    Attributes:
        rows: text columns, `label` with the numbers of their texts, and, where they are labelled, `class` or `score`.
        collator: rows to a batch.
        loss: of a batch.
        weight: factor on the loss.
    """

    rows: datasets.Dataset
    collator: TokenisedCollator
    loss: nn.Module
    weight: float = 1.0

    def weighted(self, weight: float) -> Objective:
        """The same with another weight."""
        return replace(self, weight=weight)


class WeightedLoss(nn.Module):
    """`weight * loss(batch)`.

    Args:
        loss: any sentence-transformers loss.
        weight: its factor.
    """

    def __init__(self, loss: nn.Module, weight: float) -> None:
        super().__init__()
        self.loss, self.weight = loss, weight

    @property
    def model(self) -> nn.Module:
        """The model being trained; the Trainer looks here for what it has to wrap."""
        return self.loss.model

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Scalar loss of one batch."""
        return self.weight * self.loss(sentence_features, labels)

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of the loss."""
        return {"weight": self.weight, "loss": type(self.loss).__name__, **self.loss.get_config_dict()}


class LabelledCollator(TokenisedCollator):
    """`TokenisedCollator` whose batches carry what the rows are labelled with in place of their texts' numbers.

    Args:
        column: holds a number for every row.
    """

    def __init__(
        self, model: SentenceTransformer, texts: Sequence[str], columns: Sequence[str], *, column: str
    ) -> None:
        super().__init__(model, texts, columns)
        self.column = column

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Features of every text column, and `label` (rows,)."""
        return {**super().__call__(rows), "label": torch.tensor([row[self.column] for row in rows])}


class ByTask:
    """Collator of several tasks: a batch goes to the collator of the task its rows come from."""

    valid_label_columns = (CLASS,)  # what `GroupByLabelBatchSampler` groups by

    def __init__(self, collators: Mapping[str, Callable[[list[dict[str, Any]]], dict[str, Any]]]) -> None:
        self.collators = dict(collators)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch with the name of its task, which the Trainer chooses the loss by."""
        name = rows[0]["dataset_name"]
        return {"dataset_name": name, **self.collators[name](rows)}


def retrieval(model: SentenceTransformer, pairs: Iterable[tuple[str, ...]], temperature: float = 0.05) -> Objective:
    """Rank a query's document above the others of its batch: InfoNCE over (query, positive, negative, …) texts.

    The model's own prompts stand before queries and documents, as they do when it is evaluated.
    """
    rows = number_rows(pairs)
    collator = TokenisedCollator(model, rows.texts, rows.columns, *prompts_of(model))
    return Objective(rows.dataset, collator, ContrastiveLoss(model, temperature))


def similarity(model: SentenceTransformer, pairs: Iterable[GradedPair]) -> Objective:
    """Order pairs of texts by likeness as people, or a tree, order them: CoSENT, over all pairs of a batch."""
    from sentence_transformers.sentence_transformer.losses import CoSENTLoss

    pairs = list(pairs)
    rows = number_rows((pair.text1, pair.text2) for pair in pairs)
    labelled = rows.dataset.add_column(SCORE, [float(pair.score) for pair in pairs])
    return Objective(labelled, LabelledCollator(model, rows.texts, rows.columns, column=SCORE), CoSENTLoss(model))


def classification(model: SentenceTransformer, examples: Iterable[Labelled]) -> Objective:
    """Bring texts of a class together and others apart, by all triplets of a batch that violate a margin.

    Large classes: every violating triplet counts, so that a class becomes a region (Hermans et al. 2017).
    """
    from sentence_transformers.sentence_transformer.losses import BatchAllTripletLoss

    return _grouped(model, examples, BatchAllTripletLoss)


def clustering(model: SentenceTransformer, examples: Iterable[Labelled]) -> Objective:
    """The same for many small groups, by the semi-hard triplets of a batch alone.

    Small groups have near relatives in other groups; the hardest triplets would be label noise (FaceNet, Schroff et
    al. 2015).
    """
    from sentence_transformers.sentence_transformer.losses import BatchSemiHardTripletLoss

    return _grouped(model, examples, BatchSemiHardTripletLoss)


def anchor(model: SentenceTransformer, texts: Sequence[str], vectors: np.ndarray) -> Objective:
    """Keep texts where they were: distil the base model into the model that starts from it.

    Regularisation to the base model in the space that is used, and not on the weights (L2-SP, Li et al. 2018): a
    penalty on weights holds every weight alike, those that no general text depends on too, and Adam divides its
    gradient by its own size. It needs texts without pairs, costs batches of one column, and its loss exists already.

    Args:
        model: the model to train.
        texts: of a general domain.
        vectors: (N, d) the base model's vectors of `texts`.
    """
    rows = _single_texts(texts)
    targets = torch.from_numpy(np.array(vectors, dtype=np.float32))
    return Objective(rows, TokenisedCollator(model, list(texts), ["text"]), EmbeddingDistillationLoss(model, targets))


def objective(model: SentenceTransformer, task: Task, weight: float = 1.0) -> Objective:
    """The objective of a task's kind over its training examples."""
    builders = {
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
    """Train `model` in place on several objectives and leave it with its best weights on dev.

    An epoch is one pass over all tasks, or, in turns, over the smallest. Batches of labelled texts hold at least two
    of every class they hold (`GroupByLabelBatchSampler`), without which there is no triplet.

    Args:
        model: the model that the objectives were made for.
        objectives: name -> objective.
        settings: how to train.
        evaluator: scores dev, larger is better; its `primary_metric` chooses the weights.
        output_dir: scratch folder of the Trainer.
        stage: what progress reports call this.

    Raises:
        ParameterError: no objective.
    """
    if not objectives:
        raise ParameterError("there is nothing to train on", remedy="Give at least one objective", field="objectives")
    return fit(
        model,
        {name: part.rows for name, part in objectives.items()},
        {name: WeightedLoss(part.loss, part.weight) for name, part in objectives.items()},
        settings,
        collator=ByTask({name: part.collator for name, part in objectives.items()}),
        batch_sampler=_batches,
        evaluator=evaluator,
        output_dir=output_dir,
        stage=stage,
    )


def _batches(dataset: datasets.Dataset, **kwargs: Any) -> DefaultBatchSampler:
    """Batches of one task: shuffled, and by classes where the rows have them."""
    if CLASS in dataset.column_names:
        return GroupByLabelBatchSampler(dataset, **kwargs)
    return DefaultBatchSampler(RandomSampler(dataset, generator=kwargs["generator"]), **kwargs)


def _grouped(model: SentenceTransformer, examples: Iterable[Labelled], loss: Callable[..., nn.Module]) -> Objective:
    from sentence_transformers.sentence_transformer.losses import BatchHardTripletLossDistanceFunction as Distance

    kept = _with_company(list(examples))
    number = {label: place for place, label in enumerate(sorted({example.label for example in kept}))}
    texts = [example.text for example in kept]
    rows = _single_texts(texts).add_column(CLASS, [number[example.label] for example in kept])
    triplets = loss(model, distance_metric=Distance.cosine_distance, margin=MARGIN)
    return Objective(rows, LabelledCollator(model, texts, ["text"], column=CLASS), triplets)


def _with_company(examples: Sequence[Labelled]) -> list[Labelled]:
    """The examples whose class has another one."""
    sizes = Counter(example.label for example in examples)
    kept = [example for example in examples if sizes[example.label] > 1]
    if len({example.label for example in kept}) < 2:
        problem = f"{len(examples)} labelled texts hold no two classes of two texts"
        raise DataError(problem, remedy="Give several texts of several classes", field="label")
    return kept


def _single_texts(texts: Sequence[str]) -> datasets.Dataset:
    from datasets import Dataset

    return Dataset.from_dict({"text": list(texts), "label": [[number] for number in range(len(texts))]})
