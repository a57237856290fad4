"""Atomic writes, fsync, checksums: a reader finds the old content or the new, never a part."""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path

BLOCK = 1 << 20


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


def replace_through(path: Path, content: bytes) -> None:
    """Give `path` new content in one step: a reader, also after a power cut, finds the old or the new, never a part."""
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        write_through(scratch, content)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    flush(path.parent)


def append_through(path: Path, line: str) -> None:
    """Append one line and flush it; one write call, so that two appenders do not mix."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, (line + "\n").encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
