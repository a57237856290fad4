"""Concatenate a transformer with a static model: one model whose embeddings hold both views of a text."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from embedlab.errors import ModelError, ParameterError
from embedlab.models.layers import pca_projection, project
from embedlab.models.merging import merge
from embedlab.models.static_concat import ConcatStaticEmbedding

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


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
    return np.concatenate(weighted, axis=1)


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
    vocabulary = transformer.tokenizer.get_vocab()
    if vocabulary != static.tokenizer.get_vocab():
        problem = "the transformer and the static model have different vocabularies"
        raise ModelError(problem, remedy="Build the static model from this transformer with static_student")
    embeddings = static[0].embedding.weight.data
    special = sorted(vocabulary[token] for token in transformer.tokenizer.all_special_tokens if token in vocabulary)
    special.remove(transformer.tokenizer.unk_token_id)  # an unknown word still counts as a word
    transformer_dim = transformer.get_embedding_dimension()
    vocab_size, static_dim = embeddings.shape
    module = ConcatStaticEmbedding(vocab_size, static_dim, transformer_dim, static_share, special)
    module.embedding.weight.data.copy_(embeddings)
    model = copy.deepcopy(transformer)
    model.append(module.to(model.device))
    return model


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
