"""A cache of embeddings on disk: runs that share a model and a corpus encode it once.

There is one SQLite file per vector space. Its name is a hash of everything that changes an embedding (weights,
tokenizer, pooling, truncation) and of the prompt. SQLite provides atomic writes and locking, so many runs can share
the folder.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedlab.models.encode import encode
from embedlab.models.fingerprint import model_fingerprint
from embedlab.paths import cache_dir

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

LOCK_TIMEOUT_S = 60.0  # how long to wait for another writer
MAX_BYTES = 2 << 30  # per vector space; the least recently used entries are dropped first
KEYS_PER_QUERY = 500  # old SQLite builds allow 999 parameters per query


class EmbeddingCache:
    """Texts and their unit vectors, on disk.

    Args:
        folder: where the files are; `paths.cache_dir()/embeddings` by default.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_dir() / "embeddings"

    def encode(
        self, model: SentenceTransformer, texts: Sequence[str], *, stage: str = "encode", prompt: str | None = None
    ) -> np.ndarray:
        """Encode only the texts that are not in the cache; otherwise the same as `models.encode.encode`.

        Args:
            model: any sentence-transformers model.
            texts: the texts to encode.
            stage: label in the progress report.
            prompt: prepended to every text.

        Returns:
            float32 (len(texts), d), rows of unit length, in the order of `texts`.
        """
        space = hashlib.sha256(f"{model_fingerprint(model)} {prompt!r}".encode()).hexdigest()[:16]
        keys = [hashlib.sha256(text.encode()).digest()[:16] for text in texts]
        with closing(self._open(space)) as database:
            vectors = self._look_up(database, keys)
            missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in vectors}
            encoded = encode(model, list(missing.values()), stage=stage, prompt=prompt)
            new_vectors = dict(zip(missing, encoded, strict=True))
            self._store(database, new_vectors)
        vectors |= new_vectors
        return np.stack([vectors[key] for key in keys]) if keys else encoded

    def _open(self, space: str) -> sqlite3.Connection:
        """Open the database of a vector space; move a damaged one aside, since its content can be computed again."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{space}.sqlite"
        try:
            return self._connect(path)
        except sqlite3.DatabaseError:
            logger.warning("The embedding cache %s is damaged. Starting a new one.", path)
            path.replace(path.with_suffix(".damaged"))
            return self._connect(path)

    def _connect(self, path: Path) -> sqlite3.Connection:
        database = sqlite3.connect(path, timeout=LOCK_TIMEOUT_S)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB, used INTEGER)")
        database.execute("PRAGMA quick_check(1)").fetchone()
        return database

    def _look_up(self, database: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        vectors: dict[bytes, np.ndarray] = {}
        distinct = list(dict.fromkeys(keys))
        with database:
            for start in range(0, len(distinct), KEYS_PER_QUERY):
                batch = distinct[start : start + KEYS_PER_QUERY]
                marks = ",".join("?" * len(batch))
                rows = database.execute(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", batch)
                vectors |= {key: np.frombuffer(vector, dtype=np.float32) for key, vector in rows}
                database.execute(f"UPDATE vectors SET used = unixepoch() WHERE key IN ({marks})", batch)
        return vectors

    def _store(self, database: sqlite3.Connection, vectors: dict[bytes, np.ndarray]) -> None:
        rows = [(key, vector.tobytes()) for key, vector in vectors.items()]
        with database:
            database.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?, unixepoch())", rows)
            self._drop_oldest(database)

    def _drop_oldest(self, database: sqlite3.Connection) -> None:
        total_bytes, entries = database.execute("SELECT SUM(LENGTH(vector)), COUNT(*) FROM vectors").fetchone()
        if not entries or total_bytes <= MAX_BYTES:
            return
        excess = int(np.ceil((total_bytes - MAX_BYTES) / (total_bytes / entries)))
        oldest = "SELECT rowid FROM vectors ORDER BY used, rowid LIMIT ?"
        database.execute(f"DELETE FROM vectors WHERE rowid IN ({oldest})", (excess,))
