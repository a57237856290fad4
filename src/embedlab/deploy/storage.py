"""A folder on any storage that fsspec reaches (local disk, S3, GCS, …), with files that appear whole or not at all.

A commit is a small file that is created once (`commit_once`): of two workers that finish the same work, one wins.
Larger files are written under a name of their own first, and the commit names them. On a local disk this is a hard link
after an fsync. An object store shows an object when its upload is complete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from embedlab import io
from embedlab.errors import EmbedlabError, ParameterError, StorageError
from embedlab.redaction import holds_key, redacted


@dataclass(frozen=True)
class Storage:
    """A folder, local or remote; every name is checked to stay inside it.

    Attributes:
        url: absolute, e.g. `file:///disk/shards` or `s3://bucket/shards`; workers open it by the same URL.
    """

    url: str

    @classmethod
    def at(cls, address: str, *, field: str | None = None) -> Storage:
        """Open a folder.

        Args:
            address: a local path or a URL that fsspec knows.
            field: the parameter that names it, for messages.

        Raises:
            ParameterError: the URL holds a key, chains several file systems, or has an unknown protocol.
            EmbedlabError: the package for this protocol is not installed.
        """
        if holds_key(address):
            remedy = "Put keys into the environment variables or files that the storage's own tools read"
            raise ParameterError(f"{redacted(address)} holds a key", remedy=remedy, field=field)
        if not address or "::" in address:
            remedy = "Give a folder, e.g. data/shards or s3://BUCKET/shards"
            raise ParameterError(f"{address!r} is not a folder", remedy=remedy, field=field)
        if "://" not in address:
            return cls(Path(address).absolute().as_uri())
        try:
            fsspec.get_filesystem_class(address.partition("://")[0])
        except ValueError:
            remedy = "Use a local folder, s3://, gs:// or another protocol of fsspec"
            raise ParameterError(f"{address} has an unknown protocol", remedy=remedy, field=field) from None
        except ImportError as error:
            raise EmbedlabError(f"{address} cannot be opened ({error})", remedy="Install that package") from None
        return cls(address.rstrip("/"))

    @property
    def _system(self) -> Any:
        return fsspec.core.url_to_fs(self.url)[0]

    @property
    def _root(self) -> str:
        root: str = fsspec.core.url_to_fs(self.url)[1]
        return root

    @property
    def local(self) -> Path | None:
        """The folder on this machine's disk; None for a remote one."""
        return Path(self._root) if isinstance(self._system, LocalFileSystem) else None

    def within(self, name: str) -> Storage:
        """Return a folder inside this one."""
        return Storage(f"{self.url}/{_plain(name)}")

    def local_path(self, name: str) -> Path:
        """Return the path of a file in a local folder."""
        return Path(self._file(name))

    def path_of(self, name: str) -> str:
        """Return where a file lies, for messages."""
        return str(self.local / name) if self.local else f"{self.url}/{name}"

    def names(self, ending: str = "") -> list[str]:
        """List the files directly in the folder whose names have an ending, sorted; none if there is no folder."""
        return [name for name in self._entries("file") if name.endswith(ending)]

    def folders(self) -> list[str]:
        """List the folders directly in the folder, sorted."""
        return self._entries("directory")

    def _entries(self, kind: str) -> list[str]:
        with self._errors(""):
            try:
                entries = self._system.ls(self._root, detail=True, refresh=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
        names = [entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry in entries if entry["type"] == kind]
        return sorted(name for name in names if not name.startswith("."))

    def size(self, name: str) -> int | None:
        """Return the bytes of a file; None if it does not exist."""
        with self._errors(name):
            try:
                return int(self._system.size(self._file(name)))
            except FileNotFoundError:
                return None

    def read(self, name: str, *, head: int | None = None, tail: int | None = None) -> bytes | None:
        """Return a file's content, or only its first or last bytes; None if it does not exist."""
        with self._errors(name):
            try:
                start = None if tail is None else max(0, int(self._system.size(self._file(name))) - tail)
                content: bytes = self._system.cat_file(self._file(name), start=start, end=head)
            except FileNotFoundError:
                return None
        return content

    @contextmanager
    def reading(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file to read it in any order."""
        with self._errors(name), self._system.open(self._file(name), "rb") as file:
            yield file

    @contextmanager
    def writing(self, name: str) -> Iterator[HashedFile]:
        """Write a new file; if the block raises, it is removed.

        No other writer may use the name. Nothing refers to the file before it is committed.
        """
        with self._errors(name):
            self._system.makedirs(self._root, exist_ok=True)
            try:
                with self._system.open(self._file(name), "wb") as file:
                    yield HashedFile(file)
                if self.local:
                    io.fsync(Path(self._file(name)))
            except BaseException:
                self.remove(name)
                raise

    def commit_once(self, name: str, content: bytes) -> bool:
        """Create a file with `content` unless it exists; return whether this call created it."""
        with self._errors(name):
            if self.local:
                return io.commit_once(Path(self._file(name)), content)
            try:
                self._system.pipe_file(self._file(name), content, mode="create")
            except FileExistsError:
                return False
        return True

    def write(self, name: str, content: bytes) -> None:
        """Replace a small file in one step."""
        with self._errors(name):
            if self.local:
                io.write_atomic(Path(self._file(name)), content)
            else:
                self._system.pipe_file(self._file(name), content)

    def remove(self, name: str) -> None:
        """Remove a file if it exists."""
        with suppress(OSError):
            self._system.rm_file(self._file(name))

    def _file(self, name: str) -> str:
        if self.local:
            return str(io.confined(self.local, _plain(name)))
        return f"{self._root}/{_plain(name)}"

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        """Turn what the storage reports into one clear error without keys."""
        try:
            yield
        except (OSError, ImportError) as error:
            cause = redacted(getattr(error, "strerror", None) or str(error) or type(error).__name__)
            remedy = "Check the address, the permissions and the free space; then run the same command again"
            raise StorageError(
                f"the storage reported an error ({cause})", remedy=remedy, file=self.path_of(name)
            ) from None


class HashedFile:
    """A file being written, with the SHA-256 and the number of the bytes so far.

    `closed`, `flush`, `tell` and `close` are for pyarrow; the file is closed by the one who opened it.
    """

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest, self.bytes = file, hashlib.sha256(), 0

    def write(self, content: bytes) -> int:
        """Append bytes."""
        self._file.write(content)
        self._digest.update(content)
        self.bytes += len(content)
        return len(content)

    def flush(self) -> None:
        """Do nothing: the file is flushed when it is closed."""

    def tell(self) -> int:
        """Return the number of bytes so far."""
        return self.bytes

    def close(self) -> None:
        """Do nothing."""

    @property
    def sha256(self) -> str:
        """Hex digest of what was written."""
        return self._digest.hexdigest()


def read_json(storage: Storage, name: str) -> dict[str, Any] | None:
    """Read a JSON object; None if the file is missing or damaged."""
    content = storage.read(name)
    try:
        value = json.loads(content) if content is not None else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def sha256_of(storage: Storage, name: str) -> str:
    """Return the hex SHA-256 of a file, read in blocks."""
    with storage.reading(name) as file:
        return io.sha256_of_stream(file)


def _plain(name: str) -> str:
    """Return `name` after a check that it is one step of a path."""
    if not name or not name.isprintable() or name in (".", "..") or set(name) & set("/\\?*#"):
        raise ParameterError(f"{name[:200]!r} is not a plain name", remedy="Use letters, digits, -, _ and .")
    return name
