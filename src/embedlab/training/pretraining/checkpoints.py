"""Resumable training: checkpoints that contain everything the next step depends on.

The Trainer saves model, optimizer, schedule and random state, but neither the parameters of the loss (the prediction
head of MLM, the decoder of TSDAE) nor the position in the collator's noise. Both are saved here. A killed training
continues to exactly the weights that it would have reached.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from embedlab.io import atomic_path
from embedlab.training.callbacks import ProgressReport
from embedlab.training.fit import FitResult, FitSettings, training_arguments
from embedlab.training.outcome import log_findings, require_finite
from embedlab.training.pretraining.mlm import NoiseCollator

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from embedlab.training.pretraining.objectives import Task

HEAD = r"^(?!model\.)"  # parameters of the loss that are not parameters of the model
HEAD_FILE = "embedlab_head.pt"


def fit_resumable(
    model: SentenceTransformer,
    task: Task,
    settings: FitSettings,
    *,
    head_learning_rate: float,
    checkpoint_steps: int,
    folder: Path,
    stage: str,
) -> FitResult:
    """Train like `training.fit.fit`, but continue from the newest complete checkpoint in `folder`.

    The checkpoints are removed at the end.

    Args:
        model: the model to train, in place.
        task: rows, loss and collator.
        settings: training settings; they must not change between start and continuation.
        head_learning_rate: learning rate of the loss's own parameters.
        checkpoint_steps: steps between checkpoints; 0 saves none.
        folder: checkpoint folder of this training only.
        stage: name of this training in progress reports.

    Returns:
        History, steps and seconds; there is no dev value.

    Raises:
        ModelError: the loss became infinite or not a number.
    """
    from sentence_transformers import SentenceTransformerTrainer
    from transformers import PrinterCallback

    arguments = training_arguments(settings, len(task.rows), False, str(folder))
    if checkpoint_steps:  # keep two, because a kill can leave the newer one incomplete
        arguments.set_save("steps", steps=checkpoint_steps, total_limit=2)
    if task.head():
        arguments.learning_rate_mapping = {HEAD: head_learning_rate}
    log = ProgressReport(stage, "")
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=task.rows,
        data_collator=task.collator,
        loss=task.loss,
        callbacks=[log, _HeadCheckpoint(task)],
    )
    trainer.remove_callback(PrinterCallback)
    output = trainer.train(resume_from_checkpoint=_resume(task, folder))
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    require_finite(log.rows, stage)
    log_findings(log.rows, stage)
    return FitResult(log.rows, None, 0, output.global_step, output.metrics["train_runtime"])


class _HeadCheckpoint(TrainerCallback):
    """Add the loss's parameters to a checkpoint. The file is written last, so a checkpoint with it is complete."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        path = Path(args.output_dir) / f"checkpoint-{state.global_step}" / HEAD_FILE
        with atomic_path(path) as temporary:
            torch.save({"head": self.task.head(), "batches": state.global_step}, temporary)


def _resume(task: Task, folder: Path) -> str | None:
    """Restore the loss's parameters from the newest complete checkpoint and return its folder; None without one."""
    complete = [file.parent for file in folder.glob(f"checkpoint-*/{HEAD_FILE}")]
    if not complete:
        return None
    newest = max(complete, key=lambda path: int(path.name.rpartition("-")[2]))
    saved = torch.load(newest / HEAD_FILE, weights_only=True)
    task.loss.load_state_dict(saved["head"], strict=False)
    if isinstance(task.collator, NoiseCollator):
        task.collator.batches = saved["batches"]  # one per step; batches prepared in advance are prepared again
    return str(newest)
