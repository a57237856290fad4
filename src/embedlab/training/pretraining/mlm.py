"""Masked-language-model pre-training on domain text, with the vocabulary projection at masked positions only.

A stock head scores every token against the whole vocabulary (30,522 x 384 multiplications each) although only the
masked 15 % enter the loss. Choosing those positions first gives the same loss and gradient for a seventh of the work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedlab.models.tokens import to_features

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

IGNORED = -100  # label of a position that is not predicted


class MaskedLanguageLoss(nn.Module):
    """Cross-entropy of the hidden tokens (Devlin et al. 2019), through BERT's prediction head.

    An embedding model has no head, so one is built: dense, GELU, layer norm, and a decoder that shares the input word
    embeddings and adds a bias. The dense layer starts as the identity, so that the first predictions already use what
    the encoder knows.

    Args:
        model: its first module is a transformer with word embeddings.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.model = model
        embeddings = self._embeddings()
        self.dense = nn.Linear(embeddings.embedding_dim, embeddings.embedding_dim)
        nn.init.eye_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)
        self.norm = nn.LayerNorm(embeddings.embedding_dim, eps=1e-12)
        self.bias = nn.Parameter(torch.zeros(embeddings.num_embeddings))

    def _embeddings(self) -> nn.Embedding:
        return self.model[0].model.get_input_embeddings()

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor) -> Tensor:
        """Mean loss over the positions whose label is not `IGNORED`.

        Args:
            sentence_features: one column, packed or padded.
            labels: (tokens,) or (batch, length) token ids in the layout of `input_ids`.
        """
        (features,) = sentence_features
        hidden = self.model[0](features)["token_embeddings"].flatten(0, 1)  # (tokens, d)
        labels = labels.flatten()
        chosen = labels != IGNORED
        return F.cross_entropy(self.logits(hidden[chosen]), labels[chosen])

    @staticmethod
    def targets(labels: Tensor) -> Tensor:
        """The tokens to predict among `IGNORED`: here the labels themselves."""
        return labels

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, d) hidden states to (n, vocabulary) scores."""
        return F.linear(self.norm(F.gelu(self.dense(hidden))), self._embeddings().weight, self.bias)


def choose_positions(words: Sequence[int | None], probability: float, rng: np.random.Generator) -> np.ndarray:
    """Token positions to predict: whole words, chosen with `probability`, at least one where there is a word.

    Args:
        words: word number of every token, None for special tokens. Give each token a number of its own to mask
            word pieces independently.
        probability: share of the words.
        rng: source of chance.
    """
    distinct = sorted({word for word in words if word is not None})
    if not distinct:
        return np.empty(0, dtype=np.int64)
    picked = {word for word in distinct if rng.random() < probability} or {int(rng.choice(distinct))}
    return np.array([position for position, word in enumerate(words) if word in picked])


def corrupt(
    ids: Sequence[int], positions: np.ndarray, mask_id: int, vocabulary: int, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """(corrupted ids, labels): of the chosen positions 80 % become the mask, 10 % a random token, 10 % stay."""
    corrupted, labels = list(ids), [IGNORED] * len(ids)
    for position, fate in zip(positions.tolist(), rng.random(len(positions)), strict=True):
        labels[position] = ids[position]
        if fate < 0.8:
            corrupted[position] = mask_id
        elif fate < 0.9:
            corrupted[position] = int(rng.integers(vocabulary))
    return corrupted, labels


class NoiseCollator(ABC):
    """Trainer collator that damages a text afresh each time it is seen; what was damaged becomes the label.

    Rows hold `label`, the number of a text; its token ids are made once. The noise of a batch depends on the seed and
    on how many batches came before, and on nothing else: training that is resumed with `batches` set goes on as if
    it had never stopped.

    Args:
        model: gives the tokenizer and says whether batches are packed.
        texts: number -> text.
        whole_words: all pieces of a word share its fate.
        seed: of the noise.

    Attributes:
        batches: batches made so far.
    """

    valid_label_columns = ("label",)

    def __init__(
        self, model: SentenceTransformer, texts: Sequence[str], *, whole_words: bool = True, seed: int = 0
    ) -> None:
        self.model, self.seed, self.batches = model, seed, 0
        encoded = model.tokenizer(list(texts), truncation=True, max_length=model.max_seq_length)
        self.ids: list[list[int]] = encoded["input_ids"]
        self.words = [_word_numbers(encoded.word_ids(i), whole_words) for i in range(len(self.ids))]

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Features of the column `text`, damaged, and `label`, what the loss is to predict."""
        rng = np.random.default_rng((self.seed, self.batches))
        self.batches += 1
        damaged, labels = zip(*(self.damage(row["label"], rng) for row in rows), strict=True)
        features = to_features(self.model, list(damaged))
        return {
            "label": self.lay_out(labels, features),
            **{f"text_{key}": value for key, value in features.items()},
        }

    @abstractmethod
    def damage(self, number: int, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        """(damaged token ids, labels) of a text."""

    @abstractmethod
    def lay_out(self, labels: Sequence[list[int]], features: dict[str, Any]) -> Tensor:
        """The labels of a batch as one tensor."""


class MaskingCollator(NoiseCollator):
    """Hides words, other ones each time a text is seen (dynamic masking, Liu et al. 2019).

    Args:
        model, texts, whole_words, seed: see `NoiseCollator`.
        probability: share of words to predict.
    """

    def __init__(
        self, model: SentenceTransformer, texts: Sequence[str], *, probability: float = 0.15, **noise: Any
    ) -> None:
        super().__init__(model, texts, **noise)
        self.probability = probability

    def damage(self, number: int, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        """(ids with some hidden, the hidden ids among `IGNORED`)."""
        tokenizer = self.model.tokenizer
        positions = choose_positions(self.words[number], self.probability, rng)
        return corrupt(self.ids[number], positions, tokenizer.mask_token_id, len(tokenizer), rng)

    def lay_out(self, labels: Sequence[list[int]], features: dict[str, Any]) -> Tensor:
        """Like `input_ids`: end to end when packed, padded with `IGNORED` otherwise."""
        if "cu_seq_lens_q" in features:
            return torch.tensor([label for row in labels for label in row])
        return pad(labels)


def pad(rows: Sequence[list[int]]) -> Tensor:
    """(rows, longest) with `IGNORED` behind the shorter ones."""
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=IGNORED)


def _word_numbers(words: list[int | None], whole_words: bool) -> list[int | None]:
    return words if whole_words else [None if word is None else i for i, word in enumerate(words)]


@torch.inference_mode()
def perplexity(
    loss: nn.Module,
    texts: Sequence[str],
    *,
    collator: NoiseCollator | None = None,
    batch_size: int = 64,
    seed: int = 0,
) -> float:
    """exp of the mean loss per predicted token on `texts`, with one fixed noise, so that values compare.

    Args:
        loss: a mean over the tokens that its `targets` names.
        texts: held out of training.
        collator: fresh, over `texts`; whole words masked with the usual probability when not given.
        batch_size: texts per forward.
        seed: of the masking.
    """
    mode = loss.training  # the Trainer switches the model alone; dropout of the head must come back by itself
    loss.eval()
    collator = collator or MaskingCollator(loss.model, texts, seed=seed)
    total, count = 0.0, 0
    for batch in _batches(collator, len(texts), batch_size):
        batch = {key: value.to(loss.model.device) if hasattr(value, "to") else value for key, value in batch.items()}
        labels = batch.pop("label")
        predicted = int((loss.targets(labels) != IGNORED).sum())
        features = {key.removeprefix("text_"): value for key, value in batch.items()}
        total += loss([features], labels).item() * predicted
        count += predicted
    loss.train(mode)
    return float(np.exp(total / count))


def unigram_perplexity(
    model: SentenceTransformer, training: Sequence[str], texts: Sequence[str], *, batch_size: int = 64, seed: int = 0
) -> float:
    """What `perplexity` is for a model that knows how often each token occurs in `training` and nothing else.

    Counts are increased by one, so that every token has a probability. The hidden tokens are those of `perplexity`.
    """
    known = np.ones(len(model.tokenizer))
    for ids in model.tokenizer(list(training), add_special_tokens=False)["input_ids"]:
        np.add.at(known, ids, 1)
    batches = _batches(MaskingCollator(model, texts, seed=seed), len(texts), batch_size)
    labels = np.concatenate([batch["label"].flatten().numpy() for batch in batches])
    return float(np.exp(-np.log(known / known.sum())[labels[labels != IGNORED]].mean()))


def _batches(collator: NoiseCollator, count: int, size: int) -> Iterator[dict[str, Any]]:
    for start in range(0, count, size):
        yield collator([{"label": number} for number in range(start, min(start + size, count))])
