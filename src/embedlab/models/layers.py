"""Build smaller transformers from a larger one: fewer layers, fewer embedding dimensions."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from embedlab.errors import ModelError, ParameterError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

LAYER_COUNTS = ("num_hidden_layers", "n_layers")  # the name in the configuration: BERT and similar, DistilBERT


def spread_layers(layer_count: int, keep: int) -> list[int]:
    """Choose `keep` layers, evenly spread from the first to the last; a single one is the last.

    >>> spread_layers(6, 3)
    [0, 2, 5]

    Raises:
        ParameterError: `keep` is below 1 or above `layer_count`.
    """
    if not 1 <= keep <= layer_count:
        problem = f"the number of layers must be between 1 and {layer_count}, got {keep}"
        raise ParameterError(problem, remedy=f"Choose 1 to {layer_count}", field="layers")
    return [layer_count - 1] if keep == 1 else [int(layer) for layer in np.linspace(0, layer_count - 1, keep)]


def keep_layers(model: SentenceTransformer, layers: Sequence[int]) -> SentenceTransformer:
    """Copy `model` with only the given transformer layers, in that order; all other weights stay.

    Students that start from some of the teacher's layers: Sanh et al., DistilBERT, 2019.

    Args:
        model: its first module is a transformer with a list of layers (BERT, RoBERTa, DistilBERT, ELECTRA, ...).
        layers: indices of the layers to keep, from 0.

    Raises:
        ModelError: the architecture has no plain list of layers.
        ParameterError: `layers` is empty, or the model does not have one of them.
    """
    student = copy.deepcopy(model)
    encoder, config = _encoder(student), student[0].model.config
    stack = encoder.layer
    if not layers or not all(0 <= layer < len(stack) for layer in layers):
        problem = f"layers must be indices from 0 to {len(stack) - 1}, got {list(layers)}"
        raise ParameterError(problem, remedy="Choose layers that the model has", field="layers")
    encoder.layer = nn.ModuleList(stack[layer] for layer in layers)
    for name in LAYER_COUNTS:
        if hasattr(config, name):
            setattr(config, name, len(layers))
    return student


def layer_count(model: SentenceTransformer) -> int:
    """Return the number of transformer layers.

    Raises:
        ModelError: the architecture has no plain list of layers.
    """
    return len(_encoder(model).layer)


def _encoder(model: SentenceTransformer) -> Any:
    """Return the part of the transformer that holds the list `layer`."""
    network = getattr(model[0], "model", None)
    encoder = getattr(network, "encoder", getattr(network, "transformer", None))
    if not isinstance(getattr(encoder, "layer", None), nn.ModuleList):
        problem = f"{type(network or model[0]).__name__} has no list of transformer layers"
        raise ModelError(problem, remedy="Use a BERT-like model", field="model_name")
    return encoder


def pca_projection(vectors: np.ndarray | Tensor, dim: int) -> Tensor:
    """Compute the projection (e, dim) onto the first `dim` principal components of `vectors` (N, e), uncentred.

    Cosines are measured from the origin, and centring would move it. With `dim = e` the projection is a rotation,
    which changes no cosine.

    Returns:
        float32 (e, dim) with orthonormal columns, largest component first.

    Raises:
        ParameterError: `dim` is below 1 or above e.
    """
    rows = torch.as_tensor(np.asarray(vectors), dtype=torch.float64)
    if not 1 <= dim <= rows.shape[1]:
        problem = f"dim must be between 1 and {rows.shape[1]}, got {dim}"
        raise ParameterError(problem, remedy=f"Choose 1 to {rows.shape[1]}", field="dim")
    _, components = torch.linalg.eigh(rows.T @ rows)  # ascending eigenvalues
    return components.flip(1)[:, :dim].float().contiguous()


def project(model: SentenceTransformer, projection: Tensor) -> SentenceTransformer:
    """Append `Dense` with the weights `projection` (e, d) and `Normalize` to `model`, in place.

    Returns:
        The same model, now with d dimensions.
    """
    from sentence_transformers.base.modules import Dense, Normalize

    in_features, out_features = projection.shape
    weight = projection.T.contiguous().to(model.device)
    dense = Dense(in_features, out_features, bias=False, activation_function=None, init_weight=weight)
    model.extend([dense, Normalize()])
    return model.to(model.device)
