"""Causal language modelling on domain text: every token is predicted from the tokens before it (Radford et al. 2018).

It is the objective for decoders (Qwen, Llama, Mistral, causal Gemma), which have no mask token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedlab.models.packing import on_device, without_gradients
from embedlab.models.tokens import to_features, token_ids
from embedlab.training.pretraining.mlm import IGNORED, NoiseCollator, TokenLoss

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PROBE = "Does the start of this sentence change with its end?"
SMALL = 1e-4  # of the change that a token causes in its own state; rounding is smaller
# Tokens scored at a time: each has a score for every token of a vocabulary of up to 260,000.
MAX_SCORED = 2048


class NextTokenCollator(NoiseCollator):
    """Leave the texts as they are; the label of a token is the token after it."""

    def corrupt(self, index: int, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        """Return the token ids of a text, and at each position the id of the next token; the last has none."""
        ids = self.ids[index]
        return ids, [*ids[1:], IGNORED]


class NextTokenLoss(TokenLoss):
    """Cross-entropy of the next token.

    An embedding model has no output matrix. Its token embeddings take that place, as in decoders with tied weights,
    after a linear layer that starts as the identity. For tied decoders the first loss is that of `…ForCausalLM`.

    In training, at most `MAX_SCORED` random tokens of a batch are scored: an unbiased estimate of the mean.

    Args:
        model: its first module is a transformer with causal attention.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__(model)
        self.dense = self._identity()
        self.bias = nn.Parameter(torch.zeros(self._embeddings().num_embeddings))

    def score(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss from hidden states (tokens, d) and labels (tokens,); a scalar."""
        positions = (labels != IGNORED).nonzero()[:, 0]
        if self.training and len(positions) > MAX_SCORED:
            positions = positions[torch.randperm(len(positions), device=positions.device)[:MAX_SCORED]]
        sums = [
            F.cross_entropy(self.logits(hidden[scored]), labels[scored], reduction="sum")
            for scored in positions.split(MAX_SCORED)
        ]
        return torch.stack(sums).sum() / len(positions)

    def logits(self, hidden: Tensor) -> Tensor:
        """Compute vocabulary scores (n, vocabulary) from hidden states (n, d)."""
        return F.linear(self.dense(hidden), self._embeddings().weight, self.bias)


def is_causal(model: SentenceTransformer) -> bool:
    """Whether the hidden state of a token stays the same when a later token changes."""
    ids = [int(token) for token in token_ids(model, [PROBE])[0]]
    changed = [*ids[:-1], next(token for token in ids if token != ids[-1])]
    with without_gradients(model):
        features = on_device(to_features(model, [ids, changed]), model.device)
        states = model[0](features)["token_embeddings"].reshape(2, len(ids), -1)
    moved = (states[0] - states[1]).abs().amax(dim=-1)
    return bool(moved[:-1].max() < SMALL * moved[-1])
