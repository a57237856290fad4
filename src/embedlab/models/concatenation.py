"""Concatenate a transformer with a static model: one model whose embeddings hold both views of a text."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from embedlab import progress
from embedlab.errors import ModelError, ParameterError
from embedlab.models.layers import pca_projection, project
from embedlab.models.merging import merge
from embedlab.models.sides import require_one_encoder
from embedlab.models.static import is_expanding, plain_tokenizer
from embedlab.models.static_concat import ConcatStaticEmbedding
from embedlab.models.static_ngrams import pieces_of
from embedlab.models.tokens import prompt_length, token_ids

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

TEXTS_PER_BATCH = 4096
ROWS_PER_DIMENSION = 2  # principal components of fewer rows keep only what these few texts need


def concatenate(transformer_vectors: np.ndarray, static_vectors: np.ndarray, static_share: float) -> np.ndarray:
    """Concatenate two embeddings of the same texts; cosines become a weighted mean.

    The cosine of two results is `(1 - static_share) * transformer cosine + static_share * static cosine`.

    >>> concatenate(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), 0.36).round(3).tolist()
    [[0.8, 0.0, 0.0, 0.6]]

    Args:
        transformer_vectors: (N, d) unit vectors.
        static_vectors: (N, e) unit vectors of the same texts.
        static_share: weight of the static model's cosine, from 0 to 1.

    Returns:
        Unit vectors (N, d + e).

    Raises:
        ParameterError: `static_share` is outside 0 to 1.
    """
    if not 0 <= static_share <= 1:
        problem = f"static_share must be between 0 and 1, got {static_share}"
        raise ParameterError(problem, remedy="Set static_share=0.5, for example", field="static_share")
    weighted = [np.sqrt(1 - static_share) * transformer_vectors, np.sqrt(static_share) * static_vectors]
    joined = np.concatenate(weighted, axis=1)
    if (empty := ~static_vectors.any(axis=1)).any():  # a text without words has no static half
        lengths = np.linalg.norm(joined[empty], axis=1, keepdims=True)
        joined[empty] /= np.where(lengths > 0, lengths, 1)
    return joined


def concat_static(
    transformer: SentenceTransformer, static: SentenceTransformer, static_share: float
) -> SentenceTransformer:
    """Build one model that returns the concatenated embedding of both, with d + e dimensions.

    The transformer may be an untouched base model: the static model then learns the domain on its own.

    Args:
        transformer: model with d dimensions; a copy of it is used.
        static: static model with e dimensions and the tokenizer of the transformer.
        static_share: weight of the static model's cosine, from 0 to 1; see `concatenate`.

    Raises:
        ModelError: the two models have different vocabularies.
    """
    require_one_encoder(transformer)
    _check_vocabulary(transformer, static)
    if not hasattr(transformer[0], "model"):
        problem = f"the model starts with {type(transformer[0]).__name__}, not with a transformer"
        raise ModelError(problem, remedy="Concatenate a transformer with a static model")
    embeddings = static[0].embedding.weight.data
    transformer_dim = transformer.get_embedding_dimension()
    vocab_size, static_dim = embeddings.shape
    special = _special_tokens(transformer)
    extra = (pieces_of(plain_tokenizer(static)), static.tokenizer.features) if is_expanding(static) else ()
    module = ConcatStaticEmbedding(vocab_size, static_dim, transformer_dim, static_share, special, *extra)
    module.embedding.weight.data.copy_(embeddings)
    model = copy.deepcopy(transformer)
    model.append(module.to(model.device))
    return model


def static_part(static: SentenceTransformer) -> StaticPart:
    """Return what encodes texts to the static half of `concat_static`, in place of `models.encode.encode`.

    The static half reads exactly the tokens that the transformer reads: text after its length limit is left out, and
    so is the prompt. Vectors of the static model itself differ where a text is longer than that, or where the
    tokenizer joins the end of the prompt and the start of the text to one token.

    `encode_split(transformer, data, static=static)` uses it.

    Args:
        static: static model with the tokenizer of the transformer.
    """
    return StaticPart(static)


@dataclass(frozen=True)
class StaticPart:
    """The static half of a concatenated model, see `static_part`."""

    static: SentenceTransformer

    @torch.inference_mode()
    def __call__(
        self, model: SentenceTransformer, texts: Sequence[str], *, stage: str = "encode", prompt: str | None = None
    ) -> np.ndarray:
        """Encode texts with the static embeddings of the tokens that `model` reads.

        Args:
            model: the transformer that the static model is concatenated with.
            texts: N texts.
            stage: label in the progress report.
            prompt: the transformer's prompt, whose tokens are left out.

        Returns:
            float32 (N, e) unit vectors.
        """
        _check_vocabulary(model, self.static)
        tokenizer: Any = self.static.tokenizer
        table, special = self.static[0].embedding.weight.detach().cpu(), torch.tensor(_special_tokens(model))
        skipped = prompt_length(model, prompt) or 0
        vectors = torch.zeros(len(texts), table.shape[1])
        chunks = [slice(start, start + TEXTS_PER_BATCH) for start in range(0, len(texts), TEXTS_PER_BATCH)]
        for rows in progress.track(chunks, stage):
            ids = [row[skipped:] for row in token_ids(model, texts[rows], prompt)]
            text = torch.arange(len(ids)).repeat_interleave(torch.tensor([len(row) for row in ids]))
            flat = torch.from_numpy(np.concatenate(ids).astype(np.int64))
            keep = torch.isin(flat, special, invert=True)
            flat, text = flat[keep], text[keep]
            if is_expanding(self.static):
                flat, text = tokenizer.ngrams.expand_batch(flat, text, len(ids))
            vectors[rows].index_add_(0, text, table[flat])
        return F.normalize(vectors, dim=-1).numpy()


def _check_vocabulary(transformer: SentenceTransformer, static: SentenceTransformer) -> None:
    if transformer.tokenizer.get_vocab() != plain_tokenizer(static).get_vocab():
        problem = "the transformer and the static model have different vocabularies"
        raise ModelError(problem, remedy="Build the static model from this transformer with static_student")


def _special_tokens(transformer: SentenceTransformer) -> list[int]:
    """Return the ids of the special tokens, except that of unknown words: an unknown word still counts as a word."""
    tokenizer = transformer.tokenizer
    vocabulary = tokenizer.get_vocab()
    special = {vocabulary[token] for token in tokenizer.all_special_tokens if token in vocabulary}
    return sorted(special - {tokenizer.unk_token_id})  # byte-level tokenizers have no unknown words


def has_enough_rows(vectors: np.ndarray, dim: int) -> bool:
    """Whether there are enough rows to compute `dim` principal components on: `ROWS_PER_DIMENSION` for each."""
    return len(vectors) >= ROWS_PER_DIMENSION * dim


def concat_static_pca(
    transformer: SentenceTransformer, static: SentenceTransformer, static_share: float, vectors: np.ndarray, dim: int
) -> SentenceTransformer:
    """Build the concatenated model and project it to `dim` dimensions with PCA.

    The components are sorted by size, so that the embedding can also be truncated, as after Matryoshka training.

    Args:
        transformer: model with d dimensions.
        static: static model with e dimensions.
        static_share: weight of the static model's cosine.
        vectors: (N, d + e) concatenated vectors that the components are computed from; see `concatenate`.
        dim: dimensions of the result.
    """
    return project(concat_static(transformer, static, static_share), pca_projection(vectors, dim))


def merge_and_concat(
    models: Mapping[str, SentenceTransformer],
    weights: Mapping[str, float],
    static: SentenceTransformer | None = None,
    static_share: float = 0.0,
) -> SentenceTransformer:
    """Average the weights of several models, then concatenate the result with a static model.

    Args:
        models: name -> model.
        weights: name -> weight; the sum is 1, see `merge`.
        static: static model with the tokenizer of the others.
        static_share: weight of the static model's cosine; 0 leaves the static model out.
    """
    merged = merge([models[name] for name in weights], [*weights.values()])
    return concat_static(merged, static, static_share) if static is not None and static_share else merged
