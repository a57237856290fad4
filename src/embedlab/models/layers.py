"""Build smaller transformers from a larger one: fewer layers, fewer embedding dimensions."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from embedlab.errors import ModelError, ParameterError
from embedlab.models.sides import require_one_encoder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Where architectures keep their list of layers: BERT, DistilBERT, decoders within a larger model …
PARTS = ("encoder", "transformer", "model", "decoder", "language_model")
# … what they call it: BERT; ModernBERT, Qwen and Gemma; GPT; T5 …
LISTS = ("layer", "layers", "h", "block", "blocks")
# … the norm after it: Qwen and Gemma; ModernBERT; T5; GPT …
FINAL_NORMS = ("norm", "final_norm", "final_layer_norm", "ln_f")
# … and what the configuration calls its length.
LAYER_COUNTS = ("num_hidden_layers", "n_layers", "num_layers", "n_layer")


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
        model: its first module is a transformer with a list of layers.
        layers: indices of the layers to keep, from 0.

    Raises:
        ModelError: the architecture has no plain list of layers, or its first layer differs and is not kept.
        ParameterError: `layers` is empty, or the model does not have one of them.
    """
    _stack(model)  # raises before anything is copied
    student = copy.deepcopy(model)
    network = student[0].model
    holder, name = _stack(student)
    stack = getattr(holder, name)
    if not layers or not all(0 <= layer < len(stack) for layer in layers):
        problem = f"layers must be indices from 0 to {len(stack) - 1}, got {list(layers)}"
        raise ParameterError(problem, remedy="Choose layers that the model has", field="layers")
    setattr(holder, name, nn.ModuleList(stack[layer] for layer in layers))
    _renumber(getattr(holder, name))
    _configure(network.config, layers, len(stack))
    for module in network.modules():  # some modules, as T5's encoder, hold a configuration of their own
        if getattr(module, "config", network.config) is not network.config:
            _configure(module.config, layers, len(stack))
    _check_loadable(network)
    return student


def layer_count(model: SentenceTransformer) -> int:
    """Return the number of transformer layers.

    Raises:
        ModelError: the architecture has no plain list of layers.
    """
    return len(layers_of(model))


def layers_of(model: SentenceTransformer) -> nn.ModuleList:
    """Return the transformer layers, from the bottom to the top.

    Raises:
        ModelError: the architecture has no plain list of layers.
    """
    layers: nn.ModuleList = getattr(*_stack(model))
    return layers


def layers_name(model: SentenceTransformer) -> str:
    """Return the name of the list of layers within the model, such as `0.model.encoder.layer`.

    Raises:
        ModelError: the architecture has no plain list of layers.
    """
    stack = getattr(*_stack(model))
    return next(name for name, module in model.named_modules() if module is stack)


def final_norm(model: SentenceTransformer) -> nn.Module | None:
    """Return the norm that the transformer applies after its last layer; None if the layers end with one themselves.

    Raises:
        ModelError: the architecture has no plain list of layers.
    """
    holder, _ = _stack(model)
    return next((norm for name in FINAL_NORMS if isinstance(norm := getattr(holder, name, None), nn.Module)), None)


def _stack(model: SentenceTransformer) -> tuple[Any, str]:
    """Return the part of the transformer that holds the list of layers, and the name of the list."""
    require_one_encoder(model)
    network = getattr(model[0], "model", None)
    for module in (network, *(getattr(network, name, None) for name in PARTS)):
        for name in LISTS:
            if isinstance(getattr(module, name, None), nn.ModuleList):
                return module, name
    problem = f"{type(network or model[0]).__name__} has no list of transformer layers"
    raise ModelError(problem, remedy="Use a model with a plain stack of layers, such as BERT", field="model_name")


def _renumber(stack: nn.ModuleList) -> None:
    """Give every layer its new index, which decoders use to find their cache."""
    for index, layer in enumerate(stack):
        for module in layer.modules():
            if isinstance(getattr(module, "layer_idx", None), int):
                module.__dict__["layer_idx"] = index


def _configure(config: Any, layers: Sequence[int], old_count: int) -> None:
    """Change the number of layers in a configuration, and the lists that have one entry per layer."""
    for name, value in list(vars(config).items()):
        if name in LAYER_COUNTS and value == old_count:
            setattr(config, name, len(layers))
        elif isinstance(value, list) and len(value) == old_count and name.startswith("layer"):
            setattr(config, name, [value[layer] for layer in layers])


def _check_loadable(network: Any) -> None:
    """Raise a ModelError if transformers would build other weights from the configuration than the network has."""
    with torch.device("meta"):
        fresh = type(network)(copy.deepcopy(network.config))
    expected, actual = (_shapes(module) for module in (fresh, network))
    if differing := sorted(set(expected.items()) ^ set(actual.items())):
        problem = f"the first layer of {type(network).__name__} has other weights than the rest ({differing[0][0]})"
        raise ModelError(problem, remedy="Keep two layers or more, so that the first one stays", field="layers")


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in network.state_dict().items()}


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
