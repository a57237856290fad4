"""Run a transformer without padding: only the real tokens of a batch are computed.

If texts are short and differ in length, a padded batch spends most of its time on padding. Packing concatenates the
texts of a batch into one row of shape `(1, tokens)`. Embeddings, linear layers, norms and pooling then see real tokens
only; attention also needs to know where each text ends. sentence-transformers already builds and pools such batches
for FlashAttention 2. We make this path available on every device by registering one attention function with the
attention interface of transformers (`packed_attention`). It covers bidirectional and causal attention, grouped
queries, sliding windows and relative position biases, so encoders and decoders share it.

No list of architectures decides. A model is packed if its attention goes through the interface of transformers (or
`packed_layers` brings it there) **and** its packed embeddings equal its padded ones on a few probe texts. Otherwise it
stays padded, and `padded_because` says why.

The model stays a plain `SentenceTransformer`: it works with any loss, the Trainer, `encode`, LoRA, gradient
checkpointing and the cached losses, and a saved model loads without this package.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AttentionInterface, DataCollatorWithFlattening
from transformers.masking_utils import AttentionMaskInterface

from embedlab.models import packed_layers
from embedlab.models.packed_attention import NAME, packed_attention, packed_mask
from embedlab.models.sides import is_routed, is_static, sides_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, packed_mask)

_BOUNDARIES = {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx"}
_PROBES = ("a", "Packed texts must not see each other.", "Two words", "one, two, three, four, five, six, seven, eight")
_TOLERANCE, _HALF_TOLERANCE = 1e-4, 0.05  # largest difference of unit vectors, in full and in half precision


def is_packed(model: SentenceTransformer) -> bool:
    """Whether `model` runs on packed batches."""
    return bool(getattr(model[0], "can_flatten_inputs", False))


def padded_because(model: SentenceTransformer) -> str | None:
    """Return why `pack` left `model` on padded batches; None if it is packed or `pack` was never called."""
    reason: str | None = getattr(model[0], "_embedlab_padded_because", None)
    return reason


def pack(model: SentenceTransformer) -> SentenceTransformer:
    """Make `model` run on packed batches, in place, if that gives the same embeddings.

    Saving is not affected: a saved model is a plain sentence-transformers model.

    Args:
        model: a model of any architecture. One that cannot be packed is not changed; a warning says why.

    Returns:
        The same object.
    """
    if is_routed(model):
        for side in sides_of(model):
            pack(side.model)
        return model
    if is_packed(model) or is_static(model):  # a static model has nothing to pad
        return model
    reason = _unsuitable(model) or _try_packing(model)
    if reason:
        model[0]._embedlab_padded_because = reason
        logger.warning("%s runs on padded batches: %s", _model_type(model), reason)
    return model


def _model_type(model: SentenceTransformer) -> str:
    config = getattr(model[0], "config", None)
    return str(getattr(config, "model_type", type(model[0]).__name__))


def _unsuitable(model: SentenceTransformer) -> str | None:
    """Return why the architecture cannot be packed, as far as its structure tells."""
    transformer = model[0]
    network = getattr(transformer, "model", None)
    if not isinstance(network, torch.nn.Module) or not hasattr(transformer, "modality_config"):
        return "its first module is not a transformer"
    if "text" not in transformer.modality_config or transformer.modality_config["text"]["method"] != "forward":
        return "its text encoder is not called through forward"
    if not (packed_layers.covers(network) or _uses_attention_interface(network)):
        return "its attention does not go through the attention interface of transformers"
    return None


def _uses_attention_interface(network: Any) -> bool:
    return bool(getattr(network, "_can_set_attn_implementation", lambda: False)())


def _try_packing(model: SentenceTransformer) -> str | None:
    """Pack `model` and compare it with itself; undo the packing and return the reason if the embeddings differ."""
    with without_gradients(model):
        padded = _probe(model)
        undo = _switch_on(model[0])
        try:
            difference = float((_probe(model) - padded).abs().max())
        except Exception as error:  # any architecture may come here, with any failure; padded batches always work
            undo()
            return f"packed batches raise {type(error).__name__} ({error})"
        tolerance = _HALF_TOLERANCE if padded.dtype in (torch.float16, torch.bfloat16) else _TOLERANCE
        if not difference <= tolerance:  # also NaN
            undo()
            return f"its packed embeddings differ from the padded ones by {difference:.1g}"
    return None


@contextmanager
def without_gradients(model: SentenceTransformer, *, training: bool = False) -> Iterator[None]:
    """Run `model` without gradients in evaluation or training mode, and restore the mode of every module.

    A loaded network is in evaluation mode although its `SentenceTransformer` is in training mode.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def on_device(features: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return features with all tensors on a device."""
    return {key: value.to(device) if hasattr(value, "to") else value for key, value in features.items()}


def _probe(model: SentenceTransformer) -> Tensor:
    """Return unit vectors (probes, dim) of the probe texts."""
    features = on_device(model.preprocess(list(_PROBES)), model.device)
    return torch.nn.functional.normalize(model(features)["sentence_embedding"], dim=-1)


def _switch_on(transformer: Any) -> Any:
    """Switch a `Transformer` module to packed batches; the function returned undoes it."""
    network, parameters = transformer.model, transformer.model_forward_params
    attention = network.config._attn_implementation
    if _uses_attention_interface(network):
        network.set_attn_implementation(NAME)
    packed_layers.install(network)
    transformer.data_collator = DataCollatorWithFlattening(return_seq_idx=True, return_flash_attn_kwargs=True)
    if parameters is not None:
        transformer.model_forward_params = parameters | _BOUNDARIES
    transformer._flatten_position_offset = transformer._infer_flatten_position_offset()
    transformer.can_flatten_inputs = True

    def undo() -> None:
        transformer.can_flatten_inputs = False
        transformer.model_forward_params = parameters
        packed_layers.remove(network)
        if _uses_attention_interface(network):
            network.set_attn_implementation(attention)

    return undo


def merge_columns(columns: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Merge packed batches so that all columns of a training step (query, positive, …) share one forward pass.

    Args:
        columns: the features of each column.

    Returns:
        The merged features; None if the batches are padded or differ in their prompt, so each needs its own forward.
    """
    first = columns[0]
    if any("cu_seq_lens_q" not in column for column in columns):
        return None
    if any(column.get("prompt_length") != first.get("prompt_length") for column in columns):
        return None
    merged = dict(first)
    for key in ("input_ids", "position_ids"):
        merged[key] = torch.cat([column[key] for column in columns], dim=1)
    ends, texts = [first["cu_seq_lens_q"][:1]], 0
    sequence_ids = []
    for column in columns:
        ends.append(column["cu_seq_lens_q"][1:] + ends[-1][-1])
        sequence_ids.append(column["seq_idx"] + texts)
        texts += len(column["cu_seq_lens_q"]) - 1
    merged["seq_idx"] = torch.cat(sequence_ids, dim=1)
    merged["cu_seq_lens_q"] = merged["cu_seq_lens_k"] = torch.cat(ends)
    merged["max_length_q"] = merged["max_length_k"] = max(column["max_length_q"] for column in columns)
    return merged


def embed_columns(model: torch.nn.Module, columns: list[dict[str, Any]]) -> list[Tensor]:
    """Embed the columns of a training step: in one forward pass if packed, in length-sorted sub-batches if padded.

    Args:
        model: a `SentenceTransformer`.
        columns: the features of each column, all with the same number of texts.

    Returns:
        One (batch, dim) tensor of sentence embeddings per column.
    """
    tasks = [column.get("task") for column in columns]
    if len(set(tasks)) > 1:  # a model with a Router: its query and its document side run one after the other
        of_task = {task: [column for column in columns if column.get("task") == task] for task in dict.fromkeys(tasks)}
        embedded = {task: iter(embed_columns(model, of_task[task])) for task in of_task}
        return [next(embedded[task]) for task in tasks]
    merged = merge_columns(columns)
    if merged is None:
        return [_embed_padded(model, column) for column in columns]
    return list(model(merged)["sentence_embedding"].chunk(len(columns)))


SUB_BATCHES = 4  # at most; more would leave too few texts for a forward pass
_PER_TOKEN = ("input_ids", "attention_mask", "token_type_ids")
_PER_BATCH = {"modality", "prompt_length", "task"}


def _embed_padded(model: torch.nn.Module, features: dict[str, Any]) -> Tensor:
    """Embed a padded batch in sub-batches of similar length, without the columns that are padding in all their rows."""
    mask = features.get("attention_mask")
    has_known_inputs = all(key in _PER_TOKEN or key in _PER_BATCH for key in features)
    if not has_known_inputs or mask is None or len(mask) < 2 * SUB_BATCHES:
        return model(features)["sentence_embedding"]
    lengths = mask.sum(dim=1)
    order = lengths.argsort(descending=True, stable=True)
    outputs = []
    for rows in order.chunk(SUB_BATCHES):
        used = mask[rows].any(dim=0)
        sub_batch = {key: features[key][rows][:, used] if key in _PER_TOKEN else features[key] for key in features}
        outputs.append(model(sub_batch)["sentence_embedding"])
    return torch.cat(outputs).index_select(0, order.argsort())
