"""Attention within each text of a packed batch, for every kind of self-attention that embedding models use.

`choose_kernel` takes one of these; `Case` lists what decides:

* `by_length` (CPU): texts of equal length are attended together, which needs neither padding nor a mask.
* `flash_attn` (CUDA, half precision): the package flash-attn, if it is installed; it knows windows and dropout.
* `varlen` (CUDA, half precision): torch's variable-length FlashAttention; it knows windows, but no dropout.
* `nested` (CUDA): scaled dot-product attention over torch's jagged tensors, for dropout and for float32.
* `padded` (CUDA): queries, keys and values are padded for the attention call alone; for position biases and the rest.

On CUDA no kernel waits for the device: the length of the longest text comes with the batch, and indices that depend on
text boundaries are computed once per batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
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

    @property
    def reach(self) -> tuple[int, int]:
        """How many neighbours on the left and on the right a token attends to, as FlashAttention counts; -1 for all."""
        neighbours = -1 if self.window is None else self.window - 1
        return neighbours, 0 if self.causal else neighbours

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


@dataclass(frozen=True)
class PaddedRows:
    """Where the packed tokens of a batch go if every text is padded to the longest.

    Attributes:
        positions: int64 (tokens,) position of each token in the padded batch, its two first dimensions flattened.
        real: (texts, 1, 1, longest) False at padding.
    """

    positions: Tensor
    real: Tensor

    @classmethod
    def of(cls, boundaries: Tensor, longest: int, tokens: int) -> PaddedRows:
        """Compute the positions, once for all layers: the result is cached on `boundaries`.

        Args:
            boundaries: (texts + 1,) cumulative text lengths.
            longest: tokens of the longest text.
            tokens: tokens of all texts.
        """
        cached: PaddedRows | None = getattr(boundaries, "_embedlab_rows", None)
        if cached is None or cached.real.shape[-1] != longest:
            lengths, steps = boundaries.diff(), torch.arange(longest, device=boundaries.device)
            numbers = torch.arange(len(lengths), device=boundaries.device)
            rows = numbers.repeat_interleave(lengths, output_size=tokens)  # without output_size it waits for the device
            offsets = torch.arange(tokens, device=boundaries.device) - boundaries[rows]
            cached = cls(rows * longest + offsets, (steps < lengths[:, None])[:, None, None, :])
            boundaries._embedlab_rows = cached  # type: ignore[attr-defined]
        return cached


def attend_padded(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, pattern: Pattern, longest: int | None = None
) -> Tensor:
    """Attention within each text, all texts padded to the longest for this call; arguments as `attend`."""
    longest = longest_of(boundaries, longest)
    rows = PaddedRows.of(boundaries, longest, len(query))
    texts = rows.real.shape[0]
    padded = []
    for tensor in (query, key, value):
        flat = tensor.new_zeros(texts * longest, *tensor.shape[1:]).index_copy(0, rows.positions, tensor)
        padded.append(flat.unflatten(0, (texts, longest)).transpose(1, 2))
    output = pattern.attend(padded[0], padded[1], padded[2], rows.real)
    return output.transpose(1, 2).flatten(0, 1).index_select(0, rows.positions)


def attend_nested(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, pattern: Pattern, longest: int | None = None
) -> Tensor:
    """Attention within each text over jagged tensors, for any precision and dropout; arguments as `attend`.

    torch runs FlashAttention or memory-efficient attention on CUDA. On CPU it knows no causal attention.
    """
    longest, offsets = longest_of(boundaries, longest), boundaries.to(torch.int64)
    jagged = [
        torch.nested.nested_tensor_from_jagged(
            tensor.contiguous(), offsets, min_seqlen=1, max_seqlen=longest
        ).transpose(1, 2)
        for tensor in (query, key, value)
    ]
    q, k, v = jagged
    output = F.scaled_dot_product_attention(
        q, k, v, dropout_p=pattern.dropout, is_causal=pattern.causal, scale=pattern.scaling
    )
    values: Tensor = output.transpose(1, 2).values()
    return values


def attend_varlen(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, pattern: Pattern, longest: int | None = None
) -> Tensor:
    """Attention within each text in one CUDA kernel for half precision; arguments as `attend`."""
    from torch.nn.attention.varlen import varlen_attn

    longest = longest_of(boundaries, longest)
    # A pair only with return_aux.
    return varlen_attn(  # type: ignore[return-value]
        query, key, value, boundaries, boundaries, longest, longest, scale=pattern.scaling, window_size=pattern.reach
    )


def attend_flash_attn(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, pattern: Pattern, longest: int | None = None
) -> Tensor:
    """Attention within each text with the package flash-attn; arguments as `attend`."""
    from flash_attn import flash_attn_varlen_func

    longest = longest_of(boundaries, longest)
    output: Tensor = flash_attn_varlen_func(
        query,
        key,
        value,
        boundaries,
        boundaries,
        longest,
        longest,
        dropout_p=pattern.dropout,
        softmax_scale=pattern.scaling,
        causal=pattern.causal,
        window_size=pattern.reach,
    )
    return output


def longest_of(boundaries: Tensor, longest: int | None) -> int:
    """Return the length of the longest text; on CUDA, looking it up waits for the device if it is not given."""
    return int(boundaries.diff().max()) if longest is None else longest


@dataclass(frozen=True)
class Case:
    """What decides which kernel can run.

    Attributes:
        cuda: whether the tensors are on a GPU.
        half: whether they are float16 or bfloat16.
        ampere: whether the GPU has compute capability 8.0 or more.
        head_size: dimensions of a head.
        dropout: whether attention weights are dropped.
        window: whether attention is limited to a window.
        bias: whether a bias is added to the scores.
    """

    cuda: bool
    half: bool = False
    ampere: bool = True
    head_size: int = 64
    dropout: bool = False
    window: bool = False
    bias: bool = False

    @classmethod
    def of(cls, query: Tensor, pattern: Pattern, longest: int | None = None) -> Case:
        """Describe a call. A window that no text is longer than does not count."""
        windowed = pattern.window is not None and (longest is None or longest > pattern.window)
        return cls(
            cuda=query.is_cuda,
            half=query.dtype in (torch.float16, torch.bfloat16),
            ampere=query.is_cuda and _capability(query.device.index or 0) >= (8, 0),
            head_size=query.shape[-1],
            dropout=pattern.dropout > 0,
            window=windowed,
            bias=pattern.bias is not None,
        )


FLASH_HEAD = 256  # the largest head of FlashAttention; its size must be a multiple of 8
Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, Pattern, "int | None"], Tensor]


def choose_kernel(case: Case, available: frozenset[str]) -> str:
    """Return the name of the fastest kernel that computes a case exactly.

    Args:
        case: what is to be computed.
        available: names of kernels that this installation offers, see `available_kernels`.

    >>> choose_kernel(Case(cuda=True, half=True), frozenset({"varlen", "nested"}))
    'varlen'
    >>> choose_kernel(Case(cuda=True, half=True, dropout=True), frozenset({"varlen", "nested"}))
    'nested'
    """
    if not case.cuda:
        return "by_length"
    flash = case.half and case.ampere and not case.bias and case.head_size % 8 == 0 and case.head_size <= FLASH_HEAD
    if flash and "flash_attn" in available:
        return "flash_attn"
    if flash and not case.dropout and "varlen" in available:
        return "varlen"
    if not (case.bias or case.window) and case.head_size % 8 == 0 and "nested" in available:
        return "nested"
    return "padded"


@cache
def available_kernels() -> frozenset[str]:
    """Return the names of the optional kernels of this installation."""
    offers = {
        "flash_attn": find_spec("flash_attn") is not None,
        "varlen": find_spec("torch.nn.attention.varlen") is not None,
        "nested": hasattr(torch.nested, "nested_tensor_from_jagged"),
    }
    return frozenset(name for name, is_offered in offers.items() if is_offered)


@cache
def _capability(device: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


KERNELS: dict[str, Kernel] = {
    "by_length": lambda q, k, v, boundaries, pattern, longest: attend_by_length(q, k, v, boundaries, pattern),
    "flash_attn": attend_flash_attn,
    "varlen": attend_varlen,
    "nested": attend_nested,
    "padded": attend_padded,
}


def attend(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, pattern: Pattern, longest: int | None = None
) -> Tensor:
    """Attention within each text, on the fastest kernel for the device.

    Keys and values may have fewer heads than queries (grouped-query attention).

    Args:
        query: (tokens, heads, head size).
        key: (tokens, heads, head size).
        value: (tokens, heads, head size).
        boundaries: (texts + 1,) cumulative text lengths.
        pattern: the kind of attention.
        longest: tokens of the longest text; looked up if None.

    Returns:
        (tokens, heads, head size).
    """
    if key.shape[1] != query.shape[1]:
        key, value = (t.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for t in (key, value))
    kernel = choose_kernel(Case.of(query, pattern, longest), available_kernels())
    return KERNELS[kernel](query, key, value, boundaries, pattern, longest)


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
        max_length_q: tokens of the longest text.
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
    longest = None if max_length_q is None else int(max_length_q)
    return attend(q, k, v, cu_seq_lens_q, pattern, longest).unsqueeze(0), None


def packed_mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """The standard mask for padded batches; None for packed ones, which use text boundaries instead."""
    return None if attention_mask is None else sdpa_mask(*args, attention_mask=attention_mask, **kwargs)
