"""Encode any number of texts to one memory-mapped file, in constant memory, and continue after an interruption."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab.blocks import blocks
from embedlab.io import npy_header, write_atomic
from embedlab.models.encode import dimension
from embedlab.models.encode import encode as default_encode
from embedlab.models.fingerprint import model_fingerprint

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Encode = Callable[..., np.ndarray]  # called like `embedlab.models.encode.encode`

BLOCK_TEXTS = 1 << 14  # encoded and written together: what an interruption costs
HEADER_BYTES = 128  # of a NumPy file; written last, because the number of texts is known then

logger = logging.getLogger(__name__)


def encode_to_file(
    model: SentenceTransformer,
    texts: Iterable[str],
    path: Path,
    *,
    prompt: str | None = None,
    encode: Encode = default_encode,
    block_texts: int = BLOCK_TEXTS,
) -> np.ndarray:
    """Encode texts to the rows of a NumPy file.

    An interrupted call leaves `path`.part and a note of what is in it. The same call continues there: it reads the
    texts again, which is fast, and encodes only the missing ones. If the model, the prompt or an earlier text changed,
    it starts again.

    Args:
        model: any sentence-transformers model.
        texts: the texts, from a list or an iterator; a block of them is in memory at a time.
        path: the file, which ends with `.npy`. A file that exists is replaced.
        prompt: prepended to every text.
        encode: replaces `embedlab.models.encode.encode`.
        block_texts: texts encoded and written together.

    Returns:
        float32 (len(texts), d), a memory map of the file.
    """
    unfinished = _Part(path, dimension(model), {"model": model_fingerprint(model), "prompt": prompt})
    for block in blocks(texts, block_texts):
        if not unfinished.has(block):
            unfinished.append(encode(model, block, stage="encode to file", prompt=prompt))
    return unfinished.finish()


class _Part:
    """An unfinished file of vectors, and a note of the texts in it.

    Args:
        path: the finished file.
        dim: dimensions (d).
        origin: what the vectors depend on besides the texts.
    """

    def __init__(self, path: Path, dim: int, origin: dict[str, Any]) -> None:
        self._path, self._dim, self._origin = path, dim, {**origin, "dim": dim}
        self._file, self._note = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.json")
        self._digest, self._rows, self._block = hashlib.sha256(), 0, 0
        self._blocks: list[list[Any]] = self._read()  # [rows, digest of their texts] after every block

    def has(self, block: list[str]) -> bool:
        """Take the next block of texts, and return whether the file holds its vectors."""
        for text in block:
            self._digest.update(f"{len(text)}:{text}".encode())
        self._rows += len(block)
        self._block += 1
        state = [self._rows, self._digest.hexdigest()]
        if self._blocks[self._block - 1 : self._block] == [state]:
            return True
        if len(self._blocks) >= self._block:
            logger.warning("%s holds vectors of other texts; they are encoded again", self._file)
        self._blocks[self._block - 1 :] = [state]
        return False

    def append(self, vectors: np.ndarray) -> None:
        """Write the vectors of the block that `has` did not find."""
        with self._file.open("r+b" if self._file.exists() else "w+b") as file:
            file.truncate(self._offset(self._rows - len(vectors)))
            file.seek(0, os.SEEK_END)
            file.write(np.ascontiguousarray(vectors, dtype=np.float32).data)
            file.flush()
            os.fsync(file.fileno())
        write_atomic(self._note, json.dumps({"origin": self._origin, "blocks": self._blocks}))

    def finish(self) -> np.ndarray:
        """Write the header, give the file its name, and open it."""
        header = npy_header((self._rows, self._dim), np.dtype("<f4"))
        assert len(header) == HEADER_BYTES
        with self._file.open("r+b" if self._file.exists() else "w+b") as file:
            file.truncate(self._offset(self._rows))
            file.write(header)
        self._file.replace(self._path)
        self._note.unlink(missing_ok=True)
        vectors: np.ndarray = np.load(self._path, mmap_mode="r" if self._rows else None)
        return vectors

    def _offset(self, row: int) -> int:
        return HEADER_BYTES + row * self._dim * np.dtype(np.float32).itemsize

    def _read(self) -> list[list[Any]]:
        """The blocks of an interrupted call for the same model and prompt that the file holds in full."""
        try:
            note, size = json.loads(self._note.read_text(encoding="utf-8")), self._file.stat().st_size
            blocks: list[list[Any]] = note["blocks"] if note["origin"] == self._origin else []
            return [block for block in blocks if self._offset(block[0]) <= size]
        except (OSError, ValueError, KeyError, TypeError):  # none, or damaged
            return []
