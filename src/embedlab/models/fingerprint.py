"""A hash that is equal for two models exactly when they produce the same embeddings."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import torch

from embedlab.models.api import ApiModel
from embedlab.models.sides import is_routed, sides_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def model_fingerprint(model: SentenceTransformer) -> str:
    """Hash everything that changes an embedding.

    The hash covers the weights, the tokenizer with its truncation length, every module with its configuration
    (pooling, normalisation, projections), the prompts and the truncation dimension. It ignores the device, the batch
    size and packing, which do not change an embedding. Of an API model it covers what a request says: nobody else can
    see the weights.

    Args:
        model: any sentence-transformers model, or an API model.

    Returns:
        16 hex digits.
    """
    if isinstance(model, ApiModel):
        return model.fingerprint
    digest = hashlib.sha256()
    if is_routed(model):
        for side in sides_of(model):
            digest.update(model_fingerprint(side.model).encode())
        return digest.hexdigest()[:16]
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        raw = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)  # numpy has no bfloat16
        digest.update(raw.numpy().tobytes())
    digest.update(json.dumps(_configuration(model), sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


def _configuration(model: SentenceTransformer) -> dict[str, object]:
    tokenizer: Any = getattr(model, "tokenizer", None)
    return {
        "modules": [(type(module).__name__, _module_config(module)) for module in model],
        "vocabulary": sorted(tokenizer.get_vocab().items()) if hasattr(tokenizer, "get_vocab") else None,
        "max_seq_length": model.max_seq_length,
        "prompts": model.prompts,
        "default_prompt": model.default_prompt_name,
        "truncate_dim": model.truncate_dim,
    }


def _module_config(module: object) -> dict[str, object]:
    """The module's saved configuration, without the settings that do not affect the embedding."""
    config = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
    return {key: value for key, value in config.items() if key != "unpad_inputs"}
