"""Safe file operations: atomic writes, fsync, one-time commits, locks, checksums.

After a crash or a power cut, a reader finds the old content or the new content, never a mixture.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedlab.errors import StorageError

BLOCK_BYTES = 1 << 20


def fsync(path: Path) -> None:
    """Flush a file's content, or a folder's list of entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and return once its content is on the disk. Not atomic: see `write_atomic`."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give the block a temporary path, and move what it wrote there to `path` in one step.

    The parent folder is created if needed. If the block raises, `path` keeps its old content.

    Yields:
        A path in the same folder, without a suffix that writers such as `np.save` could misread. It must exist when
        the block ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield temporary
        fsync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync(path.parent)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace the content of `path` in one step; text is written as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def commit_once(path: Path, content: bytes) -> bool:
    """Create `path` with `content` unless it exists, safe against other processes that do the same.

    Returns:
        True if this call created the file, False if it already existed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        write_synced(temporary, content)
        os.link(temporary, path)  # fails if `path` exists, unlike a rename
        created = True
    except FileExistsError:
        created = False
    finally:
        temporary.unlink(missing_ok=True)
    fsync(path.parent)
    return created


def append_line(path: Path, line: str) -> None:
    """Append one line and flush it to the disk, in a single write so that concurrent appenders do not interleave."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, (line + "\n").encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on a file during the block. The system releases it if the process dies.

    Args:
        path: the lock file, created if needed.
        wait: whether to wait for another process that holds the lock.

    Raises:
        StorageError: another process holds the lock and `wait` is False.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            remedy = "Wait until it has finished, then run the same command again"
            raise StorageError("another process is using this folder", remedy=remedy, file=path.parent) from None
        yield


def sha256_of(path: Path) -> str:
    """Return the hex SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
