"""Run a transformer without padding: only the real tokens of a batch are computed.

If texts are short and differ in length, a padded batch spends most of its time on padding. Packing concatenates the
texts of a batch into one row of shape `(1, tokens)`. Embeddings, linear layers, norms and pooling then see real tokens
only; attention also needs to know where each text ends. sentence-transformers already builds and pools such batches
for FlashAttention 2. We make this path available on every device by registering one attention function with the
attention interface of transformers:

* on CPU, texts of equal length are attended together, which needs neither padding nor a mask;
* on CUDA in half precision and without attention dropout, torch's variable-length FlashAttention kernel is used.

The model stays a plain `SentenceTransformer`: it works with any loss, the Trainer, `encode`, LoRA, gradient
checkpointing and the cached losses, and a saved model loads without this package.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, DataCollatorWithFlattening
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

NAME = "embedlab_packed"

# Encoders with plain self-attention: no position bias, no sliding window, no causal mask.
SUPPORTED = frozenset({"bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert"})

_BOUNDARIES = {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx"}


@dataclass(frozen=True)
class LengthGroups:
    """The order in which the packed tokens of a batch are sorted by the length of their text.

    Attributes:
        order: (tokens,) packed position of each token, shortest texts first.
        inverse: (tokens,) the inverse permutation.
        groups: (number of texts, length in tokens) of each group of equally long texts, shortest first.
    """

    order: Tensor
    inverse: Tensor
    groups: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, boundaries: Tensor) -> LengthGroups:
        """Group texts by length.

        Args:
            boundaries: (texts + 1,) cumulative text lengths. The result is cached on this tensor, since every layer
                of the transformer needs it.
        """
        cached: LengthGroups | None = getattr(boundaries, "_embedlab_groups", None)
        if cached is None:
            cached = cls._build(boundaries)
            boundaries._embedlab_groups = cached  # type: ignore[attr-defined]
        return cached

    @classmethod
    def _build(cls, boundaries: Tensor) -> LengthGroups:
        ends = boundaries.tolist()
        spans = sorted(((end - start, start) for start, end in zip(ends, ends[1:], strict=False)), key=lambda s: s[0])
        order = torch.cat([torch.arange(start, start + length) for length, start in spans])
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order))
        groups = tuple((len(list(members)), length) for length, members in groupby(spans, key=lambda s: s[0]))
        return cls(order.to(boundaries.device), inverse.to(boundaries.device), groups)


def _attend_by_length(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, dropout: float, scaling: float | None
) -> Tensor:
    """Attention within each text; tensors have the shape (tokens, heads, head size)."""
    lengths = LengthGroups.of(boundaries)
    sizes = [count * length for count, length in lengths.groups]
    # `split` instead of slices: the gradient of a slice allocates a full tensor of zeros for every group.
    sorted_qkv = [tensor.index_select(0, lengths.order).split(sizes) for tensor in (query, key, value)]
    outputs = []
    for (count, length), *qkv in zip(lengths.groups, *sorted_qkv, strict=True):
        q, k, v = (tensor.unflatten(0, (count, length)).transpose(1, 2) for tensor in qkv)  # (texts, heads, length, .)
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling)
        outputs.append(attended.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs).index_select(0, lengths.inverse)


def _attend_varlen(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, longest: int, scaling: float | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    # A pair only with return_aux.
    return varlen_attn(  # type: ignore[return-value]
        query, key, value, boundaries, boundaries, longest, longest, scale=scaling
    )


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention for packed and padded batches, in the signature that transformers expects.

    Args:
        module: the calling layer, used for padded batches.
        query, key, value: (1, heads, tokens, head size) if packed, (batch, heads, length, head size) if padded.
        attention_mask: only for padded batches.
        dropout: attention dropout probability.
        scaling: factor applied to the dot products; 1 / sqrt(head size) if None.
        cu_seq_lens_q: (texts + 1,) cumulative text lengths; None for a padded batch, which uses the standard SDPA.
        max_length_q: number of tokens of the longest text.
        **kwargs: used for padded batches.

    Returns:
        (1, tokens, heads, head size), or (batch, length, heads, head size) for a padded batch, and None in place of
        attention weights.
    """
    if cu_seq_lens_q is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    q, k, v = (tensor.squeeze(0).transpose(0, 1) for tensor in (query, key, value))
    fits_kernel = q.is_cuda and q.dtype in (torch.float16, torch.bfloat16) and dropout == 0.0
    if fits_kernel and max_length_q is not None:
        output = _attend_varlen(q, k, v, cu_seq_lens_q, int(max_length_q), scaling)
    else:
        output = _attend_by_length(q, k, v, cu_seq_lens_q, dropout, scaling)
    return output.unsqueeze(0), None


def _packed_mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """The standard mask for padded batches; None for packed ones, which use text boundaries instead."""
    return None if attention_mask is None else sdpa_mask(*args, attention_mask=attention_mask, **kwargs)


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, _packed_mask)


def is_packed(model: SentenceTransformer) -> bool:
    """Whether `model` runs on packed batches."""
    return getattr(getattr(model[0], "config", None), "_attn_implementation", None) == NAME


def pack(model: SentenceTransformer) -> SentenceTransformer:
    """Make `model` run on packed batches, in place.

    Saving is not affected: a saved model is a plain sentence-transformers model.

    Args:
        model: a model of any architecture. If its architecture is not in `SUPPORTED`, the model is not changed and a
            warning is logged.

    Returns:
        The same object.
    """
    transformer = model[0]
    model_type = getattr(getattr(transformer, "config", None), "model_type", type(transformer).__name__)
    if model_type not in SUPPORTED:
        supported = ", ".join(sorted(SUPPORTED))
        logger.warning("%s does not support packing and runs on padded batches (supported: %s)", model_type, supported)
        return model
    transformer.model.set_attn_implementation(NAME)
    transformer.data_collator = DataCollatorWithFlattening(return_seq_idx=True, return_flash_attn_kwargs=True)
    if transformer.model_forward_params is not None:
        transformer.model_forward_params |= _BOUNDARIES
    transformer._flatten_position_offset = transformer._infer_flatten_position_offset()
    transformer.can_flatten_inputs = True
    return model


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
    """Embed the columns of a training step, in one forward pass if they are packed.

    Args:
        model: a `SentenceTransformer`.
        columns: the features of each column, all with the same number of texts.

    Returns:
        One (batch, dim) tensor of sentence embeddings per column.
    """
    merged = merge_columns(columns)
    if merged is None:
        return [model(column)["sentence_embedding"] for column in columns]
    return list(model(merged)["sentence_embedding"].chunk(len(columns)))
