"""TSDAE: a sentence embedding good enough to rebuild the text from (Wang, Reimers and Gurevych, EMNLP 2021).

The encoder reads a text with most of its words deleted; a decoder must write the whole text with nothing to look at
but the sentence embedding. What the embedding leaves out, the decoder cannot know.

In the paper the decoder is a copy of the encoder with cross-attention, all other weights tied. Here it is one fresh
layer whose embeddings and output matrix are the encoder's: a weak decoder leans more on the sentence embedding, costs a
fraction, and needs no weight shared between modules of different classes, which transformers 5 no longer supports.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedlab.errors import ModelError
from embedlab.training.pretraining.mlm import IGNORED, NoiseCollator, choose_positions, pad

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


# Tokens scored per training step: a batch of long texts has ten thousand, each with a score for every token of the
# vocabulary. The mean over some is an unbiased estimate of the mean over all.
MAX_SCORED = 4096


class DeletionCollator(NoiseCollator):
    """Deletes words, at least one stays; the label is the whole text.

    Args:
        model, texts, whole_words, seed: see `NoiseCollator`.
        share: of the words that are deleted; the paper found 0.6 best.
    """

    def __init__(self, model: SentenceTransformer, texts: Sequence[str], *, share: float = 0.6, **noise: Any) -> None:
        super().__init__(model, texts, **noise)
        self.share = share

    def damage(self, number: int, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        """(ids that are left, all ids); special tokens are never deleted."""
        ids, words = self.ids[number], self.words[number]
        kept = set(choose_positions(words, 1 - self.share, rng).tolist())
        left = [token for place, token in enumerate(ids) if words[place] is None or place in kept]
        return left, ids

    def lay_out(self, labels: Sequence[list[int]], features: dict[str, Any]) -> Tensor:
        """(rows, longest) whole texts, padded with `IGNORED`."""
        return pad(labels)

    def vocabulary(self) -> list[int]:
        """The token ids that occur in the texts."""
        return sorted(set(chain.from_iterable(self.ids)))


class DenoisingLoss(nn.Module):
    """Cross-entropy of rebuilding a text, token after token, from the embedding of what is left of it.

    Over a single vector cross-attention is a linear map: whatever the decoder asks, the answer is the sentence
    embedding. The decoder owns neither embeddings nor output matrix; both are the encoder's.

    Args:
        model: its first module is a transformer with an `embeddings` module.
        vocabulary: token ids that can occur; the others are left out of the softmax, which is most of its cost on
            domain text. All tokens when not given.
        layers: of the decoder.

    Raises:
        ModelError: the model has no such embeddings, or sentence embeddings of another size than its tokens'.
    """

    def __init__(self, model: SentenceTransformer, vocabulary: Sequence[int] | None = None, layers: int = 1) -> None:
        super().__init__()
        self.model = model
        tokens, width = _token_embeddings(model)
        ids = torch.arange(tokens) if vocabulary is None else torch.tensor(vocabulary)
        places = torch.full((tokens,), IGNORED).index_copy(0, ids, torch.arange(len(ids)))
        self.register_buffer("vocabulary", ids, persistent=False)
        self.register_buffer("places", places, persistent=False)
        layer = nn.TransformerDecoderLayer(
            width, _heads(model), 4 * width, dropout=0.1, activation="gelu", batch_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, layers)
        self.bias = nn.Parameter(torch.zeros(len(ids)))

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor) -> Tensor:
        """Mean loss per token.

        Args:
            sentence_features: one column, the damaged texts, packed or padded.
            labels: (batch, length) ids of the whole texts, padded with `IGNORED`.
        """
        (features,) = sentence_features
        sentence = self.model(features)["sentence_embedding"]  # (batch, d)
        targets = self.targets(labels)
        rows, columns = self._scored(targets)
        hidden = self.decode(sentence, labels[:, :-1])[rows, columns]  # (tokens, d)
        return F.cross_entropy(self.logits(hidden), self.places[targets[rows, columns]])

    def _scored(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and columns of the tokens in the loss: all of them, in training at most MAX_SCORED at random."""
        places = (targets != IGNORED).nonzero()
        if self.training and len(places) > MAX_SCORED:
            places = places[torch.randperm(len(places), device=places.device)[:MAX_SCORED]]
        return places[:, 0], places[:, 1]

    @staticmethod
    def targets(labels: Tensor) -> Tensor:
        """The tokens to predict: every one but the first, which starts the decoder."""
        return labels[:, 1:]

    def decode(self, sentence: Tensor, ids: Tensor) -> Tensor:
        """Hidden states (batch, length, d), each from the sentence embedding (batch, d) and the ids up to its own.

        Padding stands behind the text, where the causal mask hides it.
        """
        embeddings = self.model[0].model.embeddings(ids.masked_fill(ids == IGNORED, self.model.tokenizer.pad_token_id))
        length, width = embeddings.shape[1:]
        causal = nn.Transformer.generate_square_subsequent_mask(length, device=ids.device, dtype=embeddings.dtype)
        memory = F.normalize(sentence, dim=-1).unsqueeze(1) * width**0.5  # numbers of about 1, like hidden states
        return self.decoder(embeddings, memory, tgt_mask=causal, tgt_is_causal=True)

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, d) hidden states to (n, vocabulary) scores."""
        weight = self.model[0].model.get_input_embeddings().weight
        return F.linear(hidden, weight.index_select(0, self.vocabulary), self.bias)


def _token_embeddings(model: SentenceTransformer) -> tuple[int, int]:
    """(tokens, d) of the embeddings to be shared."""
    transformer = getattr(model[0], "model", None)
    if not hasattr(transformer, "embeddings"):
        problem = f"{type(transformer).__name__} has no embeddings that a decoder could share"
        raise ModelError(problem, remedy="Pre-train a BERT-like encoder with TSDAE, or choose another objective")
    table = transformer.get_input_embeddings()
    if table.embedding_dim != model.get_embedding_dimension():
        problem = f"tokens have {table.embedding_dim} dimensions, sentences {model.get_embedding_dimension()}"
        raise ModelError(
            problem, remedy="Pre-train a model without a layer behind its pooling, or choose another objective"
        )
    return table.num_embeddings, table.embedding_dim


def _heads(model: SentenceTransformer) -> int:
    return model[0].model.config.num_attention_heads
