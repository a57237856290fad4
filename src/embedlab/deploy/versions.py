"""Versions of an index, and the pointer to the version that is served.

    ROOT/current.json                       which version is served, and those it replaced
    ROOT/<fingerprint>/store/               every vector of this space (see `store`)
    ROOT/<fingerprint>/<build>/             a version: never changed once it has its name
        manifest.json documents.jsonl vectors.npy index.bin
    ROOT/<fingerprint>/<build>.checks.jsonl later evaluations (see `recheck`)

A version is built in a draft folder and renamed once all its files are on the disk. It is served as soon as the
pointer, one small file, is replaced. If the process is killed at any point, either the old or the new version is
served, and it is complete.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from embedlab.deploy.files import storage_errors
from embedlab.deploy.indexes import IndexSpec
from embedlab.deploy.space import Space
from embedlab.errors import ParameterError, StorageError
from embedlab.io import confined, locked, sha256_of, sha256_of_json, write_atomic

NAME = re.compile(r"[A-Za-z0-9_-]+/[A-Za-z0-9_-]+")  # of a version; it is also the name of its folder
MANIFEST, POINTER = "manifest.json", "current.json"
DOCUMENTS, VECTORS, INDEX = "documents.jsonl", "vectors.npy", "index.bin"


class FileSum(BaseModel):
    """Size and SHA-256 of a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileSum:
        """Return size and checksum of a file."""
        return cls(bytes=path.stat().st_size, sha256=sha256_of(path))


class Judged(BaseModel):
    """The evaluation of a version, with all that is needed to repeat it on new data."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dataset: str
    split: str
    metric: str
    value: float | None
    ci_low: float | None = None
    ci_high: float | None = None
    n: int = 0


class Manifest(BaseModel):
    """Contents and origin of a version.

    Attributes:
        version: `<fingerprint>/<build>`.
        number: 1 for the first version under the root, 2 for the second; it orders them. Clocks and file times cannot:
            they differ between machines and copies. 0 in versions of older code.
        space: of its vectors.
        model_name: name of the encoder's model, to load it again.
        index: kind and parameters of the index.
        dataset: spec string of the data.
        data_fingerprint: of the source's bytes.
        documents: number of documents.
        files: file name -> size and checksum.
        metrics: megabytes of the index.
        judged: the evaluation when it was built.
        parent: the version that was served at that time.
        created: UTC.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    version: str
    number: int = 0
    space: Space
    model_name: str = ""
    index: IndexSpec
    dataset: str = ""
    data_fingerprint: str = ""
    documents: int
    files: dict[str, FileSum]
    metrics: dict[str, float | None] = Field(default_factory=dict)
    judged: Judged | None = None
    parent: str | None = None
    created: str = ""

    def to_bytes(self) -> bytes:
        """Return the content of the manifest file, with a checksum of itself."""
        content = self.model_dump(mode="json")
        return json.dumps({**content, "sha256": sha256_of_json(content)}, indent=1).encode()


class Pointer(BaseModel):
    """The served version and the ones served before it, oldest first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    previous: tuple[str, ...] = ()


def version_folder(root: Path, version: str) -> Path:
    """Return the folder of a version.

    Raises:
        StorageError: the name is malformed, such as `../x` or an absolute path, or the folder is a link to another
            place.
    """
    if not NAME.fullmatch(version):
        remedy = f"Give FINGERPRINT/BUILD. Existing versions: {_existing(root)}"
        raise StorageError(f"{version!r} is not the name of a version", remedy=remedy, file=root)
    try:
        return confined(root, version, single=False)
    except ParameterError as error:
        raise StorageError(error.problem, remedy="Move the version into its folder", file=root) from None


def read_manifest(root: Path, version: str) -> Manifest:
    """Read a version's manifest and check it against its checksum.

    Raises:
        StorageError: there is no such version, or its manifest is damaged.
    """
    path = version_folder(root, version) / MANIFEST
    try:
        content = json.loads(path.read_bytes())
        stated = content.pop("sha256")
        intact = stated == sha256_of_json(content)
        manifest = Manifest(**content)
    except FileNotFoundError:
        remedy = f"Existing versions: {_existing(root)}"
        raise StorageError(f"There is no version {version!r}", remedy=remedy, file=root) from None
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise _damaged(path, type(error).__name__) from None
    if not intact or manifest.version != version:
        raise _damaged(path, "it is not what was written")
    return manifest


def verify(root: Path, version: str) -> Manifest:
    """Check the size and checksum of every file of a version.

    Raises:
        StorageError: a file is missing, cut short or changed, or the version is in the folder of another space.
    """
    manifest = read_manifest(root, version)
    if version.split("/")[0] != manifest.space.fingerprint:
        raise _damaged(version_folder(root, version), f"its vectors are of space {manifest.space.fingerprint}")
    if set(manifest.files) != {DOCUMENTS, VECTORS, INDEX}:
        raise _damaged(version_folder(root, version) / MANIFEST, f"it lists {', '.join(manifest.files) or 'no files'}")
    for name, stated in manifest.files.items():
        path = version_folder(root, version) / name
        if not path.is_file():
            raise _damaged(path, "the file is missing")
        if path.stat().st_size != stated.bytes:
            raise _damaged(path, f"{path.stat().st_size} bytes instead of {stated.bytes}")
        if sha256_of(path) != stated.sha256:
            raise _damaged(path, "its checksum does not match")
    return manifest


def versions(root: Path) -> list[str]:
    """List all finished versions in the order in which they were built; damaged ones come first."""
    names = ["/".join(path.parts[-3:-1]) for path in root.glob(f"*/*/{MANIFEST}")]
    return sorted((name for name in names if NAME.fullmatch(name)), key=lambda name: _age(root, name))


def next_number(root: Path) -> int:
    """Return the number of the next version: one more than the largest."""
    return 1 + max((_age(root, name)[0] for name in versions(root)), default=0)


def _age(root: Path, version: str) -> tuple[int, str, str]:
    """Return what orders a version: number, then time for versions of older code, then name."""
    try:
        manifest = read_manifest(root, version)
    except StorageError:
        return 0, "", version
    return manifest.number, manifest.created, version


def _existing(root: Path) -> str:
    return ", ".join(versions(root)) or "none"


def read_pointer(root: Path) -> Pointer | None:
    """Read the pointer; None if nothing has been promoted yet.

    Raises:
        StorageError: the pointer is damaged.
    """
    path = root / POINTER
    try:
        return Pointer(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        remedy = "Promote the version that should be served"
        raise StorageError(f"The pointer is damaged ({type(error).__name__})", remedy=remedy, file=path) from None


def promote(root: Path, version: str) -> Pointer:
    """Serve `version` from now on, atomically, after all its files have been checked.

    Promotions wait for each other. Each keeps the version it replaced, for a rollback.

    Raises:
        StorageError: the version is damaged or missing; the served version has not changed.
    """
    with locked(root / ".lock"):
        verify(root, version)
        now = _pointer_or_none(root)
        if now and now.version == version:
            return now
        return _point(root, Pointer(version=version, previous=(*now.previous, now.version) if now else ()))


def rollback(root: Path) -> Pointer:
    """Serve the previous version again, atomically, after it has been checked.

    Raises:
        StorageError: there is no earlier version, or it is damaged; the served version has not changed.
    """
    with locked(root / ".lock"):
        now = read_pointer(root)
        if now is None or not now.previous:
            raise StorageError("There is no earlier version", remedy="Promote one: embedlab deploy promote", file=root)
        verify(root, now.previous[-1])
        return _point(root, Pointer(version=now.previous[-1], previous=now.previous[:-1]))


def current(root: Path) -> str:
    """Return the version that is served.

    Raises:
        StorageError: nothing was promoted yet, or the pointer is damaged.
    """
    pointer = read_pointer(root)
    if pointer is None:
        remedy = "Build a version and promote it: embedlab deploy index, embedlab deploy promote"
        raise StorageError("No version is served", remedy=remedy, file=root)
    return pointer.version


def _pointer_or_none(root: Path) -> Pointer | None:
    """Read the pointer for a promotion, which replaces a damaged pointer; its history is lost."""
    try:
        return read_pointer(root)
    except StorageError:
        return None


def _point(root: Path, pointer: Pointer) -> Pointer:
    with storage_errors(root):
        write_atomic(root / POINTER, pointer.model_dump_json(indent=1).encode())
    return pointer


def _damaged(path: Path, reason: str) -> StorageError:
    remedy = "Build the version again, or promote another one"
    return StorageError(f"The version is damaged: {reason}", remedy=remedy, file=path)
