"""Resume a training that was killed: checkpoints that contain everything the next step depends on.

A killed training, started again with the same model, rows, loss and settings, continues from its last checkpoint and
ends with exactly the weights that it would have reached (bit for bit on CPU). The Trainer saves optimizer, schedule and
random state. We add the weights of the model and of the loss, the state of losses and collators that draw at random,
and the best weights on dev so far.

The folder of a training is named by a hash of everything that the weights depend on, so nobody has to say what to
resume. Checkpoints are written every few minutes and removed at the end. Trainings shorter than that write none.

The driver of a run asks its training to stop when the run's time limit is near (`progress.stop_requested`). The
training then writes a checkpoint and ends with `StoppedAtCheckpoint`.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import logging
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sentence_transformers import (
    CrossEncoderTrainer,
    MultiVectorEncoderTrainer,
    SentenceTransformer,
    SentenceTransformerTrainer,
    SparseEncoderTrainer,
)
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

import embedlab
from embedlab import progress
from embedlab.errors import StoppedAtCheckpoint, StorageError
from embedlab.io import atomic_path, locked, sha256_of_json
from embedlab.models.fingerprint import model_fingerprint
from embedlab.paths import cache_dir
from embedlab.training import finished, group
from embedlab.training.engine import without_autocast

if TYPE_CHECKING:
    import datasets
    from sentence_transformers import CrossEncoder
    from torch import nn

    from embedlab.training.callbacks import KeepBest, ProgressReport

logger = logging.getLogger(__name__)

STATE_FILE = "embedlab_state.pt"  # written last, so a checkpoint with this file is complete
ABANDONED_DAYS = 14  # checkpoints of a killed training that nobody started again
_BYTES_PER_WEIGHT = 20  # weights, two moments of AdamW and the best weights in float32, and some room


class _LeavesWeights:
    """Leaves the model's weights in a checkpoint to `Checkpoints`, and autocast to `training.engine`.

    The usual way saves and loads a model folder, which LoRA adapters and models from memory do not survive.
    """

    args: TrainingArguments
    accelerator: Any

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()  # type: ignore[misc]
        self.accelerator.prepare_model = without_autocast(self.accelerator.prepare_model, self.accelerator)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        Path(output_dir or self.args.output_dir).mkdir(parents=True, exist_ok=True)

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:
        pass


class ResumableTrainer(_LeavesWeights, SentenceTransformerTrainer):
    """The Trainer of embedding models, with the checkpoints of this module."""


class ResumableCrossEncoderTrainer(_LeavesWeights, CrossEncoderTrainer):
    """The Trainer of cross-encoders, with the checkpoints of this module."""


class ResumableSparseTrainer(_LeavesWeights, SparseEncoderTrainer):
    """The Trainer of sparse models, with the checkpoints of this module."""


class ResumableMultiVectorTrainer(_LeavesWeights, MultiVectorEncoderTrainer):
    """The Trainer of late-interaction models, with the checkpoints of this module."""


class Checkpoints(TrainerCallback):
    """Write checkpoints of one training, and restore the newest.

    Args:
        folder: folder of this training only; None writes and reads nothing.
        minutes: time between checkpoints; 0 writes one only when the driver asks to stop.
        loss: its parameters that are not the model's are saved.
        model: the model being trained.
        collator: its state is saved if it has `training_state` and `restore_training_state`.
        parts: callbacks whose state is saved, `ProgressReport` and `KeepBest`.
    """

    def __init__(
        self,
        folder: Path | None,
        minutes: float,
        *,
        loss: nn.Module | Mapping[str, nn.Module],
        model: nn.Module,
        collator: Any,
        parts: Mapping[str, ProgressReport | KeepBest],
    ) -> None:
        self.folder, self.minutes, self.parts = folder, minutes, parts
        self._losses = dict(loss) if isinstance(loss, Mapping) else {"": loss}
        self._model, self._collator = model, collator
        self._last = time.monotonic()
        self._warned = False
        self._stopped: tuple[int, int] | None = None  # step and steps of a training that was asked to stop

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        folder = self.folder
        if folder is None or state.global_step >= state.max_steps:
            return
        due = self.minutes and time.monotonic() - self._last >= 60 * self.minutes
        stop = group.from_first(progress.stop_requested)
        if group.from_first(lambda: bool(due or stop) and self.has_room(folder)):
            control.should_save = True
            if stop:
                control.should_training_stop = True
                self._stopped = state.global_step, state.max_steps

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        assert self.folder is not None  # the only reason to save
        batches = batches_seen(state.global_step, args.gradient_accumulation_steps, kwargs.get("train_dataloader"))
        if group.rank() == 0:
            with atomic_path(self.folder / f"checkpoint-{state.global_step}" / STATE_FILE) as temporary:
                torch.save(self.state(batches), temporary)
        self._last = time.monotonic()

    def require_finished(self, stage: str) -> None:
        """Check that the training was not asked to stop.

        Args:
            stage: name of the training.

        Raises:
            StoppedAtCheckpoint: it was, and its checkpoint is written.
        """
        if self._stopped:
            step, steps = self._stopped
            problem = f"{stage}: stopped at step {step} of {steps}, with a checkpoint, because time is up"
            raise StoppedAtCheckpoint(problem, remedy="Start it again: it continues from there")

    def has_room(self, folder: Path) -> bool:
        """Whether the disk of a folder has room for a checkpoint; warns once if it has not."""
        weights = sum(parameter.numel() for parameter in self._model.parameters())
        room = shutil.disk_usage(folder).free > weights * _BYTES_PER_WEIGHT
        if not room and not self._warned:
            self._warned = True
            logger.warning("no checkpoints: the disk of %s is nearly full. Free some space there.", self.folder)
        return room

    def _heads(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return the parameters of each loss that are not parameters of the model."""
        models = {id(parameter) for parameter in self._model.parameters()}
        return {
            task: {name: value.data for name, value in loss.named_parameters() if id(value) not in models}
            for task, loss in self._losses.items()
        }

    def _stateful(self) -> dict[str, Any]:
        named = {f"loss {task}": loss for task, loss in self._losses.items()} | {"collator": self._collator}
        return {name: value for name, value in named.items() if hasattr(value, "training_state")} | dict(self.parts)

    def state(self, batches: int = 0) -> dict[str, Any]:
        """Return everything that a training changes, apart from what the Trainer saves.

        Args:
            batches: number of batches used so far.
        """
        states = {name: value.training_state(batches) for name, value in self._stateful().items()}
        return {"weights": self._model.state_dict(), "heads": self._heads(), "states": states}

    def resume(self) -> str | None:
        """Restore the newest complete checkpoint, apart from what the Trainer restores (optimizer, random state …).

        Returns:
            The folder of the checkpoint, for `Trainer.train`; None without one.
        """
        complete = [file.parent for file in self.folder.glob(f"checkpoint-*/{STATE_FILE}")] if self.folder else []
        if not complete:
            return None
        newest = max(complete, key=lambda path: int(path.name.rpartition("-")[2]))
        self.restore(torch.load(newest / STATE_FILE, map_location="cpu", weights_only=True))
        if group.rank() == 0:
            logger.warning("continue the training from step %s", newest.name.rpartition("-")[2])
        return str(newest)

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self._model.load_state_dict(saved["weights"])
        for task, head in saved["heads"].items():
            self._losses[task].load_state_dict(head, strict=False)
        for name, value in self._stateful().items():
            if name in saved["states"]:
                value.restore_training_state(saved["states"][name])


def batches_seen(step: int, accumulation: int, dataloader: Any) -> int:
    """Return how many batches a number of steps has used up; the last step of an epoch may take fewer.

    Args:
        step: steps taken.
        accumulation: batches per step.
        dataloader: its length is the number of batches per epoch.
    """
    if accumulation == 1:
        return step
    per_epoch = len(dataloader)
    epochs, steps = divmod(step, -(-per_epoch // accumulation))
    return epochs * per_epoch + steps * accumulation


@contextlib.contextmanager
def checkpoint_folder(identity: str) -> Iterator[Path | None]:
    """Reserve the checkpoint folder of a training for this process, and clear it when the block ends without error.

    The result of a finished training stays in it until its run has a record, see `finished`.

    Args:
        identity: from `training_identity`.

    Yields:
        The folder; None if another process runs the same training, or the cache cannot be written.
    """
    root = cache_dir() / "checkpoints"
    folder = root / identity
    with contextlib.ExitStack() as stack:
        try:
            _remove_abandoned(root)
            stack.enter_context(locked(folder / "lock", wait=False))
        except (StorageError, OSError) as error:
            logger.warning("no checkpoints for this training (%s)", error)
            yield None
            return
        yield folder
        removable = folder.glob("checkpoint-*") if (folder / finished.FILE).exists() else [folder]
        for path in removable:
            shutil.rmtree(path, ignore_errors=True)


def _remove_abandoned(root: Path) -> None:
    oldest = time.time() - ABANDONED_DAYS * 24 * 3600
    for folder in root.glob("*"):
        if max((path.stat().st_mtime for path in (folder, *folder.glob("*"))), default=oldest) < oldest:
            with contextlib.suppress(StorageError), locked(folder / "lock", wait=False):
                shutil.rmtree(folder, ignore_errors=True)


def training_identity(
    model: SentenceTransformer | CrossEncoder,
    dataset: datasets.Dataset | Mapping[str, datasets.Dataset],
    loss: nn.Module | Mapping[str, nn.Module],
    settings: Mapping[str, Any],
    collator: Any,
    evaluator: Any,
    stage: str,
) -> str:
    """Hash everything that the weights after a training depend on to 16 hex digits.

    Args:
        model: before the training.
        dataset: training rows, or task name -> rows.
        loss: all its values count, such as a teacher's vectors.
        settings: name -> value, without the interval between checkpoints.
        collator: all its values count, such as texts and prompts.
        evaluator: all its values count, such as dev queries.
        stage: name of the training.
    """
    if not isinstance(model, SentenceTransformer):  # a list of modules as well
        fingerprint = model_fingerprint(SentenceTransformer(modules=list(model), device=str(model.device)))
    else:
        fingerprint = model_fingerprint(model)
    content = {
        "model": fingerprint,
        "rows": _Digest(model).of(dataset),
        "loss": _Digest(model).of(loss),
        "collator": _Digest(model).of(collator),
        "evaluator": _Digest(model).of(evaluator),
        "settings": dict(settings),
        "stage": stage,
        "code": _code_digest(),
        "packages": [metadata.version(name) for name in ("torch", "transformers", "sentence-transformers")],
    }
    return sha256_of_json(content)[:16]


_ENVIRONMENT = ("transformers", "tokenizers", "functools", "logging")  # objects with paths, or without content


class _Digest:
    """SHA-256 over values of any kind, without models, functions and memory addresses."""

    def __init__(self, model: nn.Module) -> None:
        self._model_modules = {id(module) for module in model.modules()}
        self._sha = hashlib.sha256()
        self._open: set[int] = set()  # objects on the way to the current one, against circles

    def of(self, value: Any) -> str:
        self._add(value)
        return self._sha.hexdigest()

    def _add(self, value: Any) -> None:
        self._sha.update(type(value).__name__.encode())
        if id(value) in self._model_modules or id(value) in self._open:
            return
        self._open.add(id(value))
        self._add_content(value)
        self._open.discard(id(value))

    def _add_content(self, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            self._add_content(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        elif isinstance(value, np.ndarray):
            self._sha.update(repr((value.shape, value.dtype.str)).encode() + np.ascontiguousarray(value).tobytes())
        elif isinstance(value, torch.Generator):
            self._add_content(value.get_state())
        elif value is None or isinstance(value, (bool, int, float, str, bytes)):
            self._sha.update(repr(value).encode())
        elif isinstance(value, (set, frozenset)):
            self._add_all(sorted(value, key=repr))
        elif isinstance(value, Mapping | Sequence):
            self._add_container(value)
        elif hasattr(value, "with_format"):  # a dataset
            self._add_all(batch.to_pydict() for batch in value.with_format("arrow").iter(batch_size=10_000))
        elif not (inspect.isroutine(value) or type(value).__module__.startswith(_ENVIRONMENT)):
            self._add_all(sorted(getattr(value, "__dict__", {}).items()))

    def _add_container(self, value: Mapping[Any, Any] | Sequence[Any]) -> None:
        try:  # texts and numbers at once: one by one, a large corpus would take seconds
            self._sha.update(json.dumps(value, default=_as_json).encode())
        except (TypeError, ValueError, RecursionError):
            self._add_all(value.items() if isinstance(value, Mapping) else value)

    def _add_all(self, values: Iterable[Any]) -> None:
        for value in values:
            self._add(value)


def _as_json(value: Any) -> Any:
    """Return sets and mappings of other types as JSON can hold them, in an order that does not depend on the run."""
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError


def _code_digest() -> str:
    package = Path(embedlab.__file__).parent
    files = sorted(file for folder in ("training", "models") for file in (package / folder).rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
