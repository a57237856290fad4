"""The one way a model is trained here: the sentence-transformers Trainer with progress and the best dev weights."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from embedlab import progress
from embedlab.training.batches import NoDuplicates
from embedlab.training.callbacks import KeepBest, ProgressReport

if TYPE_CHECKING:
    import datasets
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
    from sentence_transformers.base.evaluation import BaseEvaluator
    from torch import nn


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
    dataset: datasets.Dataset,
    loss: nn.Module,
    settings: FitSettings,
    *,
    collator: Callable[[list[dict[str, Any]]], dict[str, Any]] | None = None,
    evaluator: BaseEvaluator | None = None,
    output_dir: str,
    stage: str = "train",
) -> FitResult:
    """Train `model` in place with any sentence-transformers loss and leave it with its best weights on dev.

    Args:
        model: the model to train.
        dataset: rows as the collator, or sentence-transformers' own, takes them.
        loss: called with the columns' features and the labels; its parameters are trained too.
        settings: how to train.
        collator: rows to a batch.
        evaluator: scores dev, larger is better; its `primary_metric` chooses the weights.
        output_dir: scratch folder of the Trainer.
        stage: what progress reports call this.
    """
    from sentence_transformers import SentenceTransformerTrainer
    from transformers import PrinterCallback

    metric = f"eval_{evaluator.primary_metric}" if evaluator else ""
    best, log = KeepBest(metric, settings.patience), ProgressReport(stage, metric)
    trainer = SentenceTransformerTrainer(
        model=model,
        args=training_arguments(settings, len(dataset), bool(evaluator), output_dir),
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


def training_arguments(
    settings: FitSettings, rows: int, evaluate: bool, output_dir: str
) -> SentenceTransformerTrainingArguments:
    """What the Trainer needs to know: `settings` for so many rows, with or without dev evaluations."""
    from sentence_transformers import SentenceTransformerTrainingArguments
    from sentence_transformers.base.sampler import BatchSamplers

    steps = settings.max_steps or math.ceil(settings.epochs * math.ceil(rows / settings.batch_size))
    return SentenceTransformerTrainingArguments(
        output_dir=output_dir,
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        eval_strategy="steps" if evaluate else "no",
        eval_steps=max(1, math.ceil(steps / max(1, settings.evaluations))),
        logging_steps=max(1, steps // 50),
        save_strategy="no",
        batch_sampler=NoDuplicates if settings.no_duplicates else BatchSamplers.BATCH_SAMPLER,
        seed=settings.seed,
        disable_tqdm=progress.ENVIRONMENT_NAME in os.environ,
        report_to="none",
        dataloader_pin_memory=False,
    )
