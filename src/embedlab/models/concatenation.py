"""Two models as one: a transformer and a static table, their vectors end to end, turned to as few numbers as wanted."""

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


def side_by_side(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Unit vectors (N, d) and (N, e) of the same texts as unit vectors (N, d + e), `share` of the cosine the second's.

    >>> side_by_side(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), 0.36).round(3).tolist()
    [[0.8, 0.0, 0.0, 0.6]]

    Raises:
        ParameterError: `share` is not from 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ParameterError(f"a share of {share} is none", remedy="Choose from 0 to 1", field="share")
    return np.concatenate([np.sqrt(1 - share) * first, np.sqrt(share) * second], axis=1)


def with_table(transformer: SentenceTransformer, static: SentenceTransformer, share: float) -> SentenceTransformer:
    """One model whose vectors are those of both `side_by_side`, d + e numbers.

    The transformer may be one that nobody tuned: the table alone then learns the domain, and the rest stays as it is.

    Args:
        transformer: its vectors come first; left as it is.
        static: with the tokenizer of the transformer.
        share: of the static model's cosine, see `side_by_side`.

    Raises:
        ModelError: the two cut texts into different pieces.
    """
    if (vocabulary := transformer.tokenizer.get_vocab()) != static.tokenizer.get_vocab():
        raise ModelError("the two models have different vocabularies", remedy="Make the static model from this one")
    rows = static[0].embedding.weight.data
    added = sorted(vocabulary[token] for token in transformer.tokenizer.all_special_tokens if token in vocabulary)
    added.remove(transformer.tokenizer.unk_token_id)  # an unknown word is a word
    table = ConcatStaticEmbedding(len(rows), rows.shape[1], transformer.get_embedding_dimension(), share, added)
    table.table.weight.data.copy_(rows)
    model = copy.deepcopy(transformer)
    model.append(table.to(model.device))
    return model


def table_beside(
    transformer: SentenceTransformer, static: SentenceTransformer, share: float, vectors: np.ndarray, dim: int
) -> SentenceTransformer:
    """`with_table`, its vectors turned to `dim` principal directions.

    Args:
        transformer, static, share: see `with_table`.
        vectors: (N, d + e) `side_by_side` of texts, which the principal directions are taken from.
        dim: numbers per vector; fewer are its first ones, as after Matryoshka training.
    """
    return project(with_table(transformer, static, share), pca_projection(vectors, dim))


def mixture(
    pool: Mapping[str, SentenceTransformer],
    parts: Mapping[str, float],
    table: SentenceTransformer | None = None,
    share: float = 0.0,
) -> SentenceTransformer:
    """The weighted mean of models of `pool`, and beside it, where `share` is not 0, the `table` (see `with_table`).

    Args:
        pool: name -> model.
        parts: name -> weight, with the sum 1; see `merge`.
        table: a static model with the tokenizer of the others.
        share: of the table's cosine.
    """
    mixed = merge([pool[name] for name in parts], [*parts.values()])
    return with_table(mixed, table, share) if table is not None and share else mixed
