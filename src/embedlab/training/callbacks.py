"""Trainer callbacks: progress reports, and the best weights on dev kept in memory."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from embedlab import progress


class ProgressReport(TrainerCallback):
    """Send step, loss, dev metric and learning rate to `embedlab.progress` and collect them for train_log.csv.

    Args:
        stage: name of this training in progress reports.
        dev_metric: key of the dev metric as the Trainer prefixes it, e.g. `eval_ndcg@10`.

    Attributes:
        rows: one dict per report: step, seconds and the values reported.
    """

    def __init__(self, stage: str, dev_metric: str) -> None:
        self.stage, self.dev_metric = stage, dev_metric
        self.rows: list[dict[str, float | None]] = []
        self._dev: float | None = None
        self._start = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        logs = logs or {}
        values = {key: logs[key] for key in ("loss", "learning_rate", "grad_norm") if key in logs}
        if values:
            self._report(state, **values)
        if not math.isfinite(logs.get("loss", 0.0)):
            control.should_training_stop = True  # no later step can repair the weights

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **kwargs: Any,
    ) -> None:
        self._dev = metrics.get(self.dev_metric)
        self._report(state, dev=self._dev)

    def training_state(self, batches: int) -> dict[str, Any]:
        """Return what a checkpoint must hold: the rows and the seconds so far."""
        return {"rows": self.rows, "seconds": time.monotonic() - self._start, "dev": self._dev}

    def restore_training_state(self, state: dict[str, Any]) -> None:
        """Continue after the rows of `training_state`."""
        self.rows, self._dev = state["rows"], state["dev"]
        self._start = time.monotonic() - state["seconds"]

    @property
    def seconds(self) -> float:
        """Seconds since the training began, without the time between a kill and the continuation."""
        return time.monotonic() - self._start

    def _report(self, state: TrainerState, **values: float | None) -> None:
        seconds = time.monotonic() - self._start
        self.rows.append({"step": state.global_step, "seconds": round(seconds, 1), **values})
        progress.report(self.stage, state.global_step, state.max_steps, **{"dev": self._dev, **values})


class KeepBest(TrainerCallback):
    """Keep the weights with the best dev value in memory, and stop early if asked to.

    This replaces `load_best_model_at_end`, which needs checkpoints on disk (four times the size, as they hold the
    optimizer too) and only logs an error when the best one cannot be loaded. A copy in memory is exact and costs one
    copy of the weights.

    Args:
        metric: key of the dev metric as the Trainer prefixes it; larger is better.
        patience: evaluations without improvement before training stops; 0 never stops early.

    Attributes:
        best_value: the best dev value, None before the first evaluation.
        best_step: the step of that value; 0 is the untrained model.
    """

    def __init__(self, metric: str, patience: int) -> None:
        self.metric, self.patience = metric, patience
        self.best_value: float | None = None
        self.best_step = 0
        self._weights: dict[str, torch.Tensor] = {}
        self._without_improvement = 0

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        model: torch.nn.Module,
        **kwargs: Any,
    ) -> None:
        value = metrics[self.metric]
        if self.best_value is None or value > self.best_value:
            self.best_value, self.best_step, self._without_improvement = value, state.global_step, 0
            self._weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
            return
        self._without_improvement += 1
        if self.patience and self._without_improvement >= self.patience:
            control.should_training_stop = True

    def training_state(self, batches: int) -> dict[str, Any]:
        """Return what a checkpoint must hold: the best weights and how they were chosen."""
        return {
            "best_value": self.best_value,
            "best_step": self.best_step,
            "weights": self._weights,
            "without_improvement": self._without_improvement,
        }

    def restore_training_state(self, state: dict[str, Any]) -> None:
        """Continue with the best weights of `training_state`."""
        self.best_value, self.best_step = state["best_value"], state["best_step"]
        self._weights, self._without_improvement = state["weights"], state["without_improvement"]

    def restore(self, model: torch.nn.Module) -> None:
        """Load the best weights into `model` and drop the copy; without any evaluation the last weights stay."""
        if self._weights:
            model.load_state_dict(self._weights, strict=True)
            self._weights = {}
