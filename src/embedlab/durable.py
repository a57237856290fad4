"""What is on the disk when a call returns, and not only in the system's memory."""

from __future__ import annotations

import os
from pathlib import Path


def write_through(path: Path, content: bytes) -> None:
    """Write a file and do not return before it is on the disk."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def flush(path: Path) -> None:
    """Force a file's content, or a folder's entries, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
