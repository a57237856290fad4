"""Layers of architectures whose attention needs more than the attention interface to run on packed batches.

T5 and MPNet add a bias by relative position. It depends on distances within a text only, so the bias of the longest
text serves all; computed for the packed row it would have the square of all tokens as its size. MPNet, in addition,
does not use the attention interface. The layers here replace the class of existing layers and keep their weights.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder, MPNetModel, MPNetSelfAttention
from transformers.models.t5.modeling_t5 import T5Attention

from embedlab.models.packed_attention import Pattern, attend


class PackedT5Attention(T5Attention):
    """T5's attention with a position bias of the size of the longest text."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Compute attention; a packed batch is recognised by `max_length_q`."""
        longest = kwargs.get("max_length_q")
        if longest is not None and kwargs.get("position_bias") is None:
            kwargs["position_bias"] = self._bias(int(longest), hidden_states)
        return super().forward(hidden_states, *args, **kwargs)

    def _bias(self, longest: int, like: Tensor) -> Tensor:
        if self.has_relative_attention_bias:
            return self.compute_bias(longest, longest, device=like.device)
        return like.new_zeros(1, self.n_heads, longest, longest)


class PackedMPNetSelfAttention(MPNetSelfAttention):
    """MPNet's attention; the text boundaries of a packed batch come in place of the mask."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        output_attentions: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, ...]:
        """Compute attention for a packed batch, or as MPNet does for a padded one."""
        if not _are_boundaries(attention_mask):
            return super().forward(hidden_states, attention_mask, position_bias, output_attentions, **kwargs)
        boundaries = attention_mask.flatten()
        # (1, tokens, hidden) -> (tokens, heads, head size)
        shape = (-1, self.num_attention_heads, self.attention_head_size)
        q, k, v = (linear(hidden_states).view(shape) for linear in (self.q, self.k, self.v))
        dropout = self.dropout.p if self.training else 0.0
        longest = None if position_bias is None else position_bias.shape[-1]
        attended = attend(q, k, v, boundaries, Pattern(bias=position_bias, dropout=dropout), longest)
        return (self.o(attended.flatten(1).unsqueeze(0)),)


class PackedMPNetEncoder(MPNetEncoder):
    """MPNet's encoder; computes the position bias of a packed batch for the longest text only."""

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
        """Encode a packed batch, or a padded one as MPNet does."""
        self._longest = int(attention_mask.flatten().diff().max()) if _are_boundaries(attention_mask) else None
        return super().forward(hidden_states, attention_mask=attention_mask, **kwargs)

    def compute_position_bias(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the bias (1, heads, longest, longest) if packed, (batch, heads, length, length) if padded."""
        if self._longest is not None:
            x = x.new_empty(1, self._longest, 1)
        return super().compute_position_bias(x, *args, **kwargs)


class PackedMPNetModel(MPNetModel):
    """MPNet, with the text boundaries of a packed batch passed to its layers as a mask of four dimensions."""

    def forward(self, *args: Any, cu_seq_lens_q: Tensor | None = None, **kwargs: Any) -> Any:
        """Run the model; `cu_seq_lens_q` (texts + 1,) marks a packed batch."""
        if cu_seq_lens_q is not None:
            kwargs["attention_mask"] = cu_seq_lens_q.to(torch.int32)[None, None, None, :]
        return super().forward(*args, **kwargs)


PackedMPNetModel.__name__ = "MPNetModel"  # `save_pretrained` writes the name of the class to config.json

REPLACEMENTS: dict[type[nn.Module], type[nn.Module]] = {
    T5Attention: PackedT5Attention,
    MPNetSelfAttention: PackedMPNetSelfAttention,
    MPNetEncoder: PackedMPNetEncoder,
    MPNetModel: PackedMPNetModel,
}


def _are_boundaries(mask: Tensor | None) -> TypeGuard[Tensor]:
    return mask is not None and mask.dtype == torch.int32


def covers(network: nn.Module) -> bool:
    """Whether `network` has replacement layers because its attention does not use the attention interface."""
    return isinstance(network, MPNetModel)


def install(network: nn.Module) -> None:
    """Replace the class of every layer in `network` that has a packed version."""
    for module in network.modules():
        if type(module) in REPLACEMENTS:
            module.__class__ = REPLACEMENTS[type(module)]


def remove(network: nn.Module) -> None:
    """Undo `install`."""
    originals = {packed: original for original, packed in REPLACEMENTS.items()}
    for module in network.modules():
        if type(module) in originals:
            module.__class__ = originals[type(module)]
