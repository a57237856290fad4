"""TSDAE: train sentence embeddings by reconstructing the text from them (Wang, Reimers and Gurevych, EMNLP 2021).

The encoder reads a text with most words deleted. A decoder reconstructs the full text from the sentence embedding
only, so the embedding must contain what the text says.

In the paper, and in DenoisingAutoEncoderLoss of sentence-transformers, the decoder is a copy of the encoder with
cross-attention and tied weights. Here it is one new layer that uses the token embeddings of the encoder for input and
output. A small decoder depends more on the sentence embedding, costs less, and does not share weights between modules
of different classes, which transformers 5 no longer supports.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedlab.errors import ModelError
from embedlab.training import group
from embedlab.training.pretraining.mlm import IGNORED, NoiseCollator, choose_positions, pad

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


# Tokens scored per training step. A batch of long texts has ten thousand tokens, each with a score for every token of
# the vocabulary. The mean over a random subset is an unbiased estimate.
MAX_SCORED = 4096
DECODER_LAYERS = 1


class DeletionCollator(NoiseCollator):
    """Delete words, but at least one stays; the labels are the full text.

    Args:
        model: see `NoiseCollator`.
        texts: see `NoiseCollator`.
        share: share of words to delete; 0.6 was best in the paper.
        **noise: `whole_words` and `seed` of `NoiseCollator`.
    """

    def __init__(self, model: SentenceTransformer, texts: Sequence[str], *, share: float = 0.6, **noise: Any) -> None:
        super().__init__(model, texts, **noise)
        self.share = share

    def corrupt(self, index: int, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        """Return the token ids that remain, and all token ids as labels; special tokens always remain."""
        ids, words = self.ids[index], self.words[index]
        undeleted = set(choose_positions(words, 1 - self.share, rng).tolist())
        remaining = [token for position, token in enumerate(ids) if words[position] is None or position in undeleted]
        return remaining, ids

    def lay_out(self, labels: Sequence[list[int]], features: dict[str, Any]) -> Tensor:
        """Return the full texts (B, length), padded with `IGNORED`."""
        return pad(labels)

    def vocabulary(self) -> list[int]:
        """Return the token ids that occur in the texts, sorted."""
        return sorted(set(chain.from_iterable(self.ids)))


class DenoisingLoss(nn.Module):
    """Cross-entropy of reconstructing a text, token by token, from the embedding of its corrupted version.

    With a single vector, cross-attention is a linear map: every decoder position attends to the sentence embedding.

    Args:
        model: its first module is a transformer with token embeddings.
        vocabulary: token ids that can occur; a softmax over these only saves most of its cost on domain text. None
            uses all tokens.

    Raises:
        ModelError: the token embeddings have another dimension than the sentence embeddings.
    """

    vocabulary: Tensor
    index_of_id: Tensor

    def __init__(self, model: SentenceTransformer, vocabulary: Sequence[int] | None = None) -> None:
        super().__init__()
        if problem := unsuitable_dimensions(model):
            raise ModelError(f"tsdae {problem}", remedy="Use another objective")
        self.model = model
        embeddings = model[0].model.get_input_embeddings()
        tokens, dim = embeddings.num_embeddings, embeddings.embedding_dim
        ids = torch.arange(tokens) if vocabulary is None else torch.tensor(vocabulary)
        index_of_id = torch.full((tokens,), IGNORED).index_copy(0, ids, torch.arange(len(ids)))
        self.register_buffer("vocabulary", ids, persistent=False)
        self.register_buffer("index_of_id", index_of_id, persistent=False)
        layer = nn.TransformerDecoderLayer(
            dim, _heads(model, dim), 4 * dim, dropout=0.1, activation="gelu", batch_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, DECODER_LAYERS)
        self.bias = nn.Parameter(torch.zeros(len(ids)))

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor) -> Tensor:
        """Compute the mean loss per token.

        Args:
            sentence_features: one column, the corrupted texts, packed or padded.
            labels: int (B, length) token ids of the full texts, padded with `IGNORED`.

        Returns:
            A scalar.
        """
        (features,) = sentence_features
        if share := group.own_share(self.model, features):
            own_labels = labels[share.texts]
            counts = [int((self.targets(ids) != IGNORED).sum()) for ids in (own_labels, labels)]
            return group.share_of_mean(partial(self._loss, share.features, own_labels), *counts)
        return self._loss(features, labels)

    def _loss(self, features: dict[str, Any], labels: Tensor) -> Tensor:
        sentence = self.model(features)["sentence_embedding"]  # (B, d)
        targets = self.targets(labels)
        rows, columns = self._scored_positions(targets)
        hidden = self.decode(sentence, labels[:, :-1])[rows, columns]  # (tokens, d)
        return F.cross_entropy(self.logits(hidden), self.index_of_id[targets[rows, columns]])

    def _scored_positions(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows and columns of the tokens in the loss; in training at most MAX_SCORED random ones."""
        positions = (targets != IGNORED).nonzero()
        if self.training and len(positions) > MAX_SCORED:
            positions = positions[torch.randperm(len(positions), device=positions.device)[:MAX_SCORED]]
        return positions[:, 0], positions[:, 1]

    @staticmethod
    def targets(labels: Tensor) -> Tensor:
        """Return the tokens to predict, int (B, length - 1): all but the first, which starts the decoder."""
        return labels[:, 1:]

    def decode(self, sentence: Tensor, ids: Tensor) -> Tensor:
        """Compute decoder states from the sentence embedding and the preceding tokens.

        Args:
            sentence: (B, d) sentence embeddings.
            ids: int (B, length) token ids, padded with `IGNORED` at the end, where the causal mask hides the padding.

        Returns:
            (B, length, d).
        """
        embeddings = self._embed(ids.masked_fill(ids == IGNORED, self.model.tokenizer.pad_token_id or 0))
        length, dim = embeddings.shape[1:]
        causal = nn.Transformer.generate_square_subsequent_mask(length, device=ids.device, dtype=embeddings.dtype)
        memory = F.normalize(sentence, dim=-1).unsqueeze(1) * dim**0.5  # entries of about 1, like hidden states
        return self.decoder(embeddings, memory, tgt_mask=causal, tgt_is_causal=True)

    def _embed(self, ids: Tensor) -> Tensor:
        """Embed token ids (B, length) with positions: the encoder's own, or sinusoids if it adds none to its tokens."""
        network = self.model[0].model
        if getattr(getattr(network, "embeddings", None), "position_embeddings", None) is not None:
            return network.embeddings(ids)
        embeddings = network.get_input_embeddings()(ids)
        normed = F.layer_norm(embeddings, embeddings.shape[-1:])  # tokens and positions of about one, as the memory
        return normed + sinusoids(*embeddings.shape[1:]).to(normed)

    def logits(self, hidden: Tensor) -> Tensor:
        """Compute scores (n, vocabulary) from hidden states (n, d)."""
        weight = self.model[0].model.get_input_embeddings().weight
        return F.linear(hidden, weight.index_select(0, self.vocabulary), self.bias)


def unsuitable_dimensions(model: SentenceTransformer) -> str | None:
    """Return why the decoder cannot share a model's token embeddings, in words that follow "tsdae"; None if it can."""
    network: Any = getattr(model[0], "model", None)
    if not hasattr(network, "get_input_embeddings"):
        return f"needs token embeddings to share with its decoder, {type(network).__name__} has none"
    tokens, sentences = network.get_input_embeddings().embedding_dim, model.get_embedding_dimension()
    if tokens == sentences:
        return None
    return f"needs token and sentence embeddings of the same dimension, got {tokens} and {sentences}"


def sinusoids(length: int, dim: int) -> Tensor:
    """Return the position encodings (length, dim) of Vaswani et al. 2017, scaled to about unit variance.

    >>> (sinusoids(1, 4) / 2**0.5).tolist()
    [[0.0, 0.0, 1.0, 1.0]]
    """
    frequencies = 10000 ** (-torch.arange(dim // 2) / (dim // 2))
    angles = torch.arange(length)[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=-1) * 2**0.5
    return F.pad(waves, (0, dim - waves.shape[1]))


def _heads(model: SentenceTransformer, dim: int) -> int:
    """Return the model's number of attention heads, or the largest number below that divides `dim`."""
    return math.gcd(model[0].model.config.num_attention_heads, dim)
