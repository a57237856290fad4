"""Low-rank adapters (LoRA): freeze the weights, train a small adapter, then merge it into the weights.

LoRA (Hu et al., ICLR 2022), implemented by peft: a linear layer computes `W x + (alpha / r) B A x` instead of `W x`,
with A of shape (r, in) and B of shape (out, r). B starts at zero, so training starts from the unchanged model. After
merging, the model is an ordinary one and inference costs nothing extra.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from embedlab.errors import ModelError, ParameterError
from embedlab.models.sides import require_one_encoder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

ADAPTER = "adapter_model.safetensors"
BYTES_PER_WEIGHT = 4  # float32; training needs three more per weight: the gradient and Adam's two moments
UNUSED = ["pooler.dense"]  # BERT's pooler comes after the token vectors that sentence embeddings are pooled from
SCALE = 2  # alpha / r, constant so that the adapter's scale does not depend on the rank


def add_lora(model: SentenceTransformer, rank: int, *, seed: int = 0) -> None:
    """Freeze `model` and add a trainable adapter to every linear layer of its transformer, in place.

    Args:
        model: its first module is a transformer without an adapter.
        rank: inner dimension r of the adapter.
        seed: for the initial values of A.

    Raises:
        ParameterError: the rank is below 1.
        ModelError: the first module is not a transformer, or the model already has an adapter.
    """
    if rank < 1:
        raise ParameterError(f"the rank must be 1 or more, got {rank}", remedy="Set lora_rank=16.", field="lora_rank")
    _require_transformer(model)
    from peft import LoraConfig

    config = LoraConfig(
        r=rank,
        lora_alpha=SCALE * rank,
        lora_dropout=0.0,
        target_modules="all-linear",
        exclude_modules=[name for name in UNUSED if _has(model, name)] or None,
    )
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.add_adapter(config)


def has_lora(model: SentenceTransformer) -> bool:
    """Whether the model has an adapter that is not merged yet."""
    return getattr(getattr(model[0], "model", None), "_hf_peft_config_loaded", False)


def merge_lora(model: SentenceTransformer) -> SentenceTransformer:
    """Merge the adapter into the weights, in place.

    Args:
        model: a model with an adapter.

    Returns:
        The same object, now an ordinary model with the same embeddings, in which every weight is trainable.

    Raises:
        ModelError: the model has no adapter.
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
    """Save only the adapter, in peft's format.

    Args:
        model: a model with an adapter.
        folder: where to save it; peft's `PeftModel.from_pretrained` reads this folder.

    Returns:
        Size of the adapter's weights in bytes.

    Raises:
        ModelError: the model has no adapter.
    """
    _require_adapter(model)
    model[0].model.save_pretrained(str(folder))
    return (folder / ADAPTER).stat().st_size


def trainable_parameters(model: SentenceTransformer) -> int:
    """Number of weights that training changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def training_bytes(model: SentenceTransformer) -> int:
    """Memory that training needs for weights, gradients and Adam's two moments.

    Activations are extra and depend on the batch size.

    Args:
        model: a model with or without an adapter; frozen weights need no gradients and moments.

    Returns:
        Bytes.
    """
    weights = sum(parameter.numel() for parameter in model.parameters())
    return BYTES_PER_WEIGHT * (weights + 3 * trainable_parameters(model))


def _has(model: SentenceTransformer, name: str) -> bool:
    return any(module == name or module.endswith(f".{name}") for module, _ in model[0].model.named_modules())


def _require_transformer(model: SentenceTransformer) -> None:
    require_one_encoder(model)
    if not model.has_peft_compatible_model():
        problem = f"LoRA needs a transformer, but the model starts with {type(model[0]).__name__}"
        raise ModelError(problem, remedy="Train all weights with lora_rank=0.", field="lora_rank")
    if has_lora(model):
        remedy = "Merge it first with merge_lora(model)."
        raise ModelError("the model already has an adapter", remedy=remedy, field="lora_rank")


def _require_adapter(model: SentenceTransformer) -> None:
    if not has_lora(model):
        remedy = "Add one first with add_lora(model, rank=16)."
        raise ModelError("the model has no adapter", remedy=remedy, field="lora_rank")
