"""Files that are whole or not there: written through to the disk, replaced in one step, checked by checksum."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedlab.errors import EmbedlabError

BLOCK = 1 << 20


class StorageError(EmbedlabError):
    """A file of a vector store or index that is damaged, missing, locked or cannot be written."""


@contextmanager
def storage_errors(place: Path) -> Iterator[None]:
    """Turn the operating system's refusals inside the block into one clear error.

    Raises:
        StorageError: no space, no permission, a file that is gone, a failing disk.
    """
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        remedy = "Make room or mend the permissions, then run the same command again; what is served has not changed"
        raise StorageError(f"the system stopped the work ({cause})", remedy=remedy, file=place) from error


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock that the system takes back when this process dies, however it dies.

    Raises:
        StorageError: another process holds it and `wait` is False.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            remedy = "Let it finish, then run the same command again"
            raise StorageError("another process is working here", remedy=remedy, file=path.parent) from None
        yield
