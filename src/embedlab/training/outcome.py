"""What a training log says about the training: nothing learned, stopped too early, or diverged."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from embedlab.errors import ModelError

logger = logging.getLogger(__name__)

DIVERGED = "diverged"
NOTHING_LEARNED = "no step beat the base"
STILL_RISING = "best at the last step"
FEW_STEPS = "few steps"
ENOUGH_STEPS = 50
MAX_RISE = 1.5  # of the loss, from the first to the last quarter of the log

History = Sequence[Mapping[str, float | None]]


def judge_training(history: History) -> dict[str, str]:
    """Find what went wrong in a training.

    Args:
        history: rows of one training with `step`, and `loss` or `dev` where they were measured.

    Returns:
        Finding -> one line of advice; empty when there is nothing to say. The findings are `DIVERGED`,
        `NOTHING_LEARNED` (dev was best before the first step, so the model kept its first weights), `STILL_RISING` and
        `FEW_STEPS`.
    """
    findings = _divergence(history)
    scores = [(row["step"] or 0, row["dev"]) for row in history if row.get("dev") is not None]
    steps = int(max((row["step"] or 0 for row in history), default=0))
    best_step = max(scores, key=lambda score: score[1] or 0.0)[0] if len(scores) > 1 else None
    if best_step == 0:
        findings[NOTHING_LEARNED] = (
            "No training step beat the start on dev, so the model kept its first weights. "
            "Lower the learning rate, try another loss, or check the pairs."
        )
    elif best_step is not None and best_step == scores[-1][0]:
        findings[STILL_RISING] = (
            f"Dev was best at the last of {steps} steps: train longer, there may be more to gain. "
            "Set more epochs, or a smaller batch if there are few pairs."
        )
    elif 0 < steps < ENOUGH_STEPS:
        findings[FEW_STEPS] = f"Only {steps} steps: set more epochs, or a smaller batch, before you judge the model."
    return findings


def by_training(history: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Split a log by its column `stage`, `system` or `recipe`: name of the training -> rows; "" where there is none."""
    trainings: dict[str, list[Mapping[str, Any]]] = {}
    for row in history:
        name = next((row[column] for column in ("stage", "system", "recipe") if row.get(column)), "")
        trainings.setdefault(str(name), []).append(row)
    return trainings


def _divergence(history: History) -> dict[str, str]:
    losses = [(int(row["step"] or 0), float(loss)) for row in history if (loss := row.get("loss")) is not None]
    advice = "Lower the learning rate, and train in float32."
    if broken := [step for step, loss in losses if not math.isfinite(loss)]:
        return {DIVERGED: f"The loss is not a number from step {broken[0]} on. {advice}"}
    quarter = len(losses) // 4
    if quarter:
        first, last = (sum(loss for _, loss in logged) / quarter for logged in (losses[:quarter], losses[-quarter:]))
        if last > MAX_RISE * first > 0:
            return {DIVERGED: f"The loss rose from {first:.3g} to {last:.3g}. {advice}"}
    return {}


def log_findings(history: History, stage: str) -> None:
    """Log one line of advice per finding as a warning, with the name of the training in front."""
    for advice in judge_training(history).values():
        logger.warning("%s: %s", stage, advice)


def require_finite(history: History, stage: str) -> None:
    """Refuse weights that a loss without a value has spoiled.

    Raises:
        ModelError: the loss became infinite or not a number.
    """
    broken = [row for row in history if (loss := row.get("loss")) is not None and not math.isfinite(loss)]
    if broken:
        problem = f"{stage}: the loss is not a number from step {broken[0]['step']} on, so the weights are useless"
        remedy = "Lower the learning rate, and train in float32"
        raise ModelError(problem, remedy=remedy, field="learning_rate")
