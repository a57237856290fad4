"""One clear error for whatever the operating system refuses while an index is read or written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedlab.errors import StorageError


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
