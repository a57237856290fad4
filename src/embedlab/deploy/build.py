"""Build a version: embed new texts, copy the vectors into one file, index and evaluate them, and name the version."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from embedlab.deploy.embed import CHUNK, Document, EmbedReport, embed_corpus, read_listing
from embedlab.deploy.files import storage_errors
from embedlab.deploy.indexes import IndexSpec, VectorIndex
from embedlab.deploy.serve import Served
from embedlab.deploy.space import Encoder
from embedlab.deploy.store import VectorStore
from embedlab.deploy.versions import (
    DOCUMENTS,
    INDEX,
    MANIFEST,
    VECTORS,
    FileSum,
    Judged,
    Manifest,
    next_number,
    read_pointer,
    verify,
    version_folder,
)
from embedlab.errors import DataError, StorageError
from embedlab.io import fsync, locked, sha256_of, write_synced
from embedlab.search.collapse import warn_about_vectors

DRAFT = ".draft-"
Assess = Callable[[Served], "Judged | None"]


@dataclass(frozen=True)
class Source:
    """A corpus and where it comes from.

    Attributes:
        documents: (id, text), read once, in a stream.
        name: the dataset's spec string.
        fingerprint: returns the fingerprint of the source's bytes. It is called before and after the corpus is read;
            if the source has changed meanwhile, the build raises an error.
        total: number of documents, for the progress report.
        model_name: name of the encoder's model, to load it again.
    """

    documents: Iterable[Document]
    name: str = ""
    fingerprint: Callable[[], str] = field(default=lambda: "")
    total: int | None = None
    model_name: str = ""


def store_of(root: Path, encoder: Encoder) -> VectorStore:
    """Open the vector store of the encoder's space under `root`."""
    return VectorStore(root / encoder.space.fingerprint / "store", encoder.space)


def build_version(
    root: Path, encoder: Encoder, source: Source, spec: IndexSpec, *, assess: Assess | None = None
) -> tuple[str, EmbedReport]:
    """Build and name a version; it is served only after you promote it.

    The same corpus in the same order, space and index give the same version, which is not built twice. If the process
    is killed, the next build removes its draft and reuses its vectors. Vectors of deleted documents stay in the store,
    but not in the version.

    Args:
        root: folder of all versions.
        encoder: maps the documents into its space.
        source: the documents.
        spec: the index.
        assess: evaluates the finished index before it gets its name.

    Returns:
        The version, `<fingerprint>/<build>`, and a report of the embedding.

    Raises:
        StorageError: the disk is full, or another process builds in this space.
        DataError: the corpus is empty, has a document id twice, or changed while it was read.
    """
    space_folder = root / encoder.space.fingerprint
    with storage_errors(space_folder), locked(space_folder / ".lock", wait=False), _draft(space_folder) as draft:
        report = _list_documents(root, encoder, source, draft)
        version = f"{encoder.space.fingerprint}/{_build_id(draft, spec)}"
        if _is_complete(root, version):
            return version, report
        manifest = _fill(root, version, draft, encoder, source, spec, assess)
        write_synced(draft / MANIFEST, manifest.to_bytes())
        fsync(draft)
        draft.rename(version_folder(root, version))
        fsync(space_folder)
    return version, report


@contextmanager
def _draft(space_folder: Path) -> Iterator[Path]:
    """Give an empty folder for a version; it is removed unless the block renames it.

    Drafts of killed builds are removed too.
    """
    for old_draft in space_folder.glob(f"{DRAFT}*"):
        shutil.rmtree(old_draft)
    draft = space_folder / f"{DRAFT}{uuid.uuid4().hex[:12]}"
    draft.mkdir()
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _list_documents(root: Path, encoder: Encoder, source: Source, draft: Path) -> EmbedReport:
    fingerprint_before, store = source.fingerprint(), store_of(root, encoder)
    try:
        listing = draft / DOCUMENTS
        report = embed_corpus(encoder, source.documents, store, listing=listing, total=source.total, chunk=CHUNK)
    finally:
        store.close()
    if source.fingerprint() != fingerprint_before:
        remedy = "Run the same command again; encoded vectors are kept"
        raise DataError("The data changed while it was embedded", remedy=remedy, file=source.name or None)
    return report


def _build_id(draft: Path, spec: IndexSpec) -> str:
    content = sha256_of(draft / DOCUMENTS) + spec.model_dump_json()
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _is_complete(root: Path, version: str) -> bool:
    """Return whether the version exists and is intact; a damaged one is moved away."""
    folder = version_folder(root, version)
    if not folder.exists():
        return False
    try:
        verify(root, version)
    except StorageError:
        folder.rename(folder.with_name(f".damaged-{folder.name}-{uuid.uuid4().hex[:8]}"))
        return False
    return True


def _fill(
    root: Path, version: str, draft: Path, encoder: Encoder, source: Source, spec: IndexSpec, assess: Assess | None
) -> Manifest:
    """Write vectors and index into the draft, and return the manifest."""
    ids, keys = _read_documents(draft)
    _gather(store_of(root, encoder), keys, draft / VECTORS)
    vectors = np.load(draft / VECTORS, mmap_mode="r", allow_pickle=False)
    warn_about_vectors(vectors, "document vectors")
    index = VectorIndex.build(spec, vectors)
    index.save(draft / INDEX)
    for name in (DOCUMENTS, VECTORS):
        fsync(draft / name)
    pointer = read_pointer(root)
    manifest = Manifest(
        version=version,
        number=next_number(root),
        space=encoder.space,
        model_name=source.model_name,
        index=spec,
        dataset=source.name,
        data_fingerprint=source.fingerprint(),
        documents=len(ids),
        files={name: FileSum.of(draft / name) for name in (DOCUMENTS, VECTORS, INDEX)},
        parent=pointer.version if pointer else None,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    judged = assess(Served(manifest, index, tuple(ids))) if assess else None
    return manifest.model_copy(update={"judged": judged, "metrics": {"megabytes": index.bytes / 1e6}})


def _read_documents(draft: Path) -> tuple[list[str], list[bytes]]:
    listed = list(read_listing(draft / DOCUMENTS))
    ids = [name for name, _ in listed]
    if not ids:
        raise DataError("The corpus is empty", remedy="Give at least one document")
    if len(set(ids)) < len(ids):
        duplicate = next(name for name, count in Counter(ids).items() if count > 1)
        raise DataError(f"Two documents have the id {duplicate!r}", remedy="Give every document its own id")
    return ids, [key for _, key in listed]


def _gather(store: VectorStore, keys: list[bytes], path: Path) -> None:
    """Copy the vectors of `keys` into one .npy file in their order, chunk by chunk."""
    shape = (len(keys), store.space.dimension)
    vectors = np.lib.format.open_memmap(path, "w+", dtype=store.space.quantisation, shape=shape)
    for start in range(0, len(keys), CHUNK):
        vectors[start : start + CHUNK] = store.take(keys[start : start + CHUNK])
    vectors.flush()
    store.close()
