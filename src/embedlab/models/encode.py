"""Texts to unit vectors: packed batches of equal token count, progress, output files that survive a kill."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from embedlab import progress
from embedlab.errors import DataError
from embedlab.models.fingerprint import model_fingerprint
from embedlab.models.packing import is_packed
from embedlab.models.tokens import to_features, token_ids

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from embedlab.models.cache import EmbeddingCache

CHUNK = 4096  # texts tokenised, ordered and written together; what a kill can cost
BATCH_TOKENS = 4096  # tokens per packed forward
BATCH_SIZE = 64  # texts per padded forward


def encode(
    model: SentenceTransformer,
    texts: Sequence[str],
    *,
    stage: str = "encode",
    prompt: str | None = None,
    cache: EmbeddingCache | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> np.ndarray:
    """Encode `texts`, in order of token count inside each chunk.

    Args:
        model: any sentence-transformers model.
        texts: what to encode.
        stage: what the progress report calls this.
        prompt: put before every text.
        cache: looked up first, and given what it lacked.
        batch_tokens: tokens per forward of a packed model.

    Returns:
        float32 (len(texts), d), rows of unit length, in the order of `texts`.
    """
    if cache is not None:
        return cache.encode(model, texts, stage=stage, prompt=prompt)
    vectors = np.empty((len(texts), _dimension(model)), dtype=np.float32)
    for rows in progress.track(_chunks(len(texts)), stage):
        vectors[rows] = _encode_chunk(model, texts[rows], prompt, batch_tokens)
    return vectors


class _Place(NamedTuple):
    """How far an interrupted file got, and for which model and texts."""

    done: int
    identity: str


def encode_to_file(
    model: SentenceTransformer,
    texts: Sequence[str],
    path: Path,
    *,
    stage: str = "encode",
    prompt: str | None = None,
) -> np.ndarray:
    """Encode `texts` into a `.npy` file in constant memory; called again after a kill it goes on where it was.

    The vectors grow in `path.partial` beside a note of how far they are; the file gets its name when it is complete.
    A partial file of another model, prompt or list of texts is begun anew; a complete one is returned as it is only
    when it has the right shape.

    Returns:
        float32 memory map (len(texts), d), read-only.

    Raises:
        DataError: `path` holds a complete file of another shape.
    """
    shape = (len(texts), _dimension(model))
    if not path.exists():
        _fill(model, texts, path, shape, stage, prompt)
    vectors = np.load(path, mmap_mode="r")
    if vectors.shape != shape:
        raise DataError(f"holds {vectors.shape} vectors, wanted {shape}", remedy="Remove the file", file=path)
    return vectors


def _fill(
    model: SentenceTransformer, texts: Sequence[str], path: Path, shape: tuple[int, int], stage: str, prompt: str | None
) -> None:
    partial, note = path.with_name(path.name + ".partial"), path.with_name(path.name + ".note")
    path.parent.mkdir(parents=True, exist_ok=True)
    identity = _identity(model, texts, prompt)
    place = _read_note(note)
    resumed = partial.exists() and place.identity == identity
    done = place.done if resumed else 0
    vectors = np.lib.format.open_memmap(partial, "r+" if resumed else "w+", dtype=np.float32, shape=shape)
    chunks = [rows for rows in _chunks(len(texts)) if rows.start >= done]
    for rows in progress.track(chunks, stage):
        vectors[rows] = _encode_chunk(model, texts[rows], prompt, BATCH_TOKENS)
        vectors.flush()
        _write_note(note, _Place(rows.stop, identity))
    del vectors
    partial.replace(path)
    note.unlink(missing_ok=True)


def _identity(model: SentenceTransformer, texts: Sequence[str], prompt: str | None) -> str:
    digest = hashlib.sha256(f"{model_fingerprint(model)} {prompt!r} ".encode())
    for text in texts:
        digest.update(text.encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _read_note(note: Path) -> _Place:
    try:
        return _Place(**json.loads(note.read_text()))
    except (OSError, ValueError, TypeError):
        return _Place(0, "")


def _write_note(note: Path, place: _Place) -> None:
    scratch = note.with_name(note.name + ".tmp")
    scratch.write_text(json.dumps(place._asdict()))
    scratch.replace(note)


def _chunks(count: int) -> list[slice]:
    return [slice(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]


def _dimension(model: SentenceTransformer) -> int:
    return model.truncate_dim or model.get_embedding_dimension()


@torch.inference_mode()
def _encode_chunk(
    model: SentenceTransformer, texts: Sequence[str], prompt: str | None, batch_tokens: int
) -> np.ndarray:
    if not is_packed(model):
        return model.encode(
            list(texts), batch_size=BATCH_SIZE, prompt=prompt, normalize_embeddings=True, show_progress_bar=False
        )
    model.eval()
    ids = token_ids(model, texts, prompt)
    vectors = np.empty((len(ids), _dimension(model)), dtype=np.float32)
    for rows in _token_batches([len(row) for row in ids], batch_tokens):
        features = to_features(model, [ids[row] for row in rows], prompt)
        features = {key: value.to(model.device) if hasattr(value, "to") else value for key, value in features.items()}
        embeddings = model(features)["sentence_embedding"][:, : vectors.shape[1]]
        vectors[rows] = F.normalize(embeddings.float(), dim=-1).cpu().numpy()
    return vectors


def _token_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Row numbers, longest first, cut where a batch would exceed `batch_tokens`; a longer text is a batch alone."""
    batch, tokens = [], 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and tokens + lengths[row] > batch_tokens:
            yield batch
            batch, tokens = [], 0
        batch.append(row)
        tokens += lengths[row]
    if batch:
        yield batch
