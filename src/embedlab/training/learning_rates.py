"""Other learning rates for other parts of a transformer: lower towards the bottom, another one for the token table."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from embedlab.errors import ModelError
from embedlab.models.layers import layer_count

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def learning_rates(
    model: SentenceTransformer, learning_rate: float, *, layer_decay: float = 1.0, embedding_rate: float = 1.0
) -> dict[str, float]:
    """Pattern of parameter names -> peak learning rate, as the Trainer takes it in `learning_rate_mapping`.

    Of L layers, layer l (from 0 at the bottom) gets `learning_rate * layer_decay ** (L - 1 - l)` and everything in the
    embeddings `learning_rate * layer_decay ** L`: the top layer, and whatever stands above it, learns at the full rate
    (Howard and Ruder, ULMFiT, ACL 2018). The table of token embeddings is multiplied by `embedding_rate` on top of it.

    Args:
        model: its first module is a transformer; see `models.layers.layer_count`.
        learning_rate: of the top layer.
        layer_decay: factor from one layer to the one below.
        embedding_rate: factor on the rate of the token table alone.

    Returns:
        Where two patterns match a name, the later one holds. Empty when both factors are 1, so that nothing is changed.

    Raises:
        ModelError: the architecture has no plain list of layers, or no table of token embeddings.
    """
    rates: dict[str, float] = {}
    if layer_decay != 1:
        layers = layer_count(model)
        rates[r"\.embeddings\w*\."] = learning_rate * layer_decay**layers
        rates |= {rf"\.layer\.{n}\.": learning_rate * layer_decay ** (layers - 1 - n) for n in range(layers)}
    if embedding_rate != 1:
        bottom = rates.get(r"\.embeddings\w*\.", learning_rate)
        rates[rf"\.{re.escape(_token_table(model))}\."] = bottom * embedding_rate
    return rates


def _token_table(model: SentenceTransformer) -> str:
    """Name of the module that maps token ids to vectors."""
    network = getattr(model[0], "model", None)
    table = network.get_input_embeddings() if hasattr(network, "get_input_embeddings") else None
    for name, module in model.named_modules():
        if module is table:
            return name
    problem = f"{type(network or model[0]).__name__} has no token embeddings beside its layers"
    raise ModelError(problem, remedy="Leave embedding_rate at 1", field="embedding_rate")
