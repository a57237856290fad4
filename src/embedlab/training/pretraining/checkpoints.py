"""Training that survives a kill: checkpoints that hold everything the next step depends on.

The Trainer saves model, optimizer, schedule and random state, but not what the loss holds beside the model (the head
that predicts words, the decoder), nor how far the collator's noise is. Both are added here, so that training that was
killed goes on to the very weights it would have reached.
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
from embedlab.training.pretraining.mlm import NoiseCollator

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from embedlab.training.pretraining.objectives import Task

HEAD = r"^(?!model\.)"  # parameters of a loss that are not the model's
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
    """`training.fit.fit` that goes on from the newest complete checkpoint in `folder`; they are removed at the end.

    Args:
        model: the model to train, in place.
        task: the rows, the loss with its head, and the collator.
        settings: how to train; the same ones when it goes on.
        head_learning_rate: of what the loss holds beside the model.
        checkpoint_steps: steps between checkpoints; 0 keeps none.
        folder: of this training alone.
        stage: what progress reports call this.
    """
    from sentence_transformers import SentenceTransformerTrainer
    from transformers import PrinterCallback

    arguments = training_arguments(settings, len(task.rows), False, str(folder))
    if checkpoint_steps:  # two are kept, for the newer one may be cut short by the kill it is there for
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
    return FitResult(log.rows, None, 0, output.global_step, output.metrics["train_runtime"])


class _HeadCheckpoint(TrainerCallback):
    """Writes what the Trainer's checkpoint lacks, last of all: a checkpoint with this file is complete."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        path = Path(args.output_dir) / f"checkpoint-{state.global_step}" / HEAD_FILE
        with atomic_path(path) as temporary:
            torch.save({"head": self.task.head(), "batches": state.global_step}, temporary)


def _resume(task: Task, folder: Path) -> str | None:
    """The newest complete checkpoint in `folder`, with its head put back; None when there is none."""
    complete = [file.parent for file in folder.glob(f"checkpoint-*/{HEAD_FILE}")]
    if not complete:
        return None
    newest = max(complete, key=lambda path: int(path.name.rpartition("-")[2]))
    saved = torch.load(newest / HEAD_FILE, weights_only=True)
    task.loss.load_state_dict(saved["head"], strict=False)
    if isinstance(task.collator, NoiseCollator):
        task.collator.batches = saved["batches"]  # one per step; those read ahead of the kill are made again
    return str(newest)
