"""Store the vectors of one space by the content of their texts: encoded once, memory-mapped, safe against crashes.

Vectors are appended to one file. A SQLite catalogue maps texts to rows and is committed after the vectors are on the
disk. A crash leaves at most some rows without an entry, which the next writer overwrites. Every vector has a checksum.
What is damaged counts as missing, so the next pass over the corpus encodes it again; everything else is kept.
(`models.cache` is only a cache and may drop intact vectors; this store may not.)
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np

from embedlab.deploy.files import storage_errors
from embedlab.deploy.space import Space, require_same
from embedlab.errors import DataError, StorageError
from embedlab.io import fsync, locked, write_atomic

logger = logging.getLogger(__name__)

LOOKUP = 500  # keys per query; SQLite allows 999 parameters in its oldest builds
WAIT_S = 60.0  # for another connection's lock
TABLE = "CREATE TABLE IF NOT EXISTS vectors (row INTEGER PRIMARY KEY, key BLOB UNIQUE, crc INTEGER)"

Entry = tuple[int, int]  # row, CRC-32 of the row's bytes


def content_key(text: str) -> bytes:
    """Return a 16-byte key of a text (SHA-256)."""
    return hashlib.sha256(text.encode()).digest()[:16]


class VectorStore:
    """Text key -> vector of one space, on disk.

    Args:
        folder: of the store; created if it is missing.
        space: the vector space.

    Raises:
        SpaceMismatch: the folder holds vectors of another space.
        StorageError: the note of the space is damaged, or the store cannot be written.
    """

    def __init__(self, folder: Path, space: Space) -> None:
        self.folder, self.space = folder, space
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._claim()
            self._data.touch()
            self._database = self._connect()
            fsync(folder)

    @property
    def _data(self) -> Path:
        return self.folder / "vectors.bin"

    @property
    def _row_bytes(self) -> int:
        return self.space.dimension * np.dtype(self.space.quantisation).itemsize

    def __len__(self) -> int:
        """Number of rows in use."""
        with storage_errors(self.folder):
            return self._database.execute("SELECT COALESCE(MAX(row) + 1, 0) FROM vectors").fetchone()[0]

    def close(self) -> None:
        """Close the catalogue."""
        self._database.close()

    def missing(self, keys: Sequence[bytes]) -> set[bytes]:
        """Return the keys that have no intact vector."""
        entries = self._entries(keys)
        vectors = self._mapped()
        damaged = {key for key, entry in entries.items() if not _is_intact(vectors, entry)}
        if damaged:
            logger.warning("%s: %d vectors are damaged. They are encoded again.", self._data, len(damaged))
        return (set(keys) - entries.keys()) | damaged

    def add(self, keys: Sequence[bytes], vectors: np.ndarray, space: Space) -> None:
        """Append vectors (n, d) of new or damaged keys; when it returns, they are on the disk.

        Raises:
            SpaceMismatch: the vectors come from another space.
            DataError: they have another shape, or hold NaN or infinity.
            StorageError: the disk is full.
        """
        require_same(self.space, space, action="adding vectors")
        block = self._checked(vectors, len(keys))
        with storage_errors(self.folder):
            # Rows after the end of a truncated file are free again: their entries are replaced.
            start = min(len(self), self._data.stat().st_size // self._row_bytes)
            with open(self._data, "r+b") as file:
                file.seek(start * self._row_bytes)
                file.write(block.tobytes())
                file.flush()
                os.fsync(file.fileno())
            rows = [(start + i, key, zlib.crc32(block[i].tobytes())) for i, key in enumerate(keys)]
            with self._database:
                self._database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)

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
        vectors = self._mapped()
        if damaged := [entry[0] for entry in entries.values() if not _is_intact(vectors, entry)]:
            problem = f"row {damaged[0]} does not match its checksum"
            remedy = "Run the same command again: damaged vectors are encoded again"
            raise StorageError(problem, remedy=remedy, file=self._data)
        return vectors[[entries[key][0] for key in keys]].astype(np.float32, copy=False)

    def _mapped(self) -> np.ndarray:
        """Map the whole rows of the file; fewer than the catalogue has if the file was truncated."""
        with storage_errors(self._data):
            shape = (self._data.stat().st_size // self._row_bytes, self.space.dimension)
            if not shape[0]:
                return np.empty(shape, dtype=self.space.quantisation)
            return np.memmap(self._data, dtype=self.space.quantisation, mode="r", shape=shape)

    def _entries(self, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        entries: dict[bytes, Entry] = {}
        distinct = list(dict.fromkeys(keys))
        for start in range(0, len(distinct), LOOKUP):
            batch = distinct[start : start + LOOKUP]
            marks = ",".join("?" * len(batch))
            with storage_errors(self.folder):
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
        """Open the catalogue; a damaged one is moved aside, and what can still be read of it is kept."""
        path = self.folder / "catalogue.sqlite"
        try:
            return _open(path)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            with locked(self.folder / ".repair"):
                with suppress(sqlite3.DatabaseError):
                    return _open(path)  # another process has repaired it
                readable_entries = _repair(path, rows=self._data.stat().st_size // self._row_bytes)
            message = (
                "%s is damaged (%s). It is now catalogue.damaged; the new one has the %d entries that can be read."
            )
            logger.warning(message, path, error, readable_entries)
            return _open(path)

    def _damaged(self, problem: str) -> StorageError:
        return StorageError(problem, remedy="Remove this folder and embed the corpus again", file=self.folder)


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=WAIT_S)
    try:
        database.execute(TABLE)
        result = database.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if result != "ok":
            raise sqlite3.DatabaseError(result)
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database


def _repair(path: Path, rows: int) -> int:
    """Replace a damaged catalogue of a file of `rows` rows by the entries that can be read; return their number.

    An entry that is wrong does no harm: the checksum of its vector does not match.
    """
    entries = dict[bytes, Entry]()
    for order in ("ASC", "DESC"):  # from both ends up to the damaged page
        for key, row, crc in _readable(path, order):
            if isinstance(key, bytes) and isinstance(row, int) and isinstance(crc, int) and 0 <= row < rows:
                entries.setdefault(key, (row, crc))
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    by_row = {row: (row, key, crc) for key, (row, crc) in entries.items()}
    with closing(sqlite3.connect(new)) as database, database:
        database.execute(TABLE)
        database.executemany("INSERT INTO vectors VALUES (?, ?, ?)", by_row.values())
    path.with_name(f"{path.name}-journal").unlink(missing_ok=True)  # it belongs to the damaged file
    path.replace(path.with_suffix(".damaged"))
    new.replace(path)
    fsync(path.parent)
    return len(by_row)


def _readable(path: Path, order: str) -> Iterator[tuple[object, object, object]]:
    with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(path)) as database:
        yield from database.execute(f"SELECT key, row, crc FROM vectors NOT INDEXED ORDER BY row {order}")


def _is_intact(vectors: np.ndarray, entry: Entry) -> bool:
    row, crc = entry
    return 0 <= row < len(vectors) and zlib.crc32(vectors[row].tobytes()) == crc
