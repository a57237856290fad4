"""Engine parameters as arguments of the Trainer, and as the state of a model while it trains.

Precision, accumulation, schedule, weight decay, workers and trackers are arguments of sentence-transformers' Trainer.
Three things are done here instead, because losses call parts of the model without the Trainer's wrapper (masked
language modelling reads token vectors, 2D Matryoshka reads every layer): autocast and compilation are put around the
transformer itself, and its layers are told to compute activations again. All three end with the training.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from embedlab import paths
from embedlab.engine import EngineParams
from embedlab.errors import ModelError, ParameterError
from embedlab.io import locked
from embedlab.models.cross_encoder import is_cross_encoder
from embedlab.models.layers import layers_of
from embedlab.models.load import within_positions
from embedlab.models.prompts import choose_prompts
from embedlab.models.sides import is_static

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

logger = logging.getLogger(__name__)

# Names of trackers in transformers -> packages, one of which must be installed.
TRACKERS = {
    "clearml": ("clearml",),
    "codecarbon": ("codecarbon",),
    "comet_ml": ("comet_ml",),
    "dvclive": ("dvclive",),
    "mlflow": ("mlflow",),
    "swanlab": ("swanlab",),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}
# Environment variables that keep a tracker on this machine, unless you set them yourself. FOLDER is results/TRACKER.
LOCAL: dict[str, dict[str, str]] = {
    "tensorboard": {"TENSORBOARD_LOGGING_DIR": "FOLDER/NAME"},
    "mlflow": {
        "MLFLOW_TRACKING_URI": "sqlite:///FOLDER/mlflow.db",
        "MLFLOW_EXPERIMENT_NAME": "embedlab",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    },
    "trackio": {"TRACKIO_DIR": "FOLDER"},
    "wandb": {
        "WANDB_MODE": "offline",
        "WANDB_DIR": "FOLDER",
        "WANDB_PROJECT": "embedlab",
        "WANDB_CONSOLE": "off",  # what the notebook prints, such as training texts, stays out of the log
        "WANDB_DISABLE_CODE": "true",
        "WANDB_DISABLE_GIT": "true",
        "WANDB_ERROR_REPORTING": "false",
    },
}
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
# What a static model has no use for: it looks up and averages vectors, without a transformer, a limit or prompts.
NOT_STATIC = (
    *("precision", "gradient_checkpointing", "max_seq_length", "query_prompt", "document_prompt"),
    *("weight_decay", "compile"),
)
NOT_CROSS_ENCODER = ("query_prompt", "document_prompt")
_notices_shown: set[str] = set()  # notices already given in this process


def require_usable(engine: EngineParams) -> None:
    """Check that this machine can do what the parameters ask for, before any minute is spent.

    Raises:
        ParameterError: a precision without its hardware, a tracker that is unknown or not installed, or compilation
            without a compiler.
    """
    _require_precision(engine.precision)
    for tracker in trackers(engine):
        if tracker not in TRACKERS:
            problem, remedy = f"there is no tracker {tracker!r}", f"Choose none or {', '.join(TRACKERS)}"
            raise ParameterError(problem, remedy=remedy, field="engine.report_to")
        if not any(map(installed, TRACKERS[tracker])):
            problem, remedy = f"{tracker} is not installed", f"Install it: pip install {TRACKERS[tracker][0]}"
            raise ParameterError(problem, remedy=remedy, field="engine.report_to")
    if engine.compile and not torch.cuda.is_available() and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        remedy = "Install g++, or leave engine.compile out"
        raise ParameterError("torch.compile needs a C++ compiler", remedy=remedy, field="engine.compile")


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def _require_precision(precision: str) -> None:
    gpu = torch.cuda.is_available()
    if precision == "fp16" and not gpu:
        problem = "fp16 needs a CUDA GPU: its gradients vanish without loss scaling, which is made for GPUs"
        raise ParameterError(problem, remedy="Use bf16, or fp32", field="engine.precision")
    if precision == "bf16" and gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        remedy = "Use fp16, or fp32"
        raise ParameterError("this GPU does not compute in bf16", remedy=remedy, field="engine.precision")
    if precision == "tf32" and not _has_tf32():
        _tell("tf32 has no effect here: it needs a CUDA GPU of compute capability 8.0 or higher")


def _has_tf32() -> bool:
    return torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 8


def trackers(engine: EngineParams) -> list[str]:
    """Return the names in `report_to`; empty for "none"."""
    names = [name.strip() for name in engine.report_to.split(",")]
    return [name for name in names if name not in ("", "none")]


def applicable(model: SentenceTransformer | CrossEncoder, engine: EngineParams) -> EngineParams:
    """Leave out what does not apply to a kind of model, and log each entry once.

    Args:
        model: the model to train.
        engine: engine parameters.

    Raises:
        ModelError: the transformer cannot compute its activations again.
    """
    static = is_static(model)
    kind = "static models" if static else "cross-encoders"
    names = NOT_STATIC if static else NOT_CROSS_ENCODER if is_cross_encoder(model) else ()
    for name in engine.changes().keys() & {*names}:
        _tell(f"engine.{name} does not apply to {kind} and is left out there")
    if engine.gradient_checkpointing and not static:
        _require_checkpointing(model)
    return engine.model_copy(update={name: EngineParams.model_fields[name].default for name in names})


def _require_checkpointing(model: Any) -> None:
    network = getattr(model[0], "model", None)
    if getattr(network, "supports_gradient_checkpointing", False):
        return
    try:
        layers_of(model)
    except (ModelError, AttributeError):
        problem = f"{type(network or model[0]).__name__} cannot compute its activations again"
        remedy = "Leave gradient_checkpointing out; smaller batches, or the loss cached, save memory too"
        raise ModelError(problem, remedy=remedy, field="engine.gradient_checkpointing") from None


def prepare(model: SentenceTransformer | CrossEncoder, engine: EngineParams) -> None:
    """Set the limit and the prompts of a model, in place; both are saved with it.

    Call this before texts are tokenised. Every training of this package does.

    Args:
        model: the model to train.
        engine: engine parameters; entries that do not apply to the model are left out.

    Raises:
        ModelError: the model has too few positions for the limit.
    """
    engine = applicable(model, engine)
    if engine.max_seq_length:
        model.max_seq_length = within_positions(model, engine.max_seq_length, "the model")
    if engine.query_prompt is not None or engine.document_prompt is not None:
        choose_prompts(model, engine.query_prompt, engine.document_prompt)


def require_prepared(model: SentenceTransformer | CrossEncoder, engine: EngineParams) -> None:
    """Check that `prepare` was called before the texts were tokenised.

    Raises:
        ParameterError: the model has another limit or other prompts.
    """
    engine = applicable(model, engine)
    expected = {"max_seq_length": engine.max_seq_length or model.max_seq_length}
    current: dict[str, Any] = {"max_seq_length": model.max_seq_length}
    for role, prompt in (("query", engine.query_prompt), ("document", engine.document_prompt)):
        if prompt is not None:
            expected[f"{role}_prompt"] = model.prompts.get(prompt, prompt)
            current[f"{role}_prompt"] = model.prompts.get(role, "")
    for name, value in expected.items():
        if current[name] != value:
            problem = f"the texts were tokenised with {name} {current[name]!r}, but the engine has {value!r}"
            remedy = "Call training.engine.prepare(model, engine) before you make the batches"
            raise ParameterError(problem, remedy=remedy, field=f"engine.{name}")


def trainer_arguments(engine: EngineParams) -> dict[str, Any]:
    """Return the arguments of sentence-transformers' Trainer for the parameters; those of the defaults change nothing.

    Args:
        engine: engine parameters.
    """
    constant = engine.schedule == "constant"  # in transformers, "constant" has no warm-up
    return {
        "warmup_steps": engine.warmup,
        "lr_scheduler_type": "constant_with_warmup" if constant else engine.schedule,
        "gradient_accumulation_steps": engine.gradient_accumulation,
        "bf16": engine.precision == "bf16",
        "fp16": engine.precision == "fp16",
        "use_cpu": engine.precision == "bf16" and not torch.cuda.is_available(),
        "dataloader_num_workers": engine.workers,
        "report_to": trackers(engine) or "none",
    }


@contextmanager
def engaged(model: SentenceTransformer | CrossEncoder, engine: EngineParams) -> Iterator[None]:
    """Make the transformer of a model compute as the parameters say, as long as the block runs.

    Args:
        model: the model to train.
        engine: from `applicable`.
    """
    transformer: Any = model[0]
    with ExitStack() as stack:
        if engine.precision in HALF:
            stack.enter_context(_autocast(transformer, HALF[engine.precision]))
        if engine.precision == "tf32" and _has_tf32():
            stack.enter_context(_tf32())
        if engine.gradient_checkpointing:
            stack.enter_context(_checkpointing(model))
        if engine.compile:
            stack.enter_context(_compiled(transformer.model))
        yield


@contextmanager
def tracked(engine: EngineParams, name: str) -> Iterator[None]:
    """Let the trackers of a training write to the results folder, unless the environment says otherwise.

    TensorBoard's own choice, the Trainer's folder, is removed after a training; others would send the log to a server.

    Args:
        engine: engine parameters.
        name: of the training.
    """
    chosen_here: dict[str, str] = {}
    for tracker in trackers(engine):
        folder = paths.results_dir() / tracker
        defaults = {key: value for key, value in LOCAL.get(tracker, {}).items() if key not in os.environ}
        if any("FOLDER" in value for value in defaults.values()):
            folder.mkdir(parents=True, exist_ok=True)
            logger.warning("%s: the log of %s is in %s", tracker, name, paths.shown(folder))
        chosen_here |= {
            key: value.replace("FOLDER", str(folder)).replace("NAME", name) for key, value in defaults.items()
        }
    os.environ.update(chosen_here)
    if "MLFLOW_TRACKING_URI" in chosen_here:
        _create_mlflow_store(paths.results_dir() / "mlflow")
    earlier = _wandb_run()
    try:
        yield
    finally:
        if (run := _wandb_run()) is not None and run is not earlier:
            run.finish()  # or the next training of this process would continue the same run
        for key in chosen_here:
            os.environ.pop(key, None)


def _create_mlflow_store(folder: Path) -> None:
    """Create MLflow's database and experiment; runs of a sweep that did so at the same time would fail."""
    import mlflow

    with locked(folder / "mlflow.lock"):
        mlflow.set_experiment(os.environ["MLFLOW_EXPERIMENT_NAME"])


def _wandb_run() -> Any:
    """The run that W&B has open in this process; None if there is none."""
    return getattr(sys.modules.get("wandb"), "run", None)


@contextmanager
def _autocast(transformer: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Run a module in half precision while it trains; its outputs and its weights stay float32.

    In evaluation it computes in float32, so that dev values before, during and after a training are comparable.
    """
    forward: Callable[..., Any] = transformer.forward

    @functools.wraps(forward)
    def in_half(*args: Any, **kwargs: Any) -> Any:
        if not transformer.training:
            return forward(*args, **kwargs)
        device = next(transformer.parameters()).device.type
        with torch.autocast(device_type=device, dtype=dtype):
            output = forward(*args, **kwargs)
        return _as_float(output)

    with _forward(transformer, in_half):
        yield


@contextmanager
def _forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Replace the forward pass of a module inside the block."""
    module.forward = forward
    try:
        yield
    finally:
        del module.__dict__["forward"]


@contextmanager
def _checkpointing(model: Any) -> Iterator[None]:
    """Compute the activations of every layer again in the backward pass."""
    network = model[0].model
    if network.supports_gradient_checkpointing:
        network.activation_checkpointing_enable({"use_reentrant": False})
        try:
            yield
        finally:
            network.activation_checkpointing_disable()
        return
    with ExitStack() as stack:
        for layer in layers_of(model):  # MPNet, for example: transformers has nothing for it
            stack.enter_context(_forward(layer, _recomputed(layer, layer.forward)))
        yield


def _recomputed(layer: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def again(*args: Any, **kwargs: Any) -> Any:
        if not (layer.training and torch.is_grad_enabled()):
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return again


@contextmanager
def _compiled(network: nn.Module) -> Iterator[None]:
    """Compile a network. sentence-transformers calls `forward` itself, so `Module.compile` would have no effect."""
    with _forward(network, torch.compile(network.forward, dynamic=True)):
        yield


def _as_float(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {name: _as_float(item) for name, item in value.items()}
    return tuple(map(_as_float, value)) if isinstance(value, tuple) else value


@contextmanager
def _tf32() -> Iterator[None]:
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    settings = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = True
        yield
    finally:
        for backend, allowed in zip(backends, settings, strict=True):
            backend.allow_tf32 = allowed


def without_autocast(prepare_model: Callable[..., Any], accelerator: Any) -> Callable[..., Any]:
    """Keep accelerate from putting its autocast around a model's forward pass, in favour of that of `engaged`.

    Its autocast would cover dev evaluations too, and would stay there after the training.

    Args:
        prepare_model: the accelerator's method.
        accelerator: its loss scaling is not changed.
    """

    def prepare(*args: Any, **kwargs: Any) -> Any:
        autocast, accelerator.native_amp = accelerator.native_amp, False
        try:
            return prepare_model(*args, **kwargs)
        finally:
            accelerator.native_amp = autocast

    return prepare


def _tell(notice: str) -> None:
    """Log a notice once per process: a run has many trainings."""
    if notice not in _notices_shown:
        _notices_shown.add(notice)
        logger.warning(notice)
