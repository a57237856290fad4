"""Encode texts to unit vectors, in batches of similar token count."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from embedlab import progress
from embedlab.models.api import ApiModel
from embedlab.models.packing import is_packed, on_device
from embedlab.models.sides import require_one_encoder, sides_of
from embedlab.models.tokens import to_features, token_ids

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

CHUNK = 4096  # texts tokenised and sorted by length together
BATCH_TOKENS = 4096  # tokens per packed forward pass
KEEP_BATCHES = 32  # packed forward passes between two calls of `keep`: some seconds on a CPU
BATCH_SIZE = 64  # texts per padded forward pass


def encode(
    model: SentenceTransformer,
    texts: Sequence[str],
    *,
    stage: str = "encode",
    prompt: str | None = None,
    batch_tokens: int = BATCH_TOKENS,
    normalize: bool = True,
    keep: Callable[[list[int], np.ndarray], None] | None = None,
) -> np.ndarray:
    """Encode texts to unit vectors, as `model.encode(..., prompt=prompt or "", normalize_embeddings=True)`, but faster.

    A model's default prompt is never added: `models.prompts.prompts_of` says what queries and documents get.

    Args:
        model: a sentence-transformers model with one encoder; of a model with `Router`, one of `models.sides.sides_of`.
            An API model keeps its vectors on disk, and `batch_tokens` and `keep` are not used.
        texts: the texts to encode.
        stage: label in the progress report.
        prompt: prepended to every text.
        batch_tokens: tokens per forward pass of a packed model; a longer text gets a batch of its own.
        normalize: scale the vectors to unit length; False keeps the lengths that the model gives them.
        keep: called along the way with row numbers and their vectors, e.g. to store them.

    Returns:
        float32 (len(texts), d), rows of unit length, in the order of `texts`.
    """
    if isinstance(model, ApiModel):
        return model.encode(texts, stage=stage, prompt=prompt)
    require_one_encoder(model)
    vectors = np.empty((len(texts), dimension(model)), dtype=np.float32)
    chunks = [slice(start, min(start + CHUNK, len(texts))) for start in range(0, len(texts), CHUNK)]
    with progress.counted(stage, len(texts)) as advance:
        for chunk in chunks:
            waiting: list[int] = []  # rows that `keep` has not had
            batches = _encode_chunk(model, texts[chunk], prompt, batch_tokens, normalize, vectors[chunk])
            for number, rows in enumerate(batches, 1):
                advance(len(rows))
                waiting += [chunk.start + row for row in rows]
                if keep and number % KEEP_BATCHES == 0:
                    keep(waiting, vectors[waiting])
                    waiting = []
            if keep and waiting:
                keep(waiting, vectors[waiting])
    return vectors


def encode_by_role(
    model: SentenceTransformer,
    texts: Sequence[str],
    queries: Collection[str] = (),
    *,
    encode: Callable[..., np.ndarray] = encode,
) -> np.ndarray:
    """Encode each text as a query or as a document.

    Args:
        model: any sentence-transformers model.
        texts: N texts.
        queries: those of them that get the model's query prompt; all others get its document prompt.
        encode: called like `encode`, e.g. `EmbeddingCache().encode`.

    Returns:
        float32 (N, d) unit vectors.
    """
    sides, queries = sides_of(model), frozenset(queries)
    if sides.are_equal or queries.isdisjoint(texts):
        return encode(sides.document.model, texts, prompt=sides.document.prompt)
    vectors = np.empty((len(texts), dimension(model)), dtype=np.float32)
    for (encoder, prompt, _), is_query in ((sides.document, False), (sides.query, True)):
        rows = [row for row, text in enumerate(texts) if (text in queries) is is_query]
        vectors[rows] = encode(encoder, [texts[row] for row in rows], prompt=prompt)
    return vectors


def dimension(model: SentenceTransformer) -> int:
    """Return the number of dimensions of the model's vectors, after truncation."""
    if isinstance(model, ApiModel):
        return model.dimension
    return model.truncate_dim or model.get_embedding_dimension()


@torch.inference_mode()
def _encode_chunk(
    model: SentenceTransformer,
    texts: Sequence[str],
    prompt: str | None,
    batch_tokens: int,
    normalize: bool,
    vectors: np.ndarray,
) -> Iterator[list[int]]:
    """Fill the rows of `vectors`; yield the numbers of those that are done since the last time."""
    if not is_packed(model):
        # "" instead of None: None would add the default prompt.
        options = {"prompt": prompt or "", "normalize_embeddings": normalize}
        vectors[:] = model.encode(list(texts), batch_size=BATCH_SIZE, show_progress_bar=False, **options)
        yield list(range(len(texts)))
        return
    model.eval()
    ids = token_ids(model, texts, prompt)
    if without_tokens := np.flatnonzero(ids.lengths == 0).tolist():
        vectors[without_tokens] = 0  # as in a padded batch; packed, they would get the vectors of their neighbours
        yield without_tokens
    for rows in _token_batches(ids.lengths.tolist(), batch_tokens):
        features = on_device(to_features(model, [ids[row] for row in rows], prompt), model.device)
        embeddings = model(features)["sentence_embedding"][:, : vectors.shape[1]].float()
        vectors[rows] = (F.normalize(embeddings, dim=-1) if normalize else embeddings).cpu().numpy()
        yield rows


def _token_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Yield row numbers in batches of at most `batch_tokens` tokens, longest texts first."""
    batch: list[int] = []
    tokens = 0
    for row in sorted((row for row, length in enumerate(lengths) if length), key=lambda row: -lengths[row]):
        if batch and tokens + lengths[row] > batch_tokens:
            yield batch
            batch, tokens = [], 0
        batch.append(row)
        tokens += lengths[row]
    if batch:
        yield batch
