"""The files and folders that parameters name: models, task folders, probe files. A run id covers their content.

A hash of a large file is kept in the cache folder together with the file's size, times and inode, so that a model is
read once and not for every run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from embedlab import paths
from embedlab.data.load import source_fingerprint
from embedlab.errors import ParameterError
from embedlab.io import sha256_of, write_atomic
from embedlab.models.load import BASE_MODEL

# `dataset` has its own fingerprint, and the folder that the run is kept in does not change its results.
NOT_INPUTS = ("seed", "output_dir", "dataset")
# A value of a parameter with such an ending is a path even without a slash.
PATH_NAMES = ("_dir", "_file", "_folder", "_path")
MODEL_FILES = ("modules.json", "config.json")  # a folder with one of them is a model
SCHEME = re.compile(r"(?P<scheme>[a-z][a-z_-]*):(?P<location>[^?]+)(?P<options>.*)", re.DOTALL)
EXTRA = re.compile(r"(?<=[?&]extra=)[^&]+")  # a spec inside a spec
FILE_SCHEMES = ("beir", "clicks", "pairs", "parallel")  # dataset specs that name a file or folder
RECIPES = "recipes"  # the parameter with names of recipes, which are files of the project
LEFT_OUT = ("__pycache__", "evidence.json")  # and hidden files, and texts for readers
LARGE_BYTES = 1 << 20  # smaller files are read every time
SETTLED_NS = 2_000_000_000  # a file that changed this recently may change again with the same time
KEPT_HASHES = 2000  # in the cache file


def input_digests(values: Mapping[str, Any], runs_folder: Path | None = None) -> dict[str, str]:
    """Hash the files and folders that parameters name.

    A name without a file or folder, such as a hub name, has no digest. Nor has a folder that holds the runs, because
    every run changes it.

    Args:
        values: every parameter of a run.
        runs_folder: where runs are kept; results/runs when not given.

    Returns:
        The text in the parameter -> 16 hex digits that change with the content.

    Raises:
        ParameterError: a file cannot be read.
    """
    runs_folder = runs_folder or paths.runs_dir()
    digests: dict[str, str] = {}
    for name, text, path in named_paths(values):
        if not runs_folder.is_relative_to(path):
            digests[text] = _digest_of(path, name)
    return digests


def named_paths(values: Mapping[str, Any]) -> Iterator[tuple[str, str, Path]]:
    """Yield (parameter, its text, absolute path) for every existing file or folder that a parameter names."""
    for name, value in values.items():
        if name in NOT_INPUTS:
            continue
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and (path := _named_path(name, text)):
                yield name, text, path


def _named_path(name: str, text: str) -> Path | None:
    """The file or folder that a text names, such as `models/a`, `sts:pairs.csv` or `pairs:my.csv?repair=true`."""
    if not text.strip() or text.removeprefix("sentence-transformers/") == BASE_MODEL:
        return None
    with suppress(OSError, ValueError, RuntimeError):  # too long, a NUL character, no home folder: not a path
        if name == RECIPES and (path := paths.recipe_file(text)).is_file():
            return path
        if (path := absolute(text)).exists():
            return path if _is_path(name, text, path) else None
        folder, has_options, _ = text.partition("?")  # a model with options, such as `models/a?max_seq_length=512`
        if has_options and folder and (path := absolute(folder)).exists():
            return path if _is_path(name, folder, path) else None
        if (parts := _spec_parts(text)) and (path := absolute(parts[1])).exists():
            return path
    return None


def _is_path(name: str, text: str, path: Path) -> bool:
    """Whether a text that names something in the project folder means it; "data" may be a word like any other."""
    if "/" in text or name.endswith(PATH_NAMES):
        return True
    return bool(path.suffix) if path.is_file() else any((path / file).is_file() for file in MODEL_FILES)


def absolute(text: str) -> Path:
    """The absolute form of a path in a parameter: relative ones start at the project folder, where notebooks run."""
    path = Path(text).expanduser()
    in_project = paths.project_root() / path
    return in_project if in_project.exists() or not path.exists() else path.absolute()


def from_current_folder(name: str, value: Any) -> Any:
    """Translate paths, such as `data/model` or `pairs:my.csv`, so that they mean the same from every folder.

    Args:
        name: the parameter.
        value: as the user typed it. A relative path starts at the current folder, or else at the project folder.

    Returns:
        The value with paths as seen from the project folder; absolute ones if they are outside.

    Raises:
        ParameterError: a dataset file is in neither folder.
    """
    if isinstance(value, list):
        return [from_current_folder(name, item) for item in value]
    if not isinstance(value, str) or not value.strip() or value == BASE_MODEL:
        return value
    if (path := _existing(value)) and _is_path(name, value, path):
        return paths.shown(path)
    value = EXTRA.sub(lambda extra: str(from_current_folder(name, extra[0])), value)
    if (parts := _spec_parts(value)) is None:
        return value
    scheme, location, options = parts
    if path := _existing(location):
        return f"{scheme}:{paths.shown(path)}{options}"
    if scheme in FILE_SCHEMES and not _existing(location, paths.project_root()):
        places = dict.fromkeys(str(folder / location) for folder in (Path.cwd(), paths.project_root()))
        raise ParameterError(f"there is no {' and no '.join(places)}", remedy="Check the path", field=name)
    return value


def _spec_parts(text: str) -> tuple[str, str, str] | None:
    """Scheme, location and options of a spec such as `pairs:my.csv?repair=true`; a file name may have a `?` too."""
    if (match := SCHEME.fullmatch(text)) is None:
        return None
    scheme, location, options = match.group("scheme", "location", "options")
    is_whole = options and (_existing(location + options) or _existing(location + options, paths.project_root()))
    return (scheme, location + options, "") if is_whole else (scheme, location, options)


def _existing(text: str, folder: Path | None = None) -> Path | None:
    """The absolute path of an existing file or folder; a data file may be compressed.

    A link within the project is not followed, so that a record has the same path wherever `data` lies.
    """
    with suppress(OSError, ValueError, RuntimeError):
        path = (folder or Path.cwd()) / Path(text).expanduser()
        if path.exists() or path.with_name(f"{path.name}.gz").exists():
            named = Path(os.path.normpath(path))
            return named if named.is_relative_to(paths.project_root()) else path.resolve()
    return None


def data_fingerprint(spec: str) -> str:
    """Hash the files behind a dataset spec, whatever the current folder is; "" without a spec.

    Raises:
        DataError: the spec is unknown or a file is missing.
    """
    parts = _spec_parts(spec)
    if parts and parts[0] in FILE_SCHEMES:
        scheme, location, options = parts
        spec = f"{scheme}:{absolute(location)}{options}"
    return source_fingerprint(spec) if spec else ""


def _digest_of(path: Path, parameter: str) -> str:
    try:
        hashes = _KnownHashes()
        digest = _folder_digest(path, hashes) if path.is_dir() else hashes.sha256(path)
        hashes.save()
        return digest[:16]
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        remedy = "Check the path, its permissions and the disk"
        raise ParameterError(problem, remedy=remedy, file=error.filename or path, field=parameter) from None


def _folder_digest(folder: Path, hashes: _KnownHashes) -> str:
    digest = hashlib.sha256()
    for path in sorted(_files(folder)):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{hashes.sha256(path)}\n".encode())
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    """The files of a folder that can change a result."""
    for entry in os.scandir(folder):
        if entry.name.startswith(".") or entry.name in LEFT_OUT:
            continue
        if entry.is_dir():
            is_loop = entry.is_symlink() and folder.resolve().is_relative_to(Path(entry.path).resolve())
            yield from () if is_loop else _files(Path(entry.path))
        elif entry.is_file() and not entry.name.endswith(".md"):
            yield Path(entry.path)


class _KnownHashes:
    """Hashes of large files from earlier calls. Losing them costs time only, so every problem with them is ignored."""

    def __init__(self) -> None:
        self._file = paths.cache_dir() / "content-hashes.json"
        self._known: dict[str, str] = {}
        self._changed = False
        with suppress(OSError, ValueError):
            content = json.loads(self._file.read_text(encoding="utf-8"))
            self._known = {str(key): str(value) for key, value in content.items()}

    def sha256(self, path: Path) -> str:
        """The SHA-256 of a file."""
        status = path.stat()
        settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED_NS
        if status.st_size < LARGE_BYTES or not settled:
            return sha256_of(path)
        stamp = f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_dev}-{status.st_ino}"
        key = f"{path.resolve()} {stamp}"
        if key not in self._known:
            self._known[key], self._changed = sha256_of(path), True
        return self._known[key]

    def save(self) -> None:
        """Write new hashes to the cache folder."""
        if self._changed:
            with suppress(OSError):
                newest = dict(list(self._known.items())[-KEPT_HASHES:])
                write_atomic(self._file, json.dumps(newest))
