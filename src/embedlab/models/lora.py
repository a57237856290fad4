"""Low-rank adapters: train few numbers beside frozen weights, then add them to the weights.

LoRA, Hu et al., ICLR 2022, by peft: a linear layer's `W x` becomes `W x + (alpha / r) B A x` with A (r, in) and
B (out, r); B starts at zero, so that training starts from the unchanged model. Merged, the model is a plain one again
and costs nothing extra.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from embedlab.errors import ModelError, ParameterError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

ADAPTER = "adapter_model.safetensors"
BYTES_PER_WEIGHT = 4  # float32; training holds three more of them: the gradient and Adam's two moments
UNUSED = ["pooler.dense"]  # BERT's own pooler stands behind what sentence embeddings are pooled from


def add_lora(
    model: SentenceTransformer, rank: int, *, alpha: float | None = None, dropout: float = 0.0, seed: int = 0
) -> None:
    """Freeze `model` and put a trainable adapter beside every linear layer of its transformer, in place.

    Args:
        model: its first module is a transformer without an adapter.
        rank: r.
        alpha: `alpha / r` scales the adapter's output; 2 r when None, so that the scale does not depend on the rank.
        dropout: on the adapter's input.
        seed: of A.

    Raises:
        ParameterError: the rank is below 1.
        ModelError: the model has no transformer, or an adapter already.
    """
    if rank < 1:
        raise ParameterError(f"the rank is {rank}", remedy="Choose 1 or more", field="lora_rank")
    _require_transformer(model)
    from peft import LoraConfig

    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules="all-linear",
        exclude_modules=[name for name in UNUSED if _has(model, name)] or None,
    )
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.add_adapter(config)


def has_lora(model: SentenceTransformer) -> bool:
    """Whether an adapter stands beside the weights."""
    return getattr(getattr(model[0], "model", None), "_hf_peft_config_loaded", False)


def merge_lora(model: SentenceTransformer) -> SentenceTransformer:
    """Add the adapter to the weights, in place: a plain model, wholly trainable, with the same embeddings.

    Raises:
        ModelError: there is no adapter.
    """
    _require_adapter(model)
    from peft.tuners.lora import LoraLayer

    network = model[0].model
    adapted = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, LoraLayer)]
    for name, layer in adapted:
        layer.merge(safe_merge=True)
        network.set_submodule(name, layer.get_base_layer())
    del network.peft_config
    network._hf_peft_config_loaded = False
    return model.requires_grad_(True)


def save_lora(model: SentenceTransformer, folder: Path) -> int:
    """Save the adapter alone, in peft's format; returns the bytes of its weights.

    Raises:
        ModelError: there is no adapter.
    """
    _require_adapter(model)
    model[0].model.save_pretrained(str(folder))
    return (folder / ADAPTER).stat().st_size


def load_lora(model: SentenceTransformer, folder: Path) -> None:
    """Put a saved adapter beside the weights of the model it was trained on, in place, to use or to train on.

    Raises:
        ModelError: the folder holds no adapter, or `model` has one already or no transformer.
    """
    _require_transformer(model)
    if not (folder / ADAPTER).exists():
        raise ModelError("holds no adapter", remedy=f"Give a folder with {ADAPTER}", file=folder)
    model.requires_grad_(False)
    model.load_adapter(str(folder), is_trainable=True)


def trainable_parameters(model: SentenceTransformer) -> int:
    """How many numbers training changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def training_bytes(model: SentenceTransformer) -> int:
    """Memory of weights, gradients and Adam's two moments; activations come on top and depend on the batch."""
    weights = sum(parameter.numel() for parameter in model.parameters())
    return BYTES_PER_WEIGHT * (weights + 3 * trainable_parameters(model))


def _has(model: SentenceTransformer, name: str) -> bool:
    return any(module == name or module.endswith(f".{name}") for module, _ in model[0].model.named_modules())


def _require_transformer(model: SentenceTransformer) -> None:
    if not model.has_peft_compatible_model():
        remedy = "Tune it whole: lora_rank=0"
        raise ModelError(f"{type(model[0]).__name__} takes no adapter", remedy=remedy, field="lora_rank")
    if has_lora(model):
        raise ModelError("the model has an adapter already", remedy="Merge it first: merge_lora", field="lora_rank")


def _require_adapter(model: SentenceTransformer) -> None:
    if not has_lora(model):
        raise ModelError("the model has no adapter", remedy="Add one first: add_lora", field="lora_rank")
