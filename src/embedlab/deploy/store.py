"""Store the vectors of one space by the content of their texts: encoded once, memory-mapped, safe against crashes.

Vectors are appended to one file. A SQLite catalogue maps texts to rows and is committed after the vectors are on the
disk. A crash leaves at most some rows without an entry, which the next writer overwrites. (`models.cache` is only a
cache and may drop vectors; this store may not.)
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from embedlab.deploy.files import storage_errors
from embedlab.deploy.space import Space, require_same
from embedlab.errors import DataError, StorageError
from embedlab.io import fsync, write_atomic

LOOKUP = 500  # keys per query; SQLite allows 999 parameters in its oldest builds
WAIT_S = 60.0  # for another connection's lock

Entry = tuple[int, int]  # row, CRC-32 of the row's bytes


def text_key(text: str) -> bytes:
    """Return a 16-byte key of a text (SHA-256)."""
    return hashlib.sha256(text.encode()).digest()[:16]


class VectorStore:
    """Text key -> vector of one space, on disk.

    Args:
        folder: of the store; created if it is missing.
        space: the vector space.

    Raises:
        SpaceMismatch: the folder holds vectors of another space.
        StorageError: the store is damaged, truncated or cannot be written.
    """

    def __init__(self, folder: Path, space: Space) -> None:
        self.folder, self.space = folder, space
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._claim()
            self._database = self._connect()
            self._data.touch()
            fsync(folder)
        if self._data.stat().st_size < len(self) * self._row_bytes:
            raise self._damaged(f"{self._data.name} is shorter than its catalogue says")

    @property
    def _data(self) -> Path:
        return self.folder / "vectors.bin"

    @property
    def _row_bytes(self) -> int:
        return self.space.dimension * np.dtype(self.space.quantisation).itemsize

    def __len__(self) -> int:
        """Number of vectors."""
        return self._database.execute("SELECT COALESCE(MAX(row) + 1, 0) FROM vectors").fetchone()[0]

    def close(self) -> None:
        """Close the catalogue."""
        self._database.close()

    def missing(self, keys: Sequence[bytes]) -> set[bytes]:
        """Return the keys that have no vector yet."""
        return set(keys) - self._entries(keys).keys()

    def add(self, keys: Sequence[bytes], vectors: np.ndarray, space: Space) -> None:
        """Append vectors (n, d) of new keys; when it returns, they are on the disk.

        Raises:
            SpaceMismatch: the vectors come from another space.
            DataError: they have another shape, or hold NaN or infinity.
            StorageError: the disk is full.
        """
        require_same(self.space, space, action="adding vectors")
        block = self._checked(vectors, len(keys))
        start = len(self)
        with storage_errors(self.folder):
            with open(self._data, "r+b") as file:
                file.seek(start * self._row_bytes)
                file.write(block.tobytes())
                file.flush()
                os.fsync(file.fileno())
            rows = [(start + i, key, zlib.crc32(block[i].tobytes())) for i, key in enumerate(keys)]
            with self._database:
                self._database.executemany("INSERT INTO vectors VALUES (?, ?, ?)", rows)

    def take(self, keys: Sequence[bytes]) -> np.ndarray:
        """Return the vectors of `keys`, float32 (len(keys), d), each checked against its checksum.

        Raises:
            DataError: a key has no vector.
            StorageError: a vector does not match its checksum.
        """
        entries = self._entries(keys)
        if len(entries) < len(set(keys)):
            remedy = "Embed the corpus first"
            raise DataError(f"{len(set(keys)) - len(entries)} texts have no vector", remedy=remedy, file=self.folder)
        vectors = self._mapped()[[entries[key][0] for key in keys]]
        for key, vector in zip(keys, vectors, strict=True):
            if zlib.crc32(vector.tobytes()) != entries[key][1]:
                raise self._damaged(f"row {entries[key][0]} does not match its checksum")
        return vectors.astype(np.float32, copy=False)

    def _mapped(self) -> np.ndarray:
        shape = (len(self), self.space.dimension)
        if not len(self):
            return np.empty(shape, dtype=self.space.quantisation)
        return np.memmap(self._data, dtype=self.space.quantisation, mode="r", shape=shape)

    def _entries(self, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        entries: dict[bytes, Entry] = {}
        distinct = list(dict.fromkeys(keys))
        for start in range(0, len(distinct), LOOKUP):
            batch = distinct[start : start + LOOKUP]
            marks = ",".join("?" * len(batch))
            rows = self._database.execute(f"SELECT key, row, crc FROM vectors WHERE key IN ({marks})", batch)
            entries |= {key: (row, crc) for key, row, crc in rows}
        return entries

    def _checked(self, vectors: np.ndarray, count: int) -> np.ndarray:
        if vectors.shape != (count, self.space.dimension):
            problem = f"vectors {vectors.shape} for {count} texts of dimension {self.space.dimension}"
            raise DataError(problem, remedy="Give one vector per text")
        if not np.isfinite(vectors).all():
            raise DataError("the vectors hold NaN or infinity", remedy="Check the model that encoded them")
        return np.ascontiguousarray(vectors, dtype=self.space.quantisation)

    def _claim(self) -> None:
        """Write the space into a new folder, or check it against the folder's space."""
        note = self.folder / "space.json"
        if not note.exists():
            write_atomic(note, json.dumps(asdict(self.space), indent=1).encode())
        try:
            stored = Space(**json.loads(note.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise self._damaged(f"space.json cannot be read ({error})") from None
        require_same(stored, self.space, action="opening this store")

    def _connect(self) -> sqlite3.Connection:
        try:
            database = sqlite3.connect(self.folder / "catalogue.sqlite", timeout=WAIT_S)
            database.execute(
                "CREATE TABLE IF NOT EXISTS vectors (row INTEGER PRIMARY KEY, key BLOB UNIQUE, crc INTEGER)"
            )
            database.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            raise self._damaged(f"the catalogue cannot be read ({error})") from None
        return database

    def _damaged(self, problem: str) -> StorageError:
        return StorageError(problem, remedy="Remove this folder and embed the corpus again", file=self.folder)
