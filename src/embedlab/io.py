"""Safe file operations: atomic writes, fsync, one-time commits, locks, checksums.

After a crash or a power cut, a reader finds the old content or the new content, never a mixture.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from embedlab.errors import ParameterError, StorageError

if TYPE_CHECKING:
    import numpy as np

BLOCK_BYTES = 1 << 20
CONTENTS = ".embedlab-contents"  # in a folder that `replace_contents` filled: the files that it wrote


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
def locked(path: Path, *, wait: bool = True, shared: bool = False) -> Iterator[None]:
    """Hold a lock on a file during the block. The system releases it if the process dies.

    Args:
        path: the lock file, created if needed.
        wait: whether to wait for another process that holds the lock.
        shared: whether others may hold a shared lock at the same time; otherwise the lock is exclusive.

    Raises:
        StorageError: another process holds the lock and `wait` is False.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            remedy = "Wait until it has finished, then run the same command again"
            raise StorageError("another process is using this folder", remedy=remedy, file=path.parent) from None
        yield


def sha256_of(path: Path) -> str:
    """Return the hex SHA-256 of a file, read in blocks."""
    with open(path, "rb") as file:
        return sha256_of_stream(file)


def sha256_of_stream(file: IO[bytes]) -> str:
    """Return the hex SHA-256 of the rest of an open file, read in blocks."""
    digest = hashlib.sha256()
    while block := file.read(BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()


def sha256_of_json(content: Any) -> str:
    """Return the hex SHA-256 of a JSON value; the order of keys does not count."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def npy_header(shape: tuple[int, int], kind: np.dtype) -> bytes:
    """Return the first bytes of a NumPy file."""
    import numpy as np

    header = BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": kind.str, "fortran_order": False, "shape": shape})
    return header.getvalue()


def confined(folder: Path, name: str, *, field: str | None = None, single: bool = True) -> Path:
    """Return the path of `name` in a folder, after a check that it cannot lie anywhere else.

    Names come from records, archives, catalogues, other machines and the command line. Every one of them that becomes
    part of a path goes through this function.

    Args:
        folder: the folder that the path must stay in.
        name: relative; without `..`, control characters and, unless `single` is False, without slashes.
        field: what the name is, for the message.
        single: whether the name must be a direct entry of the folder.

    Raises:
        ParameterError: the name leads, or a symbolic link on the way leads, out of the folder.
    """
    parts = name.split("/")
    harmless = name.isprintable() and "\\" not in name and not any(step in ("", ".", "..") for step in parts)
    if not harmless or (single and len(parts) > 1):
        problem = f"{name[:200]!r} is not a plain name" if single else f"{name[:200]!r} is not a path in {folder}"
        remedy = "Use letters, digits, - and _" if single else "Use a relative path without .."
        raise ParameterError(problem, remedy=remedy, field=field)
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        problem = f"{path} is a link to another place"
        raise ParameterError(problem, remedy="Remove the link", field=field)
    return path


def require_own(folder: Path) -> list[str]:
    """Check that a folder is new, empty, or was filled by `replace_contents`.

    Returns:
        The files that an earlier `replace_contents` wrote.

    Raises:
        StorageError: the folder is a link, or it has files and embedlab did not make it.
    """
    list_file = folder / CONTENTS
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise StorageError("this is not a folder", remedy="Choose a new or an empty folder", file=folder)
    if list_file.is_file():
        return list_file.read_text(encoding="utf-8").splitlines()
    if folder.is_dir() and any(folder.iterdir()):
        problem = "embedlab did not make this folder, so its files are not touched"
        raise StorageError(problem, remedy="Choose a new or an empty folder", file=folder)
    return []


def replace_contents(folder: Path, source: Path) -> None:
    """Make a folder hold the files of `source`, and remove only files that an earlier call wrote.

    The folder has a list of the files that this function wrote. A file that is not on it belongs to somebody else: it
    stays, and nothing is written over it.

    Args:
        folder: created if needed; it must be empty or the result of an earlier call.
        source: a folder; its files are moved.

    Raises:
        StorageError: the folder has files of somebody else and no list, or one of them is in the way.
    """
    earlier = require_own(folder)
    owned = {confined(folder, name, single=False, field=CONTENTS) for name in earlier}
    files = sorted(path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file())
    targets = [confined(folder, name, single=False) for name in files]
    for target in targets:
        if target not in owned and os.path.lexists(target):
            raise StorageError("embedlab did not write this file", remedy="Move it to another folder", file=target)
    write_atomic(folder / CONTENTS, "".join(f"{name}\n" for name in sorted({*earlier, *files})))
    for path in owned.difference(targets):
        path.unlink(missing_ok=True)
    for name, target in zip(files, targets, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source / name, target)
    write_atomic(folder / CONTENTS, "".join(f"{name}\n" for name in files))
