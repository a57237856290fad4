"""How much of a padded run is padding, and how much faster a run without any could be at the same rate of arithmetic.

One multiplication with its addition counts as two operations (FLOPs). Embeddings, norms, activations and the optimizer
are left out: they are a few per cent of the arithmetic, though not always of the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Lengths = Sequence[int]  # tokens of every text


@dataclass(frozen=True)
class Shape:
    """The sizes of a BERT-like encoder."""

    layers: int
    hidden: int
    inner: int
    vocabulary: int

    @classmethod
    def of(cls, config: Any) -> Shape:
        """From a transformers configuration."""
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
    """`lengths` cut into batches, in order."""
    return (lengths[start : start + batch_size] for start in range(0, len(lengths), batch_size))


def padded_tokens(lengths: Lengths, batch_size: int) -> int:
    """Tokens computed when every batch is padded to its longest text."""
    return sum(len(batch) * max(batch) for batch in batches(lengths, batch_size))


def padding_share(lengths: Lengths, batch_size: int) -> float:
    """Share of the tokens computed that are padding, in [0, 1)."""
    return 1 - sum(lengths) / padded_tokens(lengths, batch_size)


def forward_flops(padded_batches: Iterable[Lengths], shape: Shape, *, packed: bool, head_share: float = 0.0) -> int:
    """FLOPs of a forward pass; a training step takes three times as many, packed or not.

    Args:
        padded_batches: lengths of the texts that are padded to one width.
        shape: of the model.
        packed: count every text at its own length, not at its batch's longest.
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
    """Tokens with and without padding, FLOPs of both, and the ratio to expect where arithmetic alone takes time."""
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
