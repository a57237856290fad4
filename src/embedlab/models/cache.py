"""Vectors kept from one run to the next, so that the base model encodes a corpus once and not in every run.

One SQLite file per vector space: its name is the fingerprint of everything that changes an embedding (weights,
tokenizer, pooling, truncation, prompts) together with the prompt in use. SQLite gives atomic writes and locking, so
that many runs may share the folder.
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

from embedlab.models.fingerprint import model_fingerprint
from embedlab.paths import cache_dir

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

WAIT_S = 60.0  # for another writer's lock
LOOKUP = 500  # keys per query; SQLite allows 999 parameters in its oldest builds


class EmbeddingCache:
    """Text -> unit vector, on disk.

    Args:
        folder: where the files lie; `paths.cache_dir()/embeddings` when not given.
        max_bytes: the most that one vector space may take; the entries used longest ago make room.
    """

    def __init__(self, folder: Path | None = None, max_bytes: int = 2 << 30) -> None:
        self.folder = folder or cache_dir() / "embeddings"
        self.max_bytes = max_bytes

    def encode(
        self, model: SentenceTransformer, texts: Sequence[str], *, stage: str = "encode", prompt: str | None = None
    ) -> np.ndarray:
        """`models.encode.encode` that encodes only what it has not seen; same values, same shape."""
        from embedlab.models.encode import encode

        space = hashlib.sha256(f"{model_fingerprint(model)} {prompt!r}".encode()).hexdigest()[:16]
        keys = [hashlib.sha256(text.encode()).digest()[:16] for text in texts]
        with closing(self._open(space)) as database:
            found = self._look_up(database, keys)
            missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
            fresh = encode(model, list(missing.values()), stage=stage, prompt=prompt)
            found |= zip(missing, fresh, strict=True)
            self._store(database, dict(zip(missing, fresh, strict=True)))
        return np.stack([found[key] for key in keys]) if keys else fresh

    def _open(self, space: str) -> sqlite3.Connection:
        """The space's database; one that is damaged is set aside, as everything in it can be computed again."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{space}.sqlite"
        try:
            return self._connect(path)
        except sqlite3.DatabaseError:
            logger.warning("the embedding cache %s is damaged and begun anew", path)
            path.replace(path.with_suffix(".damaged"))
            return self._connect(path)

    def _connect(self, path: Path) -> sqlite3.Connection:
        database = sqlite3.connect(path, timeout=WAIT_S)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB, used INTEGER)")
        database.execute("PRAGMA quick_check(1)").fetchone()
        return database

    def _look_up(self, database: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        found: dict[bytes, np.ndarray] = {}
        distinct = list(dict.fromkeys(keys))
        with database:
            for start in range(0, len(distinct), LOOKUP):
                part = distinct[start : start + LOOKUP]
                marks = ",".join("?" * len(part))
                rows = database.execute(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", part)  # noqa: S608
                found |= {key: np.frombuffer(vector, dtype=np.float32) for key, vector in rows}
                database.execute(f"UPDATE vectors SET used = unixepoch() WHERE key IN ({marks})", part)  # noqa: S608
        return found

    def _store(self, database: sqlite3.Connection, vectors: dict[bytes, np.ndarray]) -> None:
        rows = [(key, vector.tobytes()) for key, vector in vectors.items()]
        with database:
            database.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?, unixepoch())", rows)
            self._make_room(database)

    def _make_room(self, database: sqlite3.Connection) -> None:
        bytes_held, entries = database.execute("SELECT SUM(LENGTH(vector)), COUNT(*) FROM vectors").fetchone()
        if not entries or bytes_held <= self.max_bytes:
            return
        excess = int(np.ceil((bytes_held - self.max_bytes) / (bytes_held / entries)))
        oldest = "SELECT rowid FROM vectors ORDER BY used, rowid LIMIT ?"
        database.execute(f"DELETE FROM vectors WHERE rowid IN ({oldest})", (excess,))  # noqa: S608
