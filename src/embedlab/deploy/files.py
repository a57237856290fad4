"""One clear error for whatever the operating system refuses while an index is read or written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedlab.errors import StorageError


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals inside the block into one clear error.

    Raises:
        StorageError: no space, no permission, a file that is gone, a failing disk, a damaged database.
    """
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        remedy = (
            "Free space or fix the permissions, then run the same command again; the served version has not changed"
        )
        raise StorageError(f"The file system reported an error ({cause})", remedy=remedy, file=path) from error
    except sqlite3.DatabaseError as error:
        remedy = "Run the same command again: it repairs the file"
        raise StorageError(f"A database is damaged ({error})", remedy=remedy, file=path) from error
