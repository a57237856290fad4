"""Masked language modelling (MLM) on domain text, with vocabulary scores at masked positions only.

The standard head (`BertForMaskedLM`) scores every token against the whole vocabulary (30,522 x 384 multiplications)
although only the masked 15 % enter the loss. Selecting those positions first gives the same loss and gradient for a
seventh of the work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedlab.models.packing import on_device
from embedlab.models.tokens import count_overflowing, to_features
from embedlab.training import group
from embedlab.training.truncated import Cut

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

IGNORED = -100  # label of a position that is not predicted
TEXTS_PER_FORWARD = 64  # when perplexity is computed
SPACE = "▁"  # SentencePiece writes the space before a word like this


class TokenLoss(nn.Module):
    """Base class: cross-entropy of token predictions, with the model's token embeddings as output matrix.

    Args:
        model: its first module is a transformer with token embeddings.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.model = model

    def _embeddings(self) -> nn.Embedding:
        return self.model[0].model.get_input_embeddings()

    def _identity(self) -> nn.Linear:
        """Return a linear layer from hidden states to token embeddings that starts as the identity."""
        dense = nn.Linear(hidden_size(self.model), self._embeddings().embedding_dim)
        nn.init.eye_(dense.weight)
        nn.init.zeros_(dense.bias)
        return dense

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor) -> Tensor:
        """Compute the mean loss over the positions whose label is not `IGNORED`.

        Args:
            sentence_features: one column, packed or padded.
            labels: int (tokens,) or (B, length) token ids in the layout of `input_ids`.

        Returns:
            A scalar.
        """
        (features,) = sentence_features
        if share := group.own_share(self.model, features):
            own_labels = share.of_tokens(labels)
            own_loss = partial(self._loss, share.features, own_labels)
            return group.share_of_mean(own_loss, _count(own_labels), _count(labels))
        return self._loss(features, labels)

    def _loss(self, features: dict[str, Any], labels: Tensor) -> Tensor:
        hidden = self.model[0](features)["token_embeddings"].flatten(0, 1)  # (tokens, d)
        return self.score(hidden, labels.flatten())

    def score(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss from hidden states (tokens, d) and labels (tokens,); a scalar."""
        predicted = labels != IGNORED
        return F.cross_entropy(self.logits(hidden[predicted]), labels[predicted])

    @staticmethod
    def targets(labels: Tensor) -> Tensor:
        """Return the tokens to predict, `IGNORED` elsewhere: the labels, in their shape."""
        return labels

    def logits(self, hidden: Tensor) -> Tensor:
        """Compute vocabulary scores (n, vocabulary) from hidden states (n, d)."""
        raise NotImplementedError


class MaskedLanguageLoss(TokenLoss):
    """Cross-entropy of the masked tokens with BERT's prediction head (Devlin et al. 2019).

    An embedding model has no prediction head, so this loss creates one: dense layer, GELU, layer norm, and a decoder
    that shares the token embeddings and adds a bias. The dense layer starts as the identity, so the first predictions
    already use the hidden states of the encoder.

    Args:
        model: its first module is a transformer with token embeddings.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__(model)
        self.dense = self._identity()
        self.norm = nn.LayerNorm(self.dense.out_features, eps=1e-12)
        self.bias = nn.Parameter(torch.zeros(self._embeddings().num_embeddings))

    def logits(self, hidden: Tensor) -> Tensor:
        """Compute vocabulary scores (n, vocabulary) from hidden states (n, d)."""
        return F.linear(self.norm(F.gelu(self.dense(hidden))), self._embeddings().weight, self.bias)


def _count(labels: Tensor) -> int:
    """Number of tokens to predict."""
    return int((labels != IGNORED).sum())


def hidden_size(model: SentenceTransformer) -> int:
    """Return the size of the transformer's hidden states, which may differ from that of its token embeddings."""
    return int(model[0].model.config.hidden_size)


def choose_positions(words: Sequence[int | None], probability: float, rng: np.random.Generator) -> np.ndarray:
    """Choose whole words at random and return the positions of their tokens.

    Args:
        words: word index of every token, None for special tokens. With a different index for each token, word pieces
            are chosen independently.
        probability: probability of each word. If no word is chosen, one is drawn.
        rng: random generator.

    Returns:
        int (n,), token positions in order; empty if there is no word.
    """
    distinct = sorted({word for word in words if word is not None})
    if not distinct:
        return np.empty(0, dtype=np.int64)
    picked = {word for word in distinct if rng.random() < probability} or {int(rng.choice(distinct))}
    return np.array([position for position, word in enumerate(words) if word in picked])


def corrupt(
    ids: Sequence[int], positions: np.ndarray, mask_id: int, vocabulary: int, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Apply BERT's masking: of the positions 80 % become the mask token, 10 % a random token, 10 % stay unchanged.

    Args:
        ids: token ids of a text.
        positions: int (n,), positions to predict.
        mask_id: id of the mask token.
        vocabulary: number of tokens.
        rng: random generator.

    Returns:
        Corrupted token ids, and labels: the original ids at `positions`, `IGNORED` elsewhere.
    """
    corrupted, labels = list(ids), [IGNORED] * len(ids)
    for position, draw in zip(positions.tolist(), rng.random(len(positions)), strict=True):
        labels[position] = ids[position]
        if draw < 0.8:
            corrupted[position] = mask_id
        elif draw < 0.9:
            corrupted[position] = int(rng.integers(vocabulary))
    return corrupted, labels


class NoiseCollator(ABC):
    """Trainer collator that corrupts a text differently each time; the labels say what to predict.

    Rows contain `label`, the index of a text. Texts are tokenised once. The noise of a batch depends only on the seed
    and on the number of earlier batches, so a resumed training continues as if it had not stopped.

    Args:
        model: its tokenizer is used, and it decides whether batches are packed.
        texts: N texts; `label` points into this list.
        whole_words: corrupt all pieces of a word or none.
        seed: seed of the noise.

    Attributes:
        batches: batches created so far.
        ids: token ids of each text.
        words: word index of each token of each text, None for special tokens.
        cut: how many of the texts are truncated.
    """

    valid_label_columns = ("label",)

    def __init__(
        self, model: SentenceTransformer, texts: Sequence[str], *, whole_words: bool = True, seed: int = 0
    ) -> None:
        self.model, self.seed, self.batches = model, seed, 0
        encoded = model.tokenizer(list(texts), truncation=True, max_length=model.max_seq_length)
        self.ids: list[list[int]] = encoded["input_ids"]
        self.cut = Cut(len(self.ids), count_overflowing(encoded))
        self.words = [_word_numbers(encoded.word_ids(i), encoded.tokens(i), whole_words) for i in range(len(self.ids))]

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the features of the corrupted texts, prefixed with `text_`, and `label`, the tokens to predict."""
        rng = np.random.default_rng((self.seed, self.batches))
        self.batches += 1
        corrupted, labels = zip(*(self.corrupt(row["label"], rng) for row in rows), strict=True)
        features = to_features(self.model, list(corrupted))
        return {
            "label": self.lay_out(labels, features),
            **{f"text_{key}": value for key, value in features.items()},
        }

    def training_state(self, batches: int) -> dict[str, Any]:
        """Return the number of batches used so far, for a checkpoint; batches prepared in advance come again."""
        return {"batches": batches}

    def restore_training_state(self, state: dict[str, Any]) -> None:
        """Continue the noise after the batches of `training_state`."""
        self.batches = state["batches"]

    @abstractmethod
    def corrupt(self, index: int, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        """Return the corrupted token ids and the labels of a text."""

    def lay_out(self, labels: Sequence[list[int]], features: dict[str, Any]) -> Tensor:
        """Combine the labels of a batch into one tensor: by default one per token, see `like_inputs`."""
        return like_inputs(labels, features)


class MaskingCollator(NoiseCollator):
    """Mask words, different ones each time a text occurs (dynamic masking, Liu et al. 2019).

    Args:
        model: see `NoiseCollator`.
        texts: see `NoiseCollator`.
        probability: share of words to predict.
        **noise: `whole_words` and `seed` of `NoiseCollator`.
    """

    def __init__(
        self, model: SentenceTransformer, texts: Sequence[str], *, probability: float = 0.15, **noise: Any
    ) -> None:
        super().__init__(model, texts, **noise)
        self.probability = probability

    def corrupt(self, index: int, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        """Return token ids with masked words, and labels: the masked ids, `IGNORED` elsewhere."""
        tokenizer = self.model.tokenizer
        positions = choose_positions(self.words[index], self.probability, rng)
        return corrupt(self.ids[index], positions, tokenizer.mask_token_id, len(tokenizer), rng)


def like_inputs(labels: Sequence[list[int]], features: dict[str, Any]) -> Tensor:
    """Arrange one label per token like `input_ids`: (tokens,) if packed, else (B, length) with `IGNORED` at padding."""
    flat = torch.tensor([label for row in labels for label in row])
    if "cu_seq_lens_q" in features:
        return flat
    real = features["attention_mask"].bool()  # padding may be on either side
    return torch.full(real.shape, IGNORED).masked_scatter(real, flat)


def pad(rows: Sequence[list[int]]) -> Tensor:
    """Pad lists of token ids with `IGNORED` to one tensor (B, length of the longest)."""
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=IGNORED)


def _word_numbers(words: list[int | None], pieces: Sequence[str], whole_words: bool) -> list[int | None]:
    """Return the word of every token, None for special tokens; single tokens count as words unless `whole_words`.

    Tokenizers that mark the start of a word in the piece itself (`▁word`: Gemma, Llama) report one word per text.
    """
    if not whole_words:
        return [None if word is None else i for i, word in enumerate(words)]
    if len({word for word in words if word is not None}) > 1 or not any(SPACE in piece for piece in pieces):
        return words
    starts = np.cumsum([piece.startswith(SPACE) for piece in pieces]).tolist()
    return [None if word is None else start for word, start in zip(words, starts, strict=True)]


@torch.inference_mode()
def perplexity(loss: nn.Module, texts: Sequence[str], *, collator: NoiseCollator | None = None) -> float:
    """Compute the perplexity on `texts`: exp of the mean loss per predicted token, always with the same noise.

    Args:
        loss: returns the mean over the tokens that its `targets` returns.
        texts: texts that are not in the training set.
        collator: a new collator over `texts`; None masks 15 % of the words.
    """
    mode = loss.training  # the Trainer only switches the model; dropout of the head must be restored here
    loss.eval()
    head: Any = loss  # its `model` and `targets` are not part of nn.Module
    collator = collator or MaskingCollator(head.model, texts)
    total, count = 0.0, 0
    for batch in _batches(collator, len(texts)):
        batch = on_device(batch, head.model.device)
        labels = batch.pop("label")
        predicted = int((head.targets(labels) != IGNORED).sum())
        features = {key.removeprefix("text_"): value for key, value in batch.items()}
        total += loss([features], labels).item() * predicted
        count += predicted
    loss.train(mode)
    return float(np.exp(total / count))


def unigram_perplexity(
    model: SentenceTransformer, training: Sequence[str], texts: Sequence[str], *, collator: NoiseCollator | None = None
) -> float:
    """Compute the perplexity of a unigram language model, which only knows how often each token occurs.

    The predicted tokens are those of `perplexity`.

    Args:
        model: its tokenizer is used.
        training: texts in which the tokens are counted, plus one for every token.
        texts: texts to predict.
        collator: as for `perplexity`.
    """
    counts = np.ones(len(model.tokenizer))
    for ids in model.tokenizer(list(training), add_special_tokens=False)["input_ids"]:
        np.add.at(counts, ids, 1)
    batches = _batches(collator or MaskingCollator(model, texts), len(texts))
    labels = np.concatenate([batch["label"].flatten().numpy() for batch in batches])
    return float(np.exp(-np.log(counts / counts.sum())[labels[labels != IGNORED]].mean()))


def _batches(collator: NoiseCollator, count: int) -> Iterator[dict[str, Any]]:
    for start in range(0, count, TEXTS_PER_FORWARD):
        yield collator([{"label": index} for index in range(start, min(start + TEXTS_PER_FORWARD, count))])
