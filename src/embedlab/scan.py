"""Look for what must not leave this machine in files: training texts, keys, and folders of the machine.

`redaction` removes keys and folders from what embedlab writes itself. This module looks at finished files of any
origin: a model folder before it is uploaded, records, notebooks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedlab.data import text_analysis
from embedlab.redaction import redacted, shareable

TEXT, KEY, FOLDER, UNKNOWN = "training text", "key", "folder of this machine", "file that was not looked into"
# An absolute path: not part of an address, of another path, or of a word. Without alternatives it stays fast on files
# with one long line.
_FOLDER = re.compile(rb"(?<![\w.:/~<-])/(?:home|root|tmp|work|Users|opt|mnt|scratch|var|usr/lib)/[\w.-]")
_PACKAGES = re.compile(rb"(?<![\w.~-])/[\w.~+/-]{0,200}?(?:site|dist)-packages")
_ABSOLUTE = re.compile(r"(?<![\w./~<-])~?/(?:[\w.+~ -]+/)*(?=[\w.+~-])")  # a path without the name at its end
TEXT_FILES = (
    *(".json", ".jsonl", ".md", ".txt", ".csv", ".tsv", ".yaml", ".yml", ".py", ".html", ".ipynb", ".cfg"),
    *(".xml", ".toml", ".ini", ".log", ".jinja", ""),
)
ARRAYS = ".npz"  # the weights of adapters
WEIGHTS = (".safetensors", ARRAYS, ".bin", ".onnx", ".data", ".model")  # binary files that a model may have
MIN_WORDS = 4  # shorter texts occur in vocabularies and in any prose
EXCERPT = 60  # characters of a text that a finding quotes
LONGEST_HEADER = 100 << 20  # bytes


@dataclass(frozen=True)
class ScanHit:
    """Something in a file that must not leave this machine.

    Attributes:
        file: path in the folder that was scanned.
        kind: `TEXT`, `KEY`, `FOLDER` or `UNKNOWN`.
        excerpt: the beginning of the text, or the folder; "" for a key.
    """

    file: str
    kind: str
    excerpt: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {self.kind}" + (f" ({self.excerpt})" if self.excerpt else "")


class Texts:
    """Texts that are looked for, whatever the punctuation, case and line breaks around their words.

    Args:
        texts: those with at least `MIN_WORDS` words are looked for.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._by_start: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
        for text in dict.fromkeys(texts):
            words = _words(text)
            if len(words) >= MIN_WORDS:
                self._by_start.setdefault(words[:MIN_WORDS], []).append(words)

    def __len__(self) -> int:
        return sum(map(len, self._by_start.values()))

    def first_in(self, content: str) -> str:
        """Return the first of the texts that a content quotes, as words; "" if there is none."""
        words = _words(content) if self._by_start else ()
        for start in range(len(words) - MIN_WORDS + 1):
            for text in self._by_start.get(words[start : start + MIN_WORDS], ()):
                if words[start : start + len(text)] == text:
                    return " ".join(text)
        return ""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text_analysis.words(text))


def scan_folder(folder: Path, texts: Iterable[str] = (), *, files: Iterable[Path] | None = None) -> list[ScanHit]:
    """Look into the files of a folder.

    Args:
        folder: for example a model folder or a run.
        texts: training texts to look for.
        files: only these files of the folder; all when not given.

    Returns:
        What was found, at most one finding of each kind per file.
    """
    searched = Texts(texts)
    listed = sorted(path for path in folder.rglob("*") if path.is_file()) if files is None else files
    return [finding for file in listed for finding in scan_file(file, folder, searched)]


def scan_file(file: Path, folder: Path, texts: Texts | None = None) -> Iterator[ScanHit]:
    """Look into one file.

    Args:
        file: a file of the folder.
        folder: findings name the file relative to it.
        texts: training texts to look for.

    Yields:
        At most one finding of each kind.
    """
    name = file.relative_to(folder).as_posix()
    if file.is_symlink() or not file.resolve().is_relative_to(folder.resolve()):
        yield ScanHit(name, UNKNOWN, "a link")
        return
    is_text, is_weights = file.suffix in TEXT_FILES, file.suffix in WEIGHTS
    texts_inside = _texts_inside(file)
    content = file.read_bytes() if texts_inside is None else texts_inside
    if machine_folders := folders_in(content):
        yield ScanHit(name, FOLDER, machine_folders[0].decode(errors="replace"))
    if not is_text and not is_weights:
        yield ScanHit(name, UNKNOWN, f"{file.suffix} is not a file of a model")
    if file.suffix == ARRAYS and texts_inside is None:
        yield ScanHit(name, UNKNOWN, "its arrays cannot be read, or hold something other than numbers and texts")
    is_noise = is_weights or (not is_text and b"\0" in content)  # a picture, for example
    if texts_inside is None and is_noise:
        return
    text = readable(content)
    if redacted(text) != text:
        yield ScanHit(name, KEY)
    elif not machine_folders and shareable(text) != text:
        yield ScanHit(name, FOLDER)
    if texts and (quoted := texts.first_in(text)):
        yield ScanHit(name, TEXT, quoted[:EXCERPT])


def folders_in(content: bytes) -> list[bytes]:
    """Return the beginnings of absolute paths of a machine in a file's content."""
    folders = _FOLDER.findall(content)
    return folders + (_PACKAGES.findall(content) if b"-packages" in content else [])


def readable(content: bytes) -> str:
    """Return a file's content as text; of JSON with its escapes resolved, so that no spelling hides a text."""
    text = content.decode("utf-8", errors="replace")
    if "\\" not in text:
        return text
    try:
        return "\n".join(_strings(json.loads(text)))
    except (ValueError, RecursionError):
        return text


def _strings(value: object) -> Iterator[str]:
    """Yield all texts of a JSON value, keys included."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    else:
        yield str(value)


def _texts_inside(file: Path) -> bytes | None:
    """Return the texts in a binary file of which we know where they are; None for any other file."""
    if file.suffix == ".safetensors":  # only its header has texts
        with open(file, "rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            return handle.read(min(length, LONGEST_HEADER))
    return _array_texts(file) if file.suffix == ARRAYS else None


def _array_texts(file: Path) -> bytes | None:
    """The names of the arrays in a file and their texts; None if it cannot be read, or holds more than numbers."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            texts = list(arrays)
            for array in arrays.values():
                if array.dtype.kind not in "biufUS":
                    return None
                texts += _elements(array)
    except Exception:  # a damaged file raises errors of zipfile, zlib, tokenize and NumPy
        return None
    return "\n".join(texts).replace("\0", " ").encode(errors="replace")


def _elements(array: np.ndarray) -> list[str]:
    """The texts of an array: its elements, or its bytes if these are a text."""
    if array.dtype.kind == "U":
        return [str(element) for element in array.flat]
    if array.dtype.kind == "S":
        return [bytes(element).decode(errors="replace") for element in array.flat]
    if array.dtype.itemsize == 1 and b"\0" not in (content := array.tobytes()):
        return [content.decode(errors="replace")]
    return []


def without_folders(text: str) -> str:
    """Return a text in which every absolute path is only the name at its end.

    >>> without_folders("pairs:/data/clinic/terms.csv?repair=true")
    'pairs:terms.csv?repair=true'
    """
    return _ABSOLUTE.sub("", text)
