"""The one way a model is trained here: the sentence-transformers Trainer with progress and the best dev weights."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from embedlab import progress
from embedlab.training.batches import NoDuplicates
from embedlab.training.callbacks import KeepBest, ProgressReport
from embedlab.training.learning_rates import learning_rates

if TYPE_CHECKING:
    import datasets
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
    from sentence_transformers.base.evaluation import BaseEvaluator
    from torch import nn
    from torch.utils.data import BatchSampler


@dataclass(frozen=True)
class FitSettings:
    """How to train; the defaults suit a small model and a few thousand short pairs.

    Attributes:
        epochs: passes over the rows.
        max_steps: stop after so many steps; 0 means no cap.
        batch_size: rows per step.
        learning_rate: peak, reached after `warmup` and then decayed linearly to 0.
        warmup: share of the steps used to reach the peak.
        weight_decay: AdamW's.
        evaluations: dev evaluations over the run, beside the one before the first step.
        patience: evaluations without a better dev value before stopping; 0 never stops.
        no_duplicates: never put a text twice into a batch.
        seed: of the data order, dropout and everything else random.
        layer_decay: factor on the learning rate from one layer to the one below; see `learning_rates`.
        embedding_rate: factor on the learning rate of the token-embedding table.
        sampling: of several tasks: "proportional" to their batches, until all are used up, or "round_robin", until the
            smallest is.
    """

    epochs: float = 3
    max_steps: int = 0
    batch_size: int = 128
    learning_rate: float = 2e-4
    warmup: float = 0.1
    weight_decay: float = 0.01
    evaluations: int = 4
    patience: int = 0
    no_duplicates: bool = False
    seed: int = 0
    layer_decay: float = 1.0
    embedding_rate: float = 1.0
    sampling: Literal["proportional", "round_robin"] = "proportional"


@dataclass(frozen=True)
class FitResult:
    """What training leaves beside the weights.

    Attributes:
        history: rows of step, seconds, loss, learning_rate and dev value, for train_log.csv.
        best_dev: the best dev value; the model carries its weights. None without an evaluator.
        best_step: the step it was reached at; 0 is the untrained model.
        steps: steps taken.
        seconds: wall-clock time, dev evaluations included.
    """

    history: list[dict[str, float]]
    best_dev: float | None
    best_step: int
    steps: int
    seconds: float


def fit(
    model: SentenceTransformer,
    dataset: datasets.Dataset | dict[str, datasets.Dataset],
    loss: nn.Module | dict[str, nn.Module],
    settings: FitSettings,
    *,
    collator: Callable[[list[dict[str, Any]]], dict[str, Any]] | None = None,
    batch_sampler: Callable[..., BatchSampler] | None = None,
    evaluator: BaseEvaluator | None = None,
    output_dir: str,
    stage: str = "train",
) -> FitResult:
    """Train `model` in place with any sentence-transformers loss and leave it with its best weights on dev.

    Args:
        model: the model to train.
        dataset: rows as the collator, or sentence-transformers' own, takes them; of several tasks, by their names.
        loss: called with the columns' features and the labels; its parameters are trained too. One for each task.
        settings: how to train.
        collator: rows to a batch.
        batch_sampler: which rows make a batch, in place of what the settings say; called as
            `sentence_transformers.base.sampler.DefaultBatchSampler` is.
        evaluator: scores dev, larger is better; its `primary_metric` chooses the weights.
        output_dir: scratch folder of the Trainer.
        stage: what progress reports call this.
    """
    from sentence_transformers import SentenceTransformerTrainer
    from transformers import PrinterCallback

    metric = f"eval_{evaluator.primary_metric}" if evaluator else ""
    best, log = KeepBest(metric, settings.patience), ProgressReport(stage, metric)
    rows = [len(part) for part in dataset.values()] if isinstance(dataset, dict) else len(dataset)
    arguments = training_arguments(settings, rows, bool(evaluator), output_dir, rates=_rates(model, settings))
    arguments.batch_sampler = batch_sampler or arguments.batch_sampler
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=collator,
        loss=loss,
        evaluator=evaluator,
        callbacks=[log, best] if evaluator else [log],
    )
    trainer.remove_callback(PrinterCallback)  # progress is reported already; this one prints raw dictionaries
    if evaluator:
        trainer.evaluate()
    output = trainer.train()
    best.restore(model)
    return FitResult(log.rows, best.best_value, best.best_step, output.global_step, output.metrics["train_runtime"])


def _rates(model: SentenceTransformer, settings: FitSettings) -> dict[str, float]:
    return learning_rates(
        model, settings.learning_rate, layer_decay=settings.layer_decay, embedding_rate=settings.embedding_rate
    )


def training_arguments(
    settings: FitSettings,
    rows: int | Sequence[int],
    evaluate: bool,
    output_dir: str,
    *,
    rates: Mapping[str, float] | None = None,
) -> SentenceTransformerTrainingArguments:
    """What the Trainer needs to know: `settings` for so many rows (of every task), with or without dev evaluations.

    `rates` are other learning rates by pattern of the parameter names.
    """
    from sentence_transformers import SentenceTransformerTrainingArguments
    from sentence_transformers.base.sampler import BatchSamplers

    steps = settings.max_steps or math.ceil(settings.epochs * batches_per_epoch(settings, rows))
    return SentenceTransformerTrainingArguments(
        output_dir=output_dir,
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        learning_rate_mapping=dict(rates or {}),
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        eval_strategy="steps" if evaluate else "no",
        eval_steps=max(1, math.ceil(steps / max(1, settings.evaluations))),
        logging_steps=max(1, steps // 50),
        save_strategy="no",
        batch_sampler=NoDuplicates if settings.no_duplicates else BatchSamplers.BATCH_SAMPLER,
        multi_dataset_batch_sampler=settings.sampling,
        seed=settings.seed,
        disable_tqdm=progress.ENVIRONMENT_NAME in os.environ,
        report_to="none",
        dataloader_pin_memory=False,
    )


def batches_per_epoch(settings: FitSettings, rows: int | Sequence[int]) -> int:
    """Steps that see every row once; of several tasks taken in turns, those until the smallest is used up."""
    batches = [math.ceil(count / settings.batch_size) for count in ([rows] if isinstance(rows, int) else rows)]
    return len(batches) * min(batches) if settings.sampling == "round_robin" else sum(batches)
