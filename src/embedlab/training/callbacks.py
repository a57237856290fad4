"""Trainer callbacks: progress for whoever watches, and the best weights on dev kept in memory."""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from embedlab import progress


class ProgressReport(TrainerCallback):
    """Reports step, loss, dev metric and rate to `embedlab.progress`, and keeps them as rows for train_log.csv."""

    def __init__(self, stage: str, dev_metric: str) -> None:
        self.stage, self.dev_metric = stage, dev_metric
        self.rows: list[dict[str, float]] = []
        self._dev: float | None = None
        self._began = time.monotonic()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict | None = None, **kw: Any
    ) -> None:
        numbers = {key: logs[key] for key in ("loss", "learning_rate", "grad_norm") if key in (logs or {})}
        if numbers:
            self._report(state, **numbers)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict, **kwargs: Any
    ) -> None:
        self._dev = metrics.get(self.dev_metric)
        self._report(state, dev=self._dev)

    def _report(self, state: TrainerState, **numbers: float | None) -> None:
        seconds = time.monotonic() - self._began
        self.rows.append({"step": state.global_step, "seconds": round(seconds, 1), **numbers})
        progress.report(self.stage, state.global_step, state.max_steps, **{"dev": self._dev, **numbers})


class KeepBest(TrainerCallback):
    """Early stopping that keeps the best weights in memory and puts every one of them back at the end.

    Checkpoints on disk hold the optimizer too (four times the size), and the Trainer only logs an error when the best
    one cannot be loaded; a copy in memory is exact, covers every module and costs one copy of the weights.

    Args:
        metric: the evaluator's key, as the Trainer prefixes it; larger is better.
        patience: evaluations without improvement before training stops; 0 never stops early.
    """

    def __init__(self, metric: str, patience: int) -> None:
        self.metric, self.patience = metric, patience
        self.best_value: float | None = None
        self.best_step = 0
        self._weights: dict[str, torch.Tensor] = {}
        self._misses = 0

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict,
        model: torch.nn.Module,
        **kwargs: Any,
    ) -> None:
        value = metrics[self.metric]
        if self.best_value is None or value > self.best_value:
            self.best_value, self.best_step, self._misses = value, state.global_step, 0
            self._weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
            return
        self._misses += 1
        if self.patience and self._misses >= self.patience:
            control.should_training_stop = True

    def restore(self, model: torch.nn.Module) -> None:
        """Load the best weights into `model`; the last ones stay when dev was never evaluated."""
        if self._weights:
            model.load_state_dict(self._weights, strict=True)
