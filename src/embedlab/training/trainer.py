"""One training as an object: run it here, or send it to the processes of a group and take over the result."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from sentence_transformers.base.trainer import BaseTrainer
from transformers import PreTrainedModel
from transformers.utils import logging, output_capturing
from transformers.utils.output_capturing import _CAN_RECORD_REGISTRY

import embedlab.models.packing  # noqa: F401 - registers the attention function of packed models
from embedlab import progress
from embedlab.engine import EngineParams
from embedlab.models.fingerprint import model_fingerprint
from embedlab.training import group
from embedlab.training.callbacks import KeepBest, ProgressReport
from embedlab.training.checkpoints import (
    Checkpoints,
    ResumableCrossEncoderTrainer,
    ResumableMultiVectorTrainer,
    ResumableSparseTrainer,
    ResumableTrainer,
)
from embedlab.training.engine import engaged, tracked, trackers

if TYPE_CHECKING:
    import datasets
    from sentence_transformers import CrossEncoder, SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator
    from sentence_transformers.base.training_args import BaseTrainingArguments
    from torch import nn
    from torch.utils.data import DataLoader
    from transformers import TrainingArguments
    from transformers.trainer_utils import EvalLoopOutput

Arguments = TypeVar("Arguments", bound="TrainingArguments")

CHECK_EVERY = 50  # steps between two checks that all processes have the same batch


class GroupTrainer(ResumableTrainer):
    """A Trainer that shares its steps with the other processes of its group, see `group`.

    The first process runs the evaluator, and sentence-transformers lets the others help with `model.encode`. The first
    process writes checkpoints, the others their random state. Without a group it is a `ResumableTrainer`.
    """

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the same batches in every process; what is drawn afterwards, such as dropout, differs."""
        loader = super().get_train_dataloader()  # draws the seed of the data order
        if group.rank():  # otherwise the two copies of a text in SimCSE could get the same dropout
            torch.manual_seed(hash((self.args.seed, group.rank())))
        return loader

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute the gradients of one batch and average them over the group."""
        if group.size() == 1:
            return super().training_step(model, inputs, *args, **kwargs)
        if self.state.global_step % CHECK_EVERY == 0:
            group.require_equal(_digest(inputs), "batches")
        with group.sharing(self.model):
            loss = super().training_step(model, inputs, *args, **kwargs)
        if self.accelerator.gradient_state.sync_gradients:  # the last batch of this step
            group.average_gradients(
                value for parameters in self.optimizer.param_groups for value in parameters["params"]
            )
        return group.average(loss)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Return the metrics of the first process in every process."""
        output = super().evaluation_loop(*args, **kwargs)
        return output._replace(metrics=group.from_first(lambda: output.metrics))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if group.rank() == 0:
            super()._save_checkpoint(model, trial)
        else:
            self._save_rng_state(str(Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"))
        group.wait()  # the checkpoint is complete when all have written

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(_own_folder(output_dir))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint and _own_folder(checkpoint))


# Class of a model -> its Trainer. Only embedding models train in a group of processes.
TRAINERS: dict[str, type[BaseTrainer]] = {
    "SentenceTransformer": GroupTrainer,
    "CrossEncoder": ResumableCrossEncoderTrainer,
    "SparseEncoder": ResumableSparseTrainer,
    "MultiVectorEncoder": ResumableMultiVectorTrainer,
}


def _own_folder(checkpoint: str) -> str:
    """Folder of this process's random state."""
    return str(Path(checkpoint) / f"process-{group.rank()}") if group.rank() else checkpoint


def _digest(inputs: Mapping[str, Any]) -> str:
    content = hashlib.sha256()
    for name in sorted(inputs):
        if isinstance(inputs[name], torch.Tensor):
            content.update(name.encode() + inputs[name].cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


def on_one_gpu(arguments: Arguments) -> Arguments:
    """Keep the Trainer from wrapping the model in `nn.DataParallel` where it sees several GPUs.

    That would cut packed batches in the middle of a text.

    Returns:
        The same object.
    """
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


class Effort(NamedTuple):
    """What a training took.

    Attributes:
        steps: steps taken.
        seconds: of all attempts, interrupted ones included.
        earlier: of the interrupted attempts.
    """

    steps: int
    seconds: float
    earlier: float


@dataclass
class Training:
    """Everything that a training needs.

    Attributes:
        model: the model to train.
        dataset: training rows, or task name -> training rows.
        loss: a loss of sentence-transformers' kind, or task name -> loss.
        collator: turns rows into a batch; None uses the default of sentence-transformers.
        evaluator: computes the dev value; None trains without dev.
        engine: engine parameters that apply to the model.
        name: of the training, for trackers.
        arguments: creates the Trainer's arguments; called in the process that trains, because they hold its device.
        best: keeps the best weights on dev.
        log: collects the training log.
        checkpoints: the training's state: written to checkpoints, restored from them, and sent back by a group.
        evaluate_start: whether dev is evaluated before the first step.
    """

    model: SentenceTransformer | CrossEncoder
    dataset: datasets.Dataset | dict[str, datasets.Dataset]
    loss: nn.Module | dict[str, nn.Module]
    collator: Any
    evaluator: BaseEvaluator | None
    engine: EngineParams
    name: str
    arguments: Callable[[], BaseTrainingArguments]
    best: KeepBest
    log: ProgressReport
    checkpoints: Checkpoints
    evaluate_start: bool = True

    def run(self) -> Effort:
        """Train in this process, alone or as a member of a group, and restore the best weights on dev."""
        with engaged(self.model, self.engine), tracked(self.engine, self.name):
            trainer = self._trainer()
            checkpoint = self.checkpoints.resume()
            if self.evaluator and self.evaluate_start and not checkpoint:
                trainer.evaluate()
            earlier = self.log.seconds if checkpoint else 0.0
            progress.add_earlier_seconds(earlier)
            output = trainer.train(resume_from_checkpoint=checkpoint)
        self.checkpoints.require_finished(self.log.stage)
        self.best.restore(self.model)
        return Effort(output.global_step, earlier + output.metrics["train_runtime"], earlier)

    def _trainer(self) -> BaseTrainer:
        from transformers import PrinterCallback

        arguments = on_one_gpu(self.arguments())
        if group.rank():
            arguments.report_to = []
        elif trackers(self.engine):
            arguments.run_name = self.name
        callbacks = [self.log, self.best, self.checkpoints] if self.evaluator else [self.log, self.checkpoints]
        trainer = TRAINERS[self.model.model_type](
            model=self.model,
            args=arguments,
            train_dataset=self.dataset,
            data_collator=self.collator,
            loss=self.loss,
            evaluator=self.evaluator,
            callbacks=callbacks,
        )
        trainer.remove_callback(PrinterCallback)  # progress is reported already; this one prints raw dictionaries
        return trainer

    def run_and_report(self) -> dict[str, Any]:
        """Train in a process of a group, and return what `adopt` needs."""
        logging.set_verbosity_error()  # transformers advises a start with torchrun
        for network in self.networks():  # what transformers notes when it creates a model, and not when it is unpickled
            _CAN_RECORD_REGISTRY[network] = network._can_record_outputs
        effort = self.run()
        group.require_equal(model_fingerprint(self.model), "weights")
        return {**self.checkpoints.state(), "effort": tuple(effort)}

    def networks(self) -> list[PreTrainedModel]:
        """The transformers in the model."""
        return [module for module in self.model.modules() if isinstance(module, PreTrainedModel)]

    def make_portable(self) -> None:
        """Remove what cannot be sent to another process: hooks that transformers installs again when it needs them."""
        for network in self.networks():
            network._output_capturing_hooks_installed = False
            for hooks in [module._forward_hooks for module in network.modules()]:
                for key in [key for key, hook in hooks.items() if hook.__module__ == output_capturing.__name__]:
                    del hooks[key]

    def adopt(self, report: Mapping[str, Any]) -> Effort:
        """Take over weights, log and best dev value from a group that ran a copy of this training."""
        self.checkpoints.restore(report)
        effort = Effort(*report["effort"])
        progress.add_earlier_seconds(effort.earlier)
        return effort
