"""Two models as one: a transformer and a static table, their vectors end to end, turned to as few numbers as wanted."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np

from embedlab.errors import ModelError, ParameterError
from embedlab.models.beside import TableBeside
from embedlab.models.layers import pca_projection, project

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


def table_beside(
    transformer: SentenceTransformer, static: SentenceTransformer, share: float, vectors: np.ndarray, dim: int
) -> SentenceTransformer:
    """One model whose vectors are those of both side by side, turned to their `dim` principal directions.

    Args:
        transformer: its vectors come first; left as it is.
        static: with the tokenizer of the transformer.
        share: of the static model's cosine, see `side_by_side`.
        vectors: (N, d + e) `side_by_side` of texts, which the principal directions are taken from.
        dim: numbers per vector; fewer are its first ones, as after Matryoshka training.

    Raises:
        ModelError: the two cut texts into different pieces.
    """
    if (vocabulary := transformer.tokenizer.get_vocab()) != static.tokenizer.get_vocab():
        raise ModelError("the two models have different vocabularies", remedy="Make the static model from this one")
    rows = static[0].embedding.weight.data
    added = sorted(vocabulary[token] for token in transformer.tokenizer.all_special_tokens if token in vocabulary)
    added.remove(transformer.tokenizer.unk_token_id)  # an unknown word is a word
    table = TableBeside(len(rows), rows.shape[1], transformer.get_embedding_dimension(), share, added)
    table.table.weight.data.copy_(rows)
    model = copy.deepcopy(transformer)
    model.append(table.to(model.device))
    return project(model, pca_projection(vectors, dim))
