"""Build cross-encoders from embedding models, and score pairs with either kind of model.

A cross-encoder reads query and document together and returns one score. It usually ranks better than two separate
embeddings, and it is far too slow to search a corpus with.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from embedlab.io import atomic_path
from embedlab.models.encode import encode
from embedlab.models.fingerprint import model_fingerprint
from embedlab.models.pair_pooling import PairProductPooling
from embedlab.models.sides import Side, sides_of
from embedlab.params import TEMPERATURE
from embedlab.paths import cache_dir

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

Head = Literal["pooled", "product"]
Row = tuple[str, ...]  # query, positive, negatives

COSINE_SCALE = 1 / TEMPERATURE  # cosines times this are logits: `scale` of MultipleNegativesRankingLoss
PAIRS_PER_FORWARD = 128


def cross_encoder_from(model: SentenceTransformer, *, head: Head = "pooled", seed: int = 0) -> CrossEncoder:
    """Build a cross-encoder on a copy of an embedding model's transformer.

    Query and document get the same token type embedding, because the models that this starts from were trained with
    one. The separator still tells them apart, and the packed and the stock forward give equal scores.

    Args:
        model: a transformer with pooling; a packed one gives a packed cross-encoder.
        head: "pooled" puts a fresh linear layer on the pooled tokens of the joint text, as `CrossEncoder` does.
            "product" pools query and document separately (`PairProductPooling`) and starts as their cosine times
            `COSINE_SCALE`: the cross-encoder starts with what the embedding model knows.
        seed: of the fresh layer.
    """
    from sentence_transformers import CrossEncoder

    transformer = copy.deepcopy(model[0])
    types = getattr(getattr(transformer.model, "embeddings", None), "token_type_embeddings", None)
    if types is not None:
        types.weight.data[:] = types.weight.data[:1].clone()
    dim = model.get_embedding_dimension()
    pooling = copy.deepcopy(model[1]) if head == "pooled" else PairProductPooling(model.tokenizer.sep_token_id, dim)
    return CrossEncoder(modules=[transformer, pooling, _head(dim, head, seed)], device=str(model.device))


def _head(dim: int, kind: Head, seed: int) -> nn.Module:
    from sentence_transformers.base.modules import Dense

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = Dense(dim, 1, activation_function=None, module_output_name="scores")
    if kind == "product":
        nn.init.constant_(head.linear.weight, COSINE_SCALE)
        nn.init.zeros_(head.linear.bias)
    return head


def score_pairs(encoder: CrossEncoder, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """Score (query, document) texts with a cross-encoder.

    Returns:
        float32 (len(pairs),) raw logits; a sigmoid would compress large margins.
    """
    options = {"batch_size": PAIRS_PER_FORWARD, "activation_fn": nn.Identity(), "show_progress_bar": False}
    return np.asarray(encoder.predict(list(pairs), **options), dtype=np.float32).reshape(len(pairs))


def score_rows(encoder: CrossEncoder, rows: Sequence[Row], *, cached: bool = False) -> np.ndarray:
    """Score the documents of every row with a cross-encoder.

    Args:
        encoder: the cross-encoder.
        rows: (query, positive, negatives) with the same number of documents each.
        cached: keep the scores on disk and reuse them for the same weights and rows.

    Returns:
        float32 (rows, documents) raw logits, the positive first.
    """
    path = _cache_file(encoder, rows) if cached else None
    if path and path.exists():
        with suppress(ValueError, EOFError):  # a damaged file is written again
            scores = np.load(path, allow_pickle=False)
            if scores.ndim == 2 and len(scores) == len(rows) and np.isfinite(scores).all():
                return scores
    pairs = [(row[0], document) for row in rows for document in row[1:]]
    scores = score_pairs(encoder, pairs).reshape(len(rows), -1)
    if path:
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.save(file, scores)
    return scores


def _cache_file(encoder: CrossEncoder, rows: Sequence[Row]) -> Path:
    """Return the file of the scores, named after the weights and the texts."""
    from sentence_transformers import SentenceTransformer

    digest = hashlib.sha256(model_fingerprint(SentenceTransformer(modules=list(encoder), device="cpu")).encode())
    for row in rows:
        digest.update("\0".join(row).encode() + b"\0\0")
    return cache_dir() / "scores" / f"{digest.hexdigest()[:16]}.npy"


def is_cross_encoder(model: Any) -> bool:
    """Whether a model scores pairs of texts."""
    from sentence_transformers import CrossEncoder

    return isinstance(model, CrossEncoder)


def cosine_rows(model: SentenceTransformer, rows: Sequence[Row]) -> np.ndarray:
    """Score the documents of every row with an embedding model and its prompts.

    Returns:
        float32 (rows, documents) cosines, the positive first.
    """
    sides = sides_of(model)
    queries, query_rows = _encode_distinct(sides.query, [row[0] for row in rows])
    documents, document_rows = _encode_distinct(sides.document, [text for row in rows for text in row[1:]])
    return np.einsum("rd,rnd->rn", queries[query_rows], documents[document_rows.reshape(len(rows), -1)])


def _encode_distinct(side: Side, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Encode every distinct text once; return the vectors, and for each text the row of its vector."""
    index = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    rows = np.array([index[text] for text in texts], dtype=np.int64)
    return encode(side.model, list(index), prompt=side.prompt), rows


def average_scores(logits: np.ndarray, cosines: np.ndarray, embedding_share: float) -> np.ndarray:
    """Average the scores that a cross-encoder and an embedding model give the same pairs.

    Args:
        logits: scores of the cross-encoder, any shape; NaN stays NaN.
        cosines: scores of the embedding model, same shape; times `COSINE_SCALE` they are logits too.
        embedding_share: weight of the embedding model, from 0 to 1.
    """
    return (1 - embedding_share) * logits + embedding_share * COSINE_SCALE * cosines
