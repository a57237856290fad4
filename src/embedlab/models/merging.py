"""One model out of several: a weighted mean of the weights of models that grew from the same one.

Fine-tuned models stay in the valley of the loss around their base model, so that a mean of weights is a model too and
costs nothing more to run: Wortsman et al., Robust fine-tuning (WiSE-FT), CVPR 2022; Model soups, ICML 2022. LM-Cocktail
(Xiao et al., Findings of ACL 2024) mixes a target model with several others, weighted by how well each does on a few
examples of the target task. sentence-transformers' own `SentenceTransformer.merge` needs mergekit; a mean does not.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from embedlab.errors import ModelError, ParameterError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SUM_TOLERANCE = 1e-6


def merge(models: Sequence[SentenceTransformer], weights: Sequence[float]) -> SentenceTransformer:
    """A new model whose every weight is the weighted mean of the models' weights.

    A model with weight 0 has no part in it, not even a rounding error: weights 1 and 0 give a bitwise copy. Sums are
    taken in float64. Prompts, card and everything else that is no weight are the first model's.

    Args:
        models: of one architecture and one tokenizer; adapters merged into the weights.
        weights: one per model, none negative, with the sum 1.

    Raises:
        ParameterError: the weights are no mixture.
        ModelError: the models differ in modules, shapes or vocabulary.
    """
    _require_mixture(models, weights)
    for other in models[1:]:
        _require_same_kind(models[0], other)
    parts = [(model.state_dict(), weight) for model, weight in zip(models, weights, strict=True) if weight]
    merged = copy.deepcopy(models[0])
    merged.load_state_dict({name: _mean([(state[name], weight) for state, weight in parts]) for name in parts[0][0]})
    return merged


def interpolate(base: SentenceTransformer, tuned: SentenceTransformer, share: float) -> SentenceTransformer:
    """The model on the line between two: `(1 - share) * base + share * tuned`; 0 is the base model, 1 the tuned one."""
    return merge([base, tuned], [1 - share, share])


def cocktail_weights(losses: Mapping[str, float], target: str, *, share: float, temperature: float) -> dict[str, float]:
    """LM-Cocktail's weights: `share` for the target, the rest by `softmax(-loss / temperature)` over the others.

    Args:
        losses: model -> loss on a few examples of the target task.
        target: the model tuned for that task.
        share: of the target, from 0 to 1.
        temperature: smaller gives the best of the others more.

    Returns:
        Model -> weight, in the order of `losses`; the sum is 1.

    Raises:
        ParameterError: an unknown target, nothing to mix it with, or a share outside 0 to 1.
    """
    if target not in losses or len(losses) < 2 or not 0 <= share <= 1:
        problem = f"{target!r} with share {share} cannot be mixed with {', '.join(losses) or 'nothing'}"
        raise ParameterError(problem, remedy="Give the losses of the target and of another model", field="target")
    best = min(loss for name, loss in losses.items() if name != target)
    powers = {name: math.exp((best - loss) / temperature) for name, loss in losses.items() if name != target}
    rest = {name: (1 - share) * power / sum(powers.values()) for name, power in powers.items()}
    return {name: share if name == target else rest[name] for name in losses}


def _mean(parts: Sequence[tuple[Tensor, float]]) -> Tensor:
    """The weighted sum; what is no number to average, such as position ids, is the first's."""
    first, weight = parts[0]
    if len(parts) == 1 or not first.is_floating_point():
        return first
    total = first.double() * weight
    for tensor, weight in parts[1:]:
        total += tensor.to(total.device).double() * weight
    return total.to(first.dtype)


def _require_mixture(models: Sequence[SentenceTransformer], weights: Sequence[float]) -> None:
    if not models or len(models) != len(weights):
        problem = f"{len(models)} models and {len(weights)} weights"
        raise ParameterError(problem, remedy="Give one weight per model", field="weights")
    if min(weights) < 0 or abs(sum(weights) - 1) > SUM_TOLERANCE:
        problem = f"the weights {', '.join(f'{weight:g}' for weight in weights)} are no mixture"
        raise ParameterError(problem, remedy="Give weights of 0 or more with the sum 1", field="weights")


def _require_same_kind(model: SentenceTransformer, other: SentenceTransformer) -> None:
    """Refuse models whose weights do not stand for the same things."""
    for what, of_model, of_other in (
        ("modules", _modules(model), _modules(other)),
        ("weights", _shapes(model), _shapes(other)),
        ("vocabulary", _vocabulary(model), _vocabulary(other)),
    ):
        if of_model != of_other:
            raise ModelError(
                f"the models differ in their {what} ({_first_difference(of_model, of_other)}) and cannot be merged",
                remedy="Merge models that were fine-tuned from the same base model, adapters merged into the weights",
            )


def _modules(model: SentenceTransformer) -> dict[str, str]:
    """What each module is: the network of a transformer, and of the others, such as pooling, how they are set."""
    described = {}
    for name, module in model.named_children():
        network = getattr(module, "model", None)
        settings = module.get_config_dict() if network is None and hasattr(module, "get_config_dict") else ""
        described[name] = f"{type(network or module).__name__} {settings}".strip()
    return described


def _shapes(model: SentenceTransformer) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _vocabulary(model: SentenceTransformer) -> dict[str, int]:
    tokenizer = getattr(model, "tokenizer", None)
    return tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else {}


def _first_difference(one: Mapping[str, object], other: Mapping[str, object]) -> str:
    """Of two mappings that are not equal."""
    name = next(name for name in sorted({*one, *other}) if one.get(name) != other.get(name))
    return f"{name}: {one.get(name, 'missing')} and {other.get(name, 'missing')}"
