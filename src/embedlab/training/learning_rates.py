"""Discriminative learning rates: lower rates for lower layers, and a separate rate for the token embeddings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from embedlab.errors import ModelError
from embedlab.models.layers import layer_count, layers_name

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def learning_rates(
    model: SentenceTransformer, learning_rate: float, *, layer_decay: float = 1.0, embedding_rate: float = 1.0
) -> dict[str, float]:
    """Compute learning rates by parameter name, for the Trainer's `learning_rate_mapping`.

    With L layers, layer l (0 at the bottom) gets `learning_rate * layer_decay ** (L - 1 - l)` and the embeddings get
    `learning_rate * layer_decay ** L`. The top layer and the modules above it learn at the full rate (Howard and
    Ruder, ULMFiT, ACL 2018). The rate of the token embeddings is also multiplied by `embedding_rate`.

    Args:
        model: its first module is a transformer; see `models.layers.layer_count`.
        learning_rate: rate of the top layer.
        layer_decay: factor from one layer to the layer below.
        embedding_rate: factor on the rate of the token embeddings.

    Returns:
        Regular expression -> rate. If two patterns match a name, the later one applies. Empty when both factors are 1.

    Raises:
        ModelError: the architecture has no plain list of layers, or no token embeddings.
    """
    rates: dict[str, float] = {}
    if layer_decay != 1:
        layers = layer_count(model)
        rates[r"\.embeddings\w*\."] = learning_rate * layer_decay**layers
        stack = re.escape(layers_name(model).split(".")[-1])  # "layer" in BERT, "layers" in ModernBERT, …
        rates |= {rf"\.{stack}\.{n}\.": learning_rate * layer_decay ** (layers - 1 - n) for n in range(layers)}
    if layer_decay != 1 or embedding_rate != 1:
        bottom = rates.get(r"\.embeddings\w*\.", learning_rate)
        rates[rf"\.{re.escape(_token_embeddings_name(model))}\."] = bottom * embedding_rate
    return rates


def _token_embeddings_name(model: SentenceTransformer) -> str:
    """Name of the module that maps token ids to vectors."""
    network: Any = getattr(model[0], "model", None)
    embeddings = network.get_input_embeddings() if hasattr(network, "get_input_embeddings") else None
    for name, module in model.named_modules():
        if module is embeddings:
            return name
    problem = f"{type(network or model[0]).__name__} has no separate token embeddings"
    raise ModelError(problem, remedy="Set embedding_rate=1", field="embedding_rate")
