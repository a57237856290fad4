"""Merge models: the weighted average of the weights of models that were fine-tuned from the same base model.

Fine-tuned models stay close to their base model, so the average of their weights is a working model and costs nothing
extra to run: Wortsman et al., Robust fine-tuning (WiSE-FT), CVPR 2022; Model soups, ICML 2022. LM-Cocktail (Xiao et
al., Findings of ACL 2024) averages a target model with several others, weighted by the loss of each on a few examples
of the target task. `SentenceTransformer.merge` of sentence-transformers needs mergekit; a plain average does not.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from embedlab.errors import ModelError, ParameterError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SUM_TOLERANCE = 1e-6


def merge(models: Sequence[SentenceTransformer], weights: Sequence[float]) -> SentenceTransformer:
    """Average the weights of `models` into a new model.

    A model with weight 0 is skipped: weights 1 and 0 give a bitwise copy of the first model. Sums are computed in
    float64. Prompts, model card and tokenizer come from the first model.

    Args:
        models: models with the same architecture and tokenizer; adapters merged into the weights.
        weights: one per model, 0 or more, with the sum 1.

    Raises:
        ParameterError: the weights are negative or do not sum to 1.
        ModelError: the models differ in modules, shapes or vocabulary.
    """
    _check_weights(models, weights)
    for model in models[1:]:
        _check_architecture(models[0], model)
    states = [(model.state_dict(), weight) for model, weight in zip(models, weights, strict=True) if weight]
    merged = copy.deepcopy(models[0])
    names = states[0][0]
    merged.load_state_dict({name: _average([(state[name], weight) for state, weight in states]) for name in names})
    return merged


def cocktail_weights(losses: Mapping[str, float], target: str, *, share: float, temperature: float) -> dict[str, float]:
    """Compute LM-Cocktail's weights: `share` for the target, the rest by `softmax(-loss / temperature)`.

    Args:
        losses: model -> loss on a few examples of the target task.
        target: the model fine-tuned for that task.
        share: weight of the target, from 0 to 1.
        temperature: of the softmax; a smaller value favours the best of the other models.

    Returns:
        Model -> weight, in the order of `losses`; the sum is 1.

    Raises:
        ParameterError: `target` is not in `losses`, there is no other model, or `share` is outside 0 to 1.
    """
    if target not in losses or len(losses) < 2:
        problem = f"losses must hold {target!r} and at least one other model, got {', '.join(losses) or 'none'}"
        raise ParameterError(problem, remedy="Compute the loss of every model you want to merge", field="losses")
    if not 0 <= share <= 1:
        raise ParameterError(f"share must be between 0 and 1, got {share}", remedy="Set share=0.5", field="share")
    lowest = min(loss for name, loss in losses.items() if name != target)
    powers = {name: math.exp((lowest - loss) / temperature) for name, loss in losses.items() if name != target}
    rest = {name: (1 - share) * power / sum(powers.values()) for name, power in powers.items()}
    return {name: share if name == target else rest[name] for name in losses}


def _average(weighted: Sequence[tuple[Tensor, float]]) -> Tensor:
    """Return the weighted sum of tensors; integer tensors, such as position ids, are taken from the first model."""
    first, weight = weighted[0]
    if len(weighted) == 1 or not first.is_floating_point():
        return first
    total = first.double() * weight
    for tensor, weight in weighted[1:]:
        total += tensor.to(total.device).double() * weight
    return total.to(first.dtype)


def _check_weights(models: Sequence[SentenceTransformer], weights: Sequence[float]) -> None:
    if not models or len(models) != len(weights):
        problem = f"expected one weight per model, got {len(weights)} weights for {len(models)} models"
        raise ParameterError(problem, remedy="Pass as many weights as models", field="weights")
    if min(weights) < 0 or abs(sum(weights) - 1) > SUM_TOLERANCE:
        problem = f"weights must be 0 or more and sum to 1, got {', '.join(f'{weight:g}' for weight in weights)}"
        raise ParameterError(problem, remedy="Divide each weight by their sum", field="weights")


def _check_architecture(first: SentenceTransformer, second: SentenceTransformer) -> None:
    """Raise a ModelError when the weights of two models do not correspond."""
    for aspect, of_first, of_second in (
        ("modules", _modules(first), _modules(second)),
        ("weights", _shapes(first), _shapes(second)),
        ("vocabulary", _vocabulary(first), _vocabulary(second)),
    ):
        if of_first != of_second:
            raise ModelError(
                f"the models differ in their {aspect} ({_first_difference(of_first, of_second)}) and cannot be merged",
                remedy="Merge models that were fine-tuned from the same base model, adapters merged into the weights",
            )


def _modules(model: SentenceTransformer) -> dict[str, str]:
    """Describe each module: the network class of a transformer, the configuration of the others, such as pooling."""
    descriptions = {}
    for name, module in model.named_children():
        network = getattr(module, "model", None)
        config = module.get_config_dict() if network is None and hasattr(module, "get_config_dict") else ""
        descriptions[name] = f"{type(network or module).__name__} {config}".strip()
    return descriptions


def _shapes(model: SentenceTransformer) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _vocabulary(model: SentenceTransformer) -> dict[str, int]:
    tokenizer: Any = getattr(model, "tokenizer", None)
    return tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else {}


def _first_difference(first: Mapping[str, object], second: Mapping[str, object]) -> str:
    """Name the first entry, by key, in which two different mappings differ."""
    name = next(name for name in sorted({*first, *second}) if first.get(name) != second.get(name))
    return f"{name}: {first.get(name, 'missing')} and {second.get(name, 'missing')}"
