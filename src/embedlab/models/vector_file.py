"""One SQLite file of vectors with checksums. A fault of the file or the disk costs time, never a run or a result."""

from __future__ import annotations

import logging
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from embedlab.io import locked

logger = logging.getLogger(__name__)

FORMAT = 2  # `PRAGMA user_version`; the table of another format is dropped and filled again
LOCK_TIMEOUT_S = 60.0  # how long to wait for another writer
KEYS_PER_QUERY = 500  # old SQLite builds allow 999 parameters per query
DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_ERROR}


class DamagedPagesError(sqlite3.DatabaseError):
    """SQLite's own check of a file failed."""


class VectorFile:
    """Key -> vector in one SQLite file, which several processes may use at once.

    - A vector that does not match its checksum is left out of the result, so the caller computes it again.
    - A file that SQLite cannot read is moved aside, and a new one is started. Every operation opens the file under a
      shared lock and closes it again, and moving needs the exclusive lock: a process that had the old file open would
      find the write-ahead log of the new one under the same name.
    - A file that cannot be used (locked, disk full, no permission) is ignored from then on.

    Each of these is logged once, with the name of the file. The checksums take less than 5 % of the time of a read
    (100,000 vectors of 384 dimensions).

    Args:
        path: the file; it is created at the first use.
        dimension: of the vectors (d); None if it is not known, then the checksums alone tell what is intact.
    """

    def __init__(self, path: Path, dimension: int | None) -> None:
        self.path = path
        self.is_usable = True
        self._vector_bytes = None if dimension is None else dimension * np.dtype(np.float32).itemsize
        self._lock = path.with_suffix(".lock")
        self._inode = 0  # of the file that was opened last

    def read(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """Return the vectors of those keys that have an intact one: key -> float32 (d,)."""
        vectors: dict[bytes, np.ndarray] = {}
        self._attempt(lambda database: self._read_into(vectors, database, keys))
        return vectors

    def add(self, keys: Sequence[bytes], vectors: np.ndarray) -> None:
        """Store vectors (n, d) in one transaction; rows with NaN or infinity are left out."""
        finite = np.isfinite(vectors).all(axis=1)
        blobs = [(key, vector.tobytes()) for key, vector, ok in zip(keys, vectors, finite, strict=True) if ok]
        rows = [(key, blob, _checksum(key, blob)) for key, blob in blobs]
        self._attempt(lambda database: _insert(database, rows))

    def trim(self, max_bytes: int) -> None:
        """Delete the least recently used vectors until all together have at most `max_bytes`."""
        self._attempt(lambda database: _delete_oldest(database, max_bytes))

    def _attempt(self, operation: Callable[[sqlite3.Connection], None]) -> None:
        """Run an operation; if the file is damaged, move it aside and run the operation on a new file."""
        for may_repair in (True, False):
            if not self.is_usable:
                return
            try:
                with locked(self._lock, shared=True), self._open() as database:
                    operation(database)
                return
            except (OSError, sqlite3.Error) as error:
                if not (may_repair and _is_damage(error) and self._move_aside(self._inode, error)):
                    self._give_up(error)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self.path, timeout=LOCK_TIMEOUT_S)
        try:
            self._inode = self.path.stat().st_ino
            database.execute("PRAGMA journal_mode=WAL")
            _prepare(database)
            yield database
        finally:
            try:
                database.close()
            except sqlite3.Error:  # closing writes too; nothing is lost that could not be computed again
                logger.debug("Closing %s failed.", self.path, exc_info=True)

    def _read_into(self, vectors: dict[bytes, np.ndarray], database: sqlite3.Connection, keys: Sequence[bytes]) -> None:
        distinct, damaged = list(dict.fromkeys(keys)), 0
        with database:
            for start in range(0, len(distinct), KEYS_PER_QUERY):
                batch = distinct[start : start + KEYS_PER_QUERY]
                marks = ",".join("?" * len(batch))
                for key, blob, checksum in database.execute(
                    f"SELECT key, vector, checksum FROM vectors WHERE key IN ({marks})", batch
                ):
                    if self._is_intact(key, blob, checksum):
                        vectors[key] = np.frombuffer(blob, dtype=np.float32)
                    else:
                        damaged += 1
                database.execute(f"UPDATE vectors SET used = unixepoch() WHERE key IN ({marks})", batch)
        if damaged:
            _check_pages(database)
            logger.warning("%s: %d cached vectors are damaged. They are encoded again.", self.path, damaged)

    def _is_intact(self, key: bytes, blob: object, checksum: object) -> bool:
        if not isinstance(blob, bytes) or (self._vector_bytes is not None and len(blob) != self._vector_bytes):
            return False
        return _checksum(key, blob) == checksum

    def _move_aside(self, inode: int, error: Exception) -> bool:
        """Rename a damaged file unless another process has done so; return whether a new one can be started."""
        aside = self.path.with_suffix(".damaged")
        try:
            with locked(self._lock):
                if not self.path.exists() or self.path.stat().st_ino != inode:
                    return True
                self.path.replace(aside)
                for suffix in ("-wal", "-shm"):  # SQLite would apply them to the new file
                    self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        except OSError:
            return False
        logger.warning("The embedding cache %s is damaged (%s). It is now %s.", self.path, error, aside.name)
        return True

    def _give_up(self, error: Exception) -> None:
        self.is_usable = False
        remedy = "Free space, fix the permissions, or remove the file, to use it again"
        message = "The embedding cache %s cannot be used (%s), so texts are encoded without it. %s."
        logger.warning(message, self.path, error, remedy)


Keep = Callable[[list[int], np.ndarray], None]  # row numbers and their vectors (n, d)


def complete(
    file: VectorFile,
    keys: Sequence[bytes],
    texts: Sequence[str],
    compute: Callable[[Sequence[str], Keep], np.ndarray],
    *,
    max_bytes: int | None = None,
) -> np.ndarray:
    """Return the vectors of texts from a file, and compute and store those that it does not have.

    Args:
        file: of one vector space.
        keys: one per text, equal for equal texts.
        texts: n texts.
        compute: called with the distinct missing texts and a function that stores vectors along the way; returns the
            vectors of these texts (m, d).
        max_bytes: see `VectorFile.trim`; None drops nothing.

    Returns:
        float32 (n, d) in the order of `texts`.
    """
    vectors = file.read(keys)
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in vectors}
    new_keys = list(missing)

    def keep(rows: list[int], block: np.ndarray) -> None:
        file.add([new_keys[row] for row in rows], block)

    if missing or not keys:
        computed = compute(list(missing.values()), keep)
        if not keys:
            return computed
        vectors |= zip(new_keys, computed, strict=True)
        if max_bytes is not None:
            file.trim(max_bytes)
    return np.stack([vectors[key] for key in keys])


def _prepare(database: sqlite3.Connection) -> None:
    """Create the table; drop that of an older format, which has no checksums."""
    if _format(database) == FORMAT:
        return
    with database:
        database.execute("BEGIN IMMEDIATE")
        if _format(database) != FORMAT:  # another process may have been faster
            database.execute("DROP TABLE IF EXISTS vectors")
            columns = "key BLOB PRIMARY KEY, vector BLOB, checksum INTEGER, used INTEGER"
            database.execute(f"CREATE TABLE vectors ({columns})")
            database.execute(f"PRAGMA user_version = {FORMAT}")


def _format(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def _insert(database: sqlite3.Connection, rows: Sequence[tuple[bytes, bytes, int]]) -> None:
    with database:
        database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, unixepoch())", rows)


def _delete_oldest(database: sqlite3.Connection, max_bytes: int) -> None:
    pages, free, page_bytes = (
        database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    if (pages - free) * page_bytes <= max_bytes:  # spares the sum, which reads the whole file
        return
    with database:
        total_bytes, entries = database.execute("SELECT SUM(LENGTH(vector)), COUNT(*) FROM vectors").fetchone()
        if not entries or total_bytes <= max_bytes:
            return
        excess = int(np.ceil((total_bytes - max_bytes) / (total_bytes / entries)))
        oldest = "SELECT rowid FROM vectors ORDER BY used, rowid LIMIT ?"
        database.execute(f"DELETE FROM vectors WHERE rowid IN ({oldest})", (excess,))


def _checksum(key: bytes, blob: bytes) -> int:
    """Return the CRC-32 of key and vector: a vector under another text's key is damage too."""
    return zlib.crc32(blob, zlib.crc32(key))


def _check_pages(database: sqlite3.Connection) -> None:
    """Raise if the damage goes beyond vectors: a replacement in a damaged tree might not be found again."""
    result = database.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if result != "ok":
        raise DamagedPagesError(result)


def _is_damage(error: Exception) -> bool:
    if isinstance(error, DamagedPagesError):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in DAMAGE
