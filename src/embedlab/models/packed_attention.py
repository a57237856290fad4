"""Attention within each text of a packed batch, for every kind of self-attention that embedding models use.

* On CPU, texts of equal length are attended together, which needs neither padding nor a mask.
* On CUDA in half precision, without attention dropout or position bias, torch's variable-length FlashAttention runs.
* On CUDA otherwise, the queries, keys and values are padded for the attention call alone: one kernel per layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "embedlab_packed"


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


@dataclass(frozen=True)
class Pattern:
    """Which tokens of a text attend to each other, and how strongly by their distance.

    Attributes:
        causal: a token attends to itself and earlier tokens only.
        window: a token attends to tokens fewer than `window` positions away; None for all.
        bias: (1, heads, longest, longest) added to the attention scores, e.g. by relative position; None for none.
        dropout: attention dropout probability.
        scaling: factor applied to the dot products; 1 / sqrt(head size) if None.
    """

    causal: bool = False
    window: int | None = None
    bias: Tensor | None = None
    dropout: float = 0.0
    scaling: float | None = None

    def allowed(self, length: int, device: torch.device) -> Tensor | None:
        """Return which positions (length, length) attend to which, rows are queries; None if all do."""
        windowed = self.window is not None and length > self.window
        if not (self.causal or windowed):
            return None
        distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
        allowed = distance >= 0 if self.causal else torch.ones_like(distance, dtype=torch.bool)
        return allowed & (distance.abs() < self.window) if self.window is not None else allowed

    def attend(self, query: Tensor, key: Tensor, value: Tensor, real: Tensor | None = None) -> Tensor:
        """Attend within texts of one length; tensors have the shape (texts, heads, length, head size).

        Args:
            query: of the attending tokens.
            key: of the attended tokens.
            value: of the attended tokens.
            real: (texts, 1, 1, length) False at padding; None if there is none.
        """
        length = query.shape[2]
        plain = self.bias is None and real is None and (self.window is None or length <= self.window)
        mask = None if plain else self._mask(length, query, real)
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=self.dropout,
            is_causal=self.causal and plain and length > 1,
            scale=self.scaling,
        )

    def _mask(self, length: int, query: Tensor, real: Tensor | None) -> Tensor | None:
        allowed = self.allowed(length, query.device)
        if real is not None:
            allowed = real if allowed is None else allowed & real
        if self.bias is None:
            return allowed
        bias = self.bias[:, :, :length, :length].to(query.dtype)
        return bias if allowed is None else torch.where(allowed, bias, torch.finfo(query.dtype).min)


def attend_by_length(query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, pattern: Pattern) -> Tensor:
    """Attention within each text, text lengths one after the other.

    Args:
        query: (tokens, heads, head size).
        key: (tokens, heads, head size).
        value: (tokens, heads, head size).
        boundaries: (texts + 1,) cumulative text lengths.
        pattern: the kind of attention.

    Returns:
        (tokens, heads, head size).
    """
    lengths = LengthGroups.of(boundaries)
    sizes = [count * length for count, length in lengths.groups]
    # `split` instead of slices: the gradient of a slice allocates a full tensor of zeros for every group.
    sorted_qkv = [tensor.index_select(0, lengths.order).split(sizes) for tensor in (query, key, value)]
    outputs = []
    for (count, length), *qkv in zip(lengths.groups, *sorted_qkv, strict=True):
        q, k, v = (tensor.unflatten(0, (count, length)).transpose(1, 2) for tensor in qkv)
        outputs.append(pattern.attend(q, k, v).transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs).index_select(0, lengths.inverse)


def attend_padded(query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, pattern: Pattern) -> Tensor:
    """Attention within each text, all texts padded to the longest for this call; arguments as `attend_by_length`."""
    lengths = boundaries.diff()
    longest = int(lengths.max())
    real = torch.arange(longest, device=query.device) < lengths[:, None]  # (texts, longest)
    padded = []
    for tensor in (query, key, value):
        rows = tensor.new_zeros(len(lengths), longest, *tensor.shape[1:])
        rows[real] = tensor
        padded.append(rows.transpose(1, 2))
    return pattern.attend(padded[0], padded[1], padded[2], real[:, None, None, :]).transpose(1, 2)[real]


def attend_varlen(query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, pattern: Pattern) -> Tensor:
    """Attention within each text in one CUDA kernel for half precision; arguments as `attend_by_length`."""
    from torch.nn.attention.varlen import varlen_attn

    longest = int(boundaries.diff().max())
    reach = -1 if pattern.window is None else pattern.window - 1
    window = (reach, 0 if pattern.causal else reach)
    # A pair only with return_aux.
    return varlen_attn(  # type: ignore[return-value]
        query, key, value, boundaries, boundaries, longest, longest, scale=pattern.scaling, window_size=window
    )


def attend(query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, pattern: Pattern) -> Tensor:
    """Attention within each text, on the fastest path for the device; arguments as `attend_by_length`.

    Keys and values may have fewer heads than queries (grouped-query attention).
    """
    if key.shape[1] != query.shape[1]:
        key, value = (t.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for t in (key, value))
    if not query.is_cuda:
        return attend_by_length(query, key, value, boundaries, pattern)
    half = query.dtype in (torch.float16, torch.bfloat16)
    if half and pattern.dropout == 0.0 and pattern.bias is None:
        return attend_varlen(query, key, value, boundaries, pattern)
    return attend_padded(query, key, value, boundaries, pattern)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    sliding_window: int | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention for packed and padded batches, in the signature that transformers expects.

    Args:
        module: the calling layer; its `is_causal` is used.
        query: (1, heads, tokens, head size) if packed, (batch, heads, length, head size) if padded.
        key: like `query`, possibly with fewer heads.
        value: like `key`.
        attention_mask: only for padded batches.
        dropout: attention dropout probability.
        scaling: factor applied to the dot products; 1 / sqrt(head size) if None.
        cu_seq_lens_q: (texts + 1,) cumulative text lengths; None for a padded batch, which uses the standard SDPA.
        sliding_window: see `Pattern.window`.
        position_bias: (1, heads, longest, longest), see `Pattern.bias`.
        **kwargs: used for padded batches.

    Returns:
        (1, tokens, heads, head size), or (batch, length, heads, head size) for a padded batch, and None in place of
        attention weights.

    Raises:
        NotImplementedError: the layer asks for something that this function does not compute.
    """
    if cu_seq_lens_q is None:
        standard = {"dropout": dropout, "scaling": scaling, "position_bias": position_bias, **kwargs}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **standard)
    if untreated := [name for name in ("softcap", "s_aux") if kwargs.get(name) is not None]:
        raise NotImplementedError(f"attention with {untreated[0]}")
    causal = kwargs.get("is_causal")
    causal = bool(getattr(module, "is_causal", False) if causal is None else causal)
    pattern = Pattern(causal, sliding_window, position_bias, dropout, scaling)
    q, k, v = (tensor.squeeze(0).transpose(0, 1) for tensor in (query, key, value))
    return attend(q, k, v, cu_seq_lens_q, pattern).unsqueeze(0), None


def packed_mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """The standard mask for padded batches; None for packed ones, which use text boundaries instead."""
    return None if attention_mask is None else sdpa_mask(*args, attention_mask=attention_mask, **kwargs)
