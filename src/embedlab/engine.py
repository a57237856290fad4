"""The parameters that every training has, whatever its technique: precision, memory, text lengths, schedule, processes.

A notebook has them in one parameter `engine`, a dict that is empty by default. On the command line and in sweeps you
set single entries: `-p engine.precision=bf16`. `training.engine` turns them into arguments of the Trainer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from embedlab.checked import Checked

Precision = Literal["fp32", "bf16", "fp16", "tf32"]
Schedule = Literal["linear", "cosine", "constant", "inverse_sqrt"]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
CountOrNone = Annotated[int, Field(ge=0)]


class EngineParams(Checked):
    """How trainings run. The defaults change nothing.

    Attributes:
        precision: "fp32"; "bf16" or "fp16" compute in half precision and keep the weights in float32; "tf32" uses the
            tensor cores of a GPU for float32.
        gradient_accumulation: batches whose gradients are averaged before a step.
        gradient_checkpointing: compute activations again in the backward pass instead of keeping them.
        max_seq_length: tokens after which a text is truncated; 0 is the model's own limit.
        query_prompt, document_prompt: put before every query or document: the name of a prompt that is saved with the
            model, or a text; None is the model's own, "" is none.
        warmup: share of the steps in which the learning rate rises to its peak.
        schedule: of the learning rate after the warm-up.
        weight_decay: of AdamW; None is the technique's own.
        compile: compile the transformer with `torch.compile`.
        workers: processes that prepare batches; 0 prepares them in the training process.
        report_to: a tracker that receives the training log, such as "tensorboard", or several, separated by commas.
        checkpoint_minutes: time between checkpoints, from which a killed training continues; 0 writes them only when a
            time limit ends the run.
        gpus: GPUs of this machine that one training uses; 0 is one GPU if there is one.
        processes: processes that one training uses on CPU; 0 is one, the training process itself.
    """

    GROUP: ClassVar[str] = "engine"
    NEUTRAL: ClassVar[tuple[str, ...]] = ("workers", "report_to", "checkpoint_minutes")  # these change no result

    precision: Precision = "fp32"
    gradient_accumulation: Annotated[int, Field(gt=0)] = 1
    gradient_checkpointing: bool = False
    max_seq_length: Annotated[int, Field(ge=0)] = 0
    query_prompt: str | None = None
    document_prompt: str | None = None
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    schedule: Schedule = "linear"
    weight_decay: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None
    compile: bool = False
    workers: CountOrNone = 0
    report_to: str = "none"
    checkpoint_minutes: NotNegative = 5.0
    gpus: CountOrNone = 0
    processes: CountOrNone = 0

    def texts(self) -> dict[str, Any]:
        """Return how texts are read, as keyword arguments of `load_model`."""
        return {
            "max_seq_length": self.max_seq_length or None,
            "query_prompt": self.query_prompt,
            "document_prompt": self.document_prompt,
        }

    def changes(self) -> dict[str, Any]:
        """Return the entries that differ from the defaults, ready for JSON."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def deciding(self) -> dict[str, Any]:
        """Return the entries that differ from the defaults and can change the weights."""
        return {name: value for name, value in self.changes().items() if name not in self.NEUTRAL}


def as_engine(value: Any) -> Any:
    """Return the parameters that a dict describes; everything else is left to the type check.

    Raises:
        ParameterError: an entry that does not exist, or has an impossible value.
    """
    return EngineParams.checked(value) if isinstance(value, Mapping) else value


Engine = Annotated[EngineParams, BeforeValidator(as_engine)]  # a field that takes a dict
