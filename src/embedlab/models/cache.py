"""A cache of embeddings on disk: runs that share a model and a corpus encode it once.

There is one SQLite file per vector space. Its name is a hash of everything that changes an embedding (weights,
tokenizer, pooling, truncation) and of the prompt. SQLite provides atomic writes and locking, so many runs can share
the folder. Every vector has a checksum; what is damaged is encoded again (see `vector_file`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedlab.models.api import ApiModel
from embedlab.models.encode import dimension, encode
from embedlab.models.fingerprint import model_fingerprint
from embedlab.models.vector_file import Keep, VectorFile, complete
from embedlab.paths import cache_dir

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MAX_BYTES = 2 << 30  # per vector space; the least recently used entries are dropped first


class EmbeddingCache:
    """Texts and their unit vectors, on disk.

    Args:
        folder: where the files are; `paths.cache_dir()/embeddings` by default.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_dir() / "embeddings"
        self._unusable: set[str] = set()  # spaces whose file failed; the user has been told

    def encode(
        self, model: SentenceTransformer, texts: Sequence[str], *, stage: str = "encode", prompt: str | None = None
    ) -> np.ndarray:
        """Encode only the texts that are not in the cache; otherwise the same as `models.encode.encode`.

        New vectors are stored along the way, so an interrupted call keeps what it has encoded. If the file cannot be
        used, all texts are encoded and a warning names the file.

        Args:
            model: any sentence-transformers model, or an API model.
            texts: the texts to encode.
            stage: label in the progress report.
            prompt: prepended to every text.

        Returns:
            float32 (len(texts), d), rows of unit length, in the order of `texts`.
        """
        if isinstance(model, ApiModel):
            return model.encode(texts, stage=stage, prompt=prompt)  # it has a cache of its own
        space = hashlib.sha256(f"{model_fingerprint(model)} {prompt!r}".encode()).hexdigest()[:16]
        if space in self._unusable:
            return encode(model, texts, stage=stage, prompt=prompt)
        keys = [hashlib.sha256(text.encode()).digest()[:16] for text in texts]
        file = VectorFile(self.folder / f"{space}.sqlite", dimension(model))

        def compute(missing: Sequence[str], keep: Keep) -> np.ndarray:
            return encode(model, missing, stage=stage, prompt=prompt, keep=keep)

        vectors = complete(file, keys, texts, compute, max_bytes=MAX_BYTES)
        if not file.is_usable:
            self._unusable.add(space)
        return vectors
