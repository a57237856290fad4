"""Count padding, and the speed-up that leaving it out allows at the same FLOPs per second.

One multiplication with its addition counts as two operations (FLOPs). Embeddings, norms, activations and the optimizer
are not counted. They are a few per cent of the FLOPs, but sometimes a larger share of the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Lengths = Sequence[int]  # number of tokens per text


@dataclass(frozen=True)
class Shape:
    """The sizes of a BERT-like encoder."""

    layers: int
    hidden: int
    inner: int
    vocabulary: int

    @classmethod
    def of(cls, config: Any) -> Shape:
        """Read the sizes from a transformers configuration."""
        return cls(config.num_hidden_layers, config.hidden_size, config.intermediate_size, config.vocab_size)

    @property
    def linear_flops(self) -> int:
        """FLOPs per token of all linear layers, forward: query, key, value, output (d x d) and two of d x inner."""
        return self.layers * (8 * self.hidden**2 + 4 * self.hidden * self.inner)

    @property
    def head_flops(self) -> int:
        """FLOPs per predicted token of a masked-language head: dense (d x d) and the vocabulary projection."""
        return 2 * self.hidden**2 + 2 * self.hidden * self.vocabulary

    def attention_flops(self, length: int) -> int:
        """FLOPs of the scores and the weighted sum of one text, over all layers, forward."""
        return self.layers * 4 * length**2 * self.hidden


def batches(lengths: Lengths, batch_size: int) -> Iterator[Lengths]:
    """Split `lengths` into batches, in order."""
    return (lengths[start : start + batch_size] for start in range(0, len(lengths), batch_size))


def padded_tokens(lengths: Lengths, batch_size: int) -> int:
    """Count the tokens if every batch is padded to its longest text."""
    return sum(len(batch) * max(batch) for batch in batches(lengths, batch_size))


def padding_share(lengths: Lengths, batch_size: int) -> float:
    """Return the share of padding among these tokens, in [0, 1)."""
    return 1 - sum(lengths) / padded_tokens(lengths, batch_size)


def forward_flops(padded_batches: Iterable[Lengths], shape: Shape, *, packed: bool, head_share: float = 0.0) -> int:
    """Count the FLOPs of a forward pass; a training step takes three times as many, packed or not.

    Args:
        padded_batches: lengths of the texts that are padded together.
        shape: of the model.
        packed: count every text with its own length instead of the longest of its batch.
        head_share: share of the tokens that a masked-language head predicts when packed; a stock head predicts all.
    """
    total = 0
    for batch in padded_batches:
        computed = list(batch) if packed else [max(batch)] * len(batch)
        tokens = sum(computed)
        total += tokens * shape.linear_flops + sum(map(shape.attention_flops, computed))
        if head_share:
            total += int(tokens * (head_share if packed else 1) * shape.head_flops)
    return total


def roofline(padded_batches: Sequence[Lengths], shape: Shape, head_share: float = 0.0) -> dict[str, float]:
    """Return tokens and FLOPs with and without padding, and the ratio: the speed-up if only FLOPs took time."""
    real = sum(sum(batch) for batch in padded_batches)
    padded = sum(len(batch) * max(batch) for batch in padded_batches)
    packed_flops = forward_flops(padded_batches, shape, packed=True, head_share=head_share)
    padded_flops = forward_flops(padded_batches, shape, packed=False, head_share=head_share)
    return {
        "real_tokens": real,
        "padded_tokens": padded,
        "padding_share": round(1 - real / padded, 4),
        "forward_gflops_packed": round(packed_flops / 1e9, 2),
        "forward_gflops_padded": round(padded_flops / 1e9, 2),
        "flops_ratio": round(padded_flops / packed_flops, 3),
    }
