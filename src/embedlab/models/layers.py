"""Smaller transformers cut from a larger one: fewer layers, a narrower embedding."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from embedlab.errors import ModelError, ParameterError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

LAYER_COUNTS = ("num_hidden_layers", "n_layers")  # what configurations call it: BERT and kin, DistilBERT


def spread_layers(total: int, kept: int) -> list[int]:
    """`kept` of `total` layer numbers, evenly spread, the first and the last among them (one alone: the last).

    >>> spread_layers(6, 3)
    [0, 2, 5]

    Raises:
        ParameterError: fewer than 1 or more than `total`.
    """
    if not 1 <= kept <= total:
        raise ParameterError(f"{kept} of {total} layers cannot be kept", remedy=f"Choose 1 to {total}", field="layers")
    return [total - 1] if kept == 1 else [int(place) for place in np.linspace(0, total - 1, kept)]


def keep_layers(model: SentenceTransformer, layers: Sequence[int]) -> SentenceTransformer:
    """A copy of `model` that runs only the given layers, in that order; everything else keeps its weights.

    Starting a student from its teacher's layers: Sanh et al., DistilBERT, 2019.

    Args:
        model: its first module is a transformer with a list of layers (BERT, RoBERTa, DistilBERT, ELECTRA and kin).
        layers: numbers of the layers to keep, from 0.

    Raises:
        ModelError: the architecture has no plain list of layers.
        ParameterError: no layers, or one that the model does not have.
    """
    student = copy.deepcopy(model)
    body, config = _body(student), student[0].model.config
    stack = body.layer
    if not layers or not all(0 <= layer < len(stack) for layer in layers):
        remedy = f"Choose from 0 to {len(stack) - 1}"
        raise ParameterError(f"layers {list(layers)} cannot be kept", remedy=remedy, field="layers")
    body.layer = nn.ModuleList(stack[layer] for layer in layers)
    for name in LAYER_COUNTS:
        if hasattr(config, name):
            setattr(config, name, len(layers))
    return student


def layer_count(model: SentenceTransformer) -> int:
    """Number of transformer layers.

    Raises:
        ModelError: the architecture has no plain list of layers.
    """
    return len(_body(model).layer)


def _body(model: SentenceTransformer) -> nn.Module:
    """The part of the transformer that holds the list `layer`."""
    network = getattr(model[0], "model", None)
    body = getattr(network, "encoder", getattr(network, "transformer", None))
    if not isinstance(getattr(body, "layer", None), nn.ModuleList):
        problem = f"{type(network or model[0]).__name__} has no list of layers to choose from"
        raise ModelError(problem, remedy="Use a BERT-like model", field="model_name")
    return body


def pca_projection(vectors: np.ndarray | Tensor, dim: int) -> Tensor:
    """The orthonormal directions (e, dim) that keep most of the dot products between the rows of `vectors` (N, e).

    Principal components without centring: cosines are taken from the origin, which a shift would move. With
    `dim = e` it is a rotation, which changes no cosine.

    Raises:
        ParameterError: `dim` is not from 1 to e.
    """
    rows = torch.as_tensor(np.asarray(vectors), dtype=torch.float64)
    if not 1 <= dim <= rows.shape[1]:
        problem = f"{rows.shape[1]} dimensions cannot be projected to {dim}"
        raise ParameterError(problem, remedy=f"Choose 1 to {rows.shape[1]}", field="dim")
    _, directions = torch.linalg.eigh(rows.T @ rows)  # ascending eigenvalues
    return directions.flip(1)[:, :dim].float().contiguous()


def project(model: SentenceTransformer, projection: Tensor) -> SentenceTransformer:
    """Append a linear layer that starts as `projection` (e, d) and scale to unit length; changes `model` itself."""
    from sentence_transformers.base.modules import Dense, Normalize

    wide, narrow = projection.shape
    weight = projection.T.contiguous().to(model.device)
    dense = Dense(wide, narrow, bias=False, activation_function=None, init_weight=weight)
    model.extend([dense, Normalize()])
    return model.to(model.device)
