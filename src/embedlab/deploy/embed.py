"""Embed a corpus as a stream: only texts without a vector are encoded, and an interruption costs one chunk at most."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from embedlab import progress
from embedlab.blocks import blocks
from embedlab.deploy.files import storage_errors
from embedlab.deploy.space import Encoder
from embedlab.deploy.store import VectorStore, content_key
from embedlab.io import locked

CHUNK = 1024  # texts encoded and committed together; lost if the process is killed
SAMPLE = 256  # texts whose encoding is timed

Document = tuple[str, str]  # id, text


@dataclass(frozen=True)
class EmbedReport:
    """Counts and time of one pass over the corpus.

    Attributes:
        documents: documents seen.
        encoded: texts that were encoded.
        reused: documents whose text already had a vector.
        seconds: wall-clock time.
    """

    documents: int
    encoded: int
    reused: int
    seconds: float

    def __str__(self) -> str:
        """Return the counts and the time in words."""
        counts = f"{self.documents:,} documents: {self.encoded:,} encoded, {self.reused:,} with a stored vector"
        return f"{counts}, in {self.seconds:.1f} s"


class Estimate(NamedTuple):
    """Texts to encode, and the expected seconds at the speed of a timed sample (None without a sample)."""

    missing: int
    seconds: float | None


def embed_corpus(
    encoder: Encoder,
    documents: Iterable[Document],
    store: VectorStore,
    *,
    listing: Path | None = None,
    total: int | None = None,
    chunk: int = CHUNK,
) -> EmbedReport:
    """Give every document of the stream a vector in `store`.

    Documents are identified by their text: an unchanged document, one with a new id, and one that an interrupted pass
    has encoded are not encoded again. Memory holds one chunk at a time.

    Args:
        encoder: its space must be the store's.
        documents: (id, text), read once.
        store: receives the vectors.
        listing: file for one JSON line `id, key` per document, in the order of the stream. An index built from it has
            exactly the documents read here, even if the source changes meanwhile.
        total: number of documents, for the progress report.
        chunk: documents read, encoded and committed together.

    Raises:
        SpaceMismatch: the encoder works in another space.
        StorageError: the disk is full, or another process is embedding into this store.
    """
    began, seen, encoded = time.perf_counter(), 0, 0
    out = open(listing, "w", encoding="utf-8") if listing else nullcontext()  # noqa: SIM115 - closed by the next line
    with locked(store.folder / ".lock", wait=False), storage_errors(store.folder), out as lines:
        parts = -(-total // chunk) if total else None
        for documents_chunk in progress.track(blocks(documents, chunk), "re-embed", total=parts):
            keys = [content_key(text) for _, text in documents_chunk]
            encoded += _encode_missing(
                encoder, store, dict(zip(keys, (text for _, text in documents_chunk), strict=True))
            )
            seen += len(documents_chunk)
            if lines:
                lines.writelines(_line(name, key) for (name, _), key in zip(documents_chunk, keys, strict=True))
    return EmbedReport(seen, encoded, seen - encoded, time.perf_counter() - began)


def estimate(encoder: Encoder, documents: Iterable[Document], store: VectorStore) -> Estimate:
    """Count the texts without a vector, and time the encoding of up to 256 of them; their vectors are kept."""
    missing = 0
    sample_texts: dict[bytes, str] = {}
    for documents_chunk in blocks(documents, CHUNK):
        texts = {content_key(text): text for _, text in documents_chunk}
        new = store.missing(list(texts)) - sample_texts.keys()
        missing += len(new)
        sample_texts |= {key: texts[key] for key in islice(new, SAMPLE - len(sample_texts))}
    if not sample_texts:
        return Estimate(missing, 0.0 if not missing else None)
    began = time.perf_counter()
    with locked(store.folder / ".lock", wait=False):
        _encode_missing(encoder, store, sample_texts)
    return Estimate(missing, (time.perf_counter() - began) / len(sample_texts) * (missing - len(sample_texts)))


def read_listing(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (document id, text key) of every line that `embed_corpus` wrote."""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield row["id"], bytes.fromhex(row["key"])


def _line(name: str, key: bytes) -> str:
    return json.dumps({"id": name, "key": key.hex()}, ensure_ascii=False) + "\n"


def _encode_missing(encoder: Encoder, store: VectorStore, texts: dict[bytes, str]) -> int:
    missing = store.missing(list(texts))
    new = {key: text for key, text in texts.items() if key in missing}
    if new:
        store.add(list(new), encoder.encode_documents(list(new.values())), encoder.space)
    return len(new)
