"""Shared training loop: SentenceTransformerTrainer with progress reports and the best dev weights."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from embedlab import progress
from embedlab.engine import EngineParams
from embedlab.models.sides import is_routed
from embedlab.training import finished, launch
from embedlab.training.batches import NoDuplicates
from embedlab.training.callbacks import KeepBest, ProgressReport
from embedlab.training.checkpoints import Checkpoints, checkpoint_folder, training_identity
from embedlab.training.engine import applicable, prepare, require_prepared, require_usable, trainer_arguments
from embedlab.training.learning_rates import learning_rates
from embedlab.training.outcome import judge_training, log_findings, require_finite
from embedlab.training.trainer import Effort, Training
from embedlab.training.truncated import cut_of, report_cut

if TYPE_CHECKING:
    import datasets
    from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder
    from sentence_transformers.base.evaluation import BaseEvaluator
    from sentence_transformers.base.training_args import BaseTrainingArguments
    from torch import nn
    from torch.utils.data import BatchSampler

logger = logging.getLogger(__name__)

# The Trainer asks for the side of each column of a model with a Router; our collators name it in their features.
ROUTES = {"query": "query", "positive": "document"}


@dataclass(frozen=True)
class FitSettings:
    """Training settings; the defaults suit a small model and a few thousand short pairs.

    Attributes:
        epochs: passes over the rows.
        max_steps: most steps; 0 sets no maximum.
        batch_size: rows per step.
        learning_rate: peak, reached after the warm-up and then decayed, see `engine`.
        weight_decay: weight decay of AdamW; `engine` can override it.
        evaluations: dev evaluations during training, in addition to the one before the first step.
        patience: evaluations without a better dev value before training stops; 0 never stops early.
        no_duplicates: exclude duplicate texts within a batch.
        seed: seed of the data order, dropout and everything else random.
        layer_decay: factor on the learning rate from one layer to the layer below; see `learning_rates`.
        embedding_rate: factor on the learning rate of the token embeddings.
        sampling: how batches of several tasks are mixed: "proportional" uses every batch of every task once per epoch,
            "round_robin" takes turns until the smallest task is used up.
        engine: precision, memory, schedule and other parameters that every training has.
        min_steps: at least this many steps, with more epochs on small data.
        steps: this many steps instead of those of the epochs; 0 follows the epochs.
        evaluate_start: evaluate dev before the first step too, so that a training that only does harm changes nothing.
    """

    epochs: float = 3
    max_steps: int = 0
    batch_size: int = 128
    learning_rate: float = 2e-4
    weight_decay: float = 0.01
    evaluations: int = 4
    patience: int = 0
    no_duplicates: bool = False
    seed: int = 0
    layer_decay: float = 1.0
    embedding_rate: float = 1.0
    sampling: Literal["proportional", "round_robin"] = "proportional"
    engine: EngineParams = EngineParams()
    min_steps: int = 0
    steps: int = 0
    evaluate_start: bool = True

    def deciding(self) -> dict[str, Any]:
        """Return the settings that the weights depend on, ready for JSON."""
        return {**asdict(self), "engine": self.engine.deciding()}


@dataclass(frozen=True)
class FitResult:
    """Result of a training run, apart from the weights.

    Attributes:
        history: rows of step, seconds, loss, learning_rate and dev value, for train_log.csv.
        best_dev: the best dev value, reached by the weights that the model now has; None without an evaluator.
        best_step: the step of the best dev value; 0 is the untrained model.
        steps: steps taken.
        seconds: wall-clock time, dev evaluations included.
    """

    history: list[dict[str, float | None]]
    best_dev: float | None
    best_step: int
    steps: int
    seconds: float

    @property
    def advice(self) -> list[str]:
        """One line for everything that went wrong: nothing learned, stopped too early, diverged; usually empty."""
        return list(judge_training(self.history).values())


def fit(
    model: SentenceTransformer | CrossEncoder | SparseEncoder | MultiVectorEncoder,
    dataset: datasets.Dataset | dict[str, datasets.Dataset],
    loss: nn.Module | dict[str, nn.Module],
    settings: FitSettings,
    *,
    collator: Callable[[list[dict[str, Any]]], dict[str, Any]] | None = None,
    batch_sampler: Callable[..., BatchSampler] | None = None,
    evaluator: BaseEvaluator | None = None,
    rates: Mapping[str, float] | None = None,
    output_dir: str,
    stage: str = "train",
) -> FitResult:
    """Train `model` in place with any sentence-transformers loss, and restore its best weights on dev.

    Args:
        model: the model to train, an embedding model or one of another kind.
        dataset: training rows, or task name -> training rows.
        loss: a loss of sentence-transformers' kind, or task name -> loss. Its own parameters are trained too.
        settings: training settings. Call `training.engine.prepare` with its engine before you make a collator.
        collator: turns rows into a batch; the default collator of sentence-transformers when None.
        batch_sampler: replaces the sampler that the settings choose; called like
            `sentence_transformers.base.sampler.DefaultBatchSampler`.
        evaluator: computes the dev value (larger is better); its `primary_metric` chooses the weights.
        rates: regular expression of parameter names -> learning rate, e.g. of a loss's own parameters.
        output_dir: scratch folder of the Trainer.
        stage: name of this training in progress reports.

    A killed training that is started again continues from its last checkpoint, see `checkpoints`.

    Returns:
        History, best dev value and its step. What went wrong is logged too, see `FitResult.advice`.

    Raises:
        ModelError: the loss became infinite or not a number, and there are no dev weights to return to.
        ParameterError: this machine or this model cannot do what the engine parameters ask for.
        StoppedAtCheckpoint: a time limit ended the run; the training continues when it is started again.
    """
    settings = _usable(model, settings, collator)
    report_cut(stage, cut_of(collator), model.max_seq_length)
    identity = training_identity(model, dataset, loss, settings.deciding(), collator, evaluator, stage)
    rows = [len(task_rows) for task_rows in dataset.values()] if isinstance(dataset, dict) else len(dataset)
    with checkpoint_folder(identity) as folder:
        options: dict[str, Any] = {"kind": model.model_type, "batch_sampler": batch_sampler}
        options |= {"rates": _rates(model, settings) | dict(rates or {}), "routed": is_routed(model)}
        arguments = partial(training_arguments, settings, rows, bool(evaluator), str(folder or output_dir), **options)
        metric = f"eval_{evaluator.primary_metric}" if evaluator else ""
        best, log = KeepBest(metric, settings.patience), ProgressReport(stage, metric)
        parts: dict[str, ProgressReport | KeepBest] = {"log": log, "best": best}
        checkpoints = Checkpoints(
            folder, settings.engine.checkpoint_minutes, loss=loss, model=model, collator=collator, parts=parts
        )
        if (earlier := finished.restore(folder, checkpoints.restore)) is not None:
            return FitResult(**earlier)
        name = f"{stage.replace('/', '-')}-{identity}"
        objects = (model, dataset, loss, collator, evaluator)
        training = Training(*objects, settings.engine, name, arguments, best, log, checkpoints, settings.evaluate_start)
        effort = launch.train(training)
        result = _result(log, best, effort)
        if folder and finished.is_wanted() and checkpoints.has_room(folder):
            finished.keep(folder, checkpoints.state(), asdict(result))
        return result


def _result(log: ProgressReport, best: KeepBest, effort: Effort) -> FitResult:
    if best.best_value is None:
        require_finite(log.rows, log.stage)
    log_findings(log.rows, log.stage)
    return FitResult(log.rows, best.best_value, best.best_step, effort.steps, effort.seconds)


def _usable(
    model: SentenceTransformer | CrossEncoder, settings: FitSettings, collator: Callable[..., Any] | None
) -> FitSettings:
    """Check the engine parameters, and leave out those that do not apply here."""
    require_usable(settings.engine)
    if collator is None:
        prepare(model, settings.engine)
    else:
        require_prepared(model, settings.engine)
    engine = applicable(model, settings.engine)
    if engine.workers and hasattr(collator, "training_state"):
        logger.warning("engine.workers is left out: every batch of this training depends on the steps before it")
        engine = engine.model_copy(update={"workers": 0})
    return replace(settings, engine=engine)


def _rates(model: Any, settings: FitSettings) -> dict[str, float]:
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
    kind: str = "SentenceTransformer",
    batch_sampler: Callable[..., BatchSampler] | None = None,
    routed: bool = False,
) -> BaseTrainingArguments:
    """Translate `settings` into the training arguments of sentence-transformers.

    Args:
        settings: training settings.
        rows: number of training rows, or one number per task.
        evaluate: whether there are dev evaluations.
        output_dir: scratch folder of the Trainer.
        rates: regular expression of parameter names -> learning rate, see `learning_rates`.
        kind: class of the model, such as "CrossEncoder".
        batch_sampler: replaces the sampler that the settings choose.
        routed: whether the model has a Router.
    """
    import sentence_transformers
    from sentence_transformers.base.sampler import BatchSamplers

    engine, arguments = settings.engine, getattr(sentence_transformers, f"{kind}TrainingArguments")
    steps = total_steps(settings, rows)
    return arguments(
        output_dir=output_dir,
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        learning_rate_mapping=dict(rates or {}),
        router_mapping=ROUTES if routed else {},
        weight_decay=settings.weight_decay if engine.weight_decay is None else engine.weight_decay,
        eval_strategy="steps" if evaluate else "no",
        eval_steps=max(1, math.ceil(steps / max(1, settings.evaluations))),
        logging_steps=max(1, steps // 50),
        logging_nan_inf_filter=False,  # it would replace a NaN by the mean of the losses before
        save_strategy="no",  # `Checkpoints` decides
        save_total_limit=2,  # a kill can leave the newer one incomplete
        batch_sampler=batch_sampler or (NoDuplicates if settings.no_duplicates else BatchSamplers.BATCH_SAMPLER),
        multi_dataset_batch_sampler=settings.sampling,
        seed=settings.seed,
        disable_tqdm=progress.ENVIRONMENT_NAME in os.environ,
        dataloader_pin_memory=False,
        **trainer_arguments(engine) | ({"warmup_steps": 0} if steps == 1 else {}),  # it would take the only step
    )


def total_steps(settings: FitSettings, rows: int | Sequence[int]) -> int:
    """Number of steps of a training: `steps`; else those of its epochs, between `min_steps` and `max_steps`."""
    by_epochs = math.ceil(settings.epochs * steps_per_epoch(settings, rows))
    steps = settings.steps or max(settings.min_steps, by_epochs)
    return min(steps, settings.max_steps or steps)


def steps_per_epoch(settings: FitSettings, rows: int | Sequence[int]) -> int:
    """Number of steps per epoch: batches, or groups of as many batches as a step accumulates."""
    return math.ceil(batches_per_epoch(settings, rows) / settings.engine.gradient_accumulation)


def batches_per_epoch(settings: FitSettings, rows: int | Sequence[int]) -> int:
    """Number of batches per epoch; with round-robin sampling, the steps until the smallest task is used up."""
    batches = [math.ceil(count / settings.batch_size) for count in ([rows] if isinstance(rows, int) else rows)]
    return len(batches) * min(batches) if settings.sampling == "round_robin" else sum(batches)
