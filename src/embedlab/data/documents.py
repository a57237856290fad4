"""`docs:FOLDER` or `docs:FILE`: documents without queries, split into chunks that remember where they come from.

Read are txt, Markdown, HTML, PDF, and tables (JSONL, CSV, Parquet, …) with one document per record.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from pathlib import Path

from embedlab.data import document_files, textio
from embedlab.data.chunks import Chunking
from embedlab.data.dataset import SPLITS, Dataset
from embedlab.errors import DataError

CHUNK = "160+20 sentences"  # words; most sentence models read 256 word pieces

logger = logging.getLogger(__name__)


def load(location: str, *, name: str, chunk: str = CHUNK, column: str = "") -> Dataset:
    """Read documents as a corpus without queries.

    A chunk has the fields `source` (the file), `place` (page, line or record), `title` and `chunk` ("2 of 5"). Chunks
    with a text that occurred before are left out.

    Args:
        location: a folder or a file.
        name: the dataset's name.
        chunk: size, overlap and unit of the chunks, see `Chunking.parse`; "0" keeps every text whole.
        column: of tables, the column with the texts, see `document_files.read`.

    Raises:
        DataError: there is no readable document, or one is damaged; names the file.
        ParameterError: `chunk` has another form.
    """
    folder = textio.location_path(location)
    chunking = None if chunk == "0" else Chunking.parse(chunk.replace("+sentences", " sentences"))
    corpus: dict[str, str] = {}
    fields: dict[str, dict[str, str]] = {}
    counts: Counter[str] = Counter()
    seen: set[str] = set()
    for path in _readable(folder):
        source = _name(path, folder)
        number = 0
        for text in document_files.read(path, column):
            counts["texts"] += 1
            counts["empty"] += textio.is_empty(text.text)
            pieces = [] if textio.is_empty(text.text) else chunking.split(text.text) if chunking else [text.text]
            for position, piece in enumerate(pieces, start=1):
                number += 1
                if piece in seen:
                    counts["repeated"] += 1
                    continue
                seen.add(piece)
                key = f"{source}#{number}"
                corpus[key] = _with_title(text.title, piece)
                fields[key] = _provenance(source, text, position, len(pieces))
    _report(folder, counts, len(corpus))
    return Dataset(name, corpus, {}, {split: {} for split in SPLITS}, fields=fields)


def source_fingerprint(location: str) -> str:
    """Hash the names and the contents of the files.

    Args:
        location: the folder or file.

    Returns:
        16 hex digits.
    """
    folder = textio.location_path(location)
    files = list(_readable(folder))
    names = "\n".join(_name(path, folder) for path in files)
    digest = hashlib.sha256(f"{textio.fingerprint(files)}\n{names}".encode())
    return digest.hexdigest()[: textio.FINGERPRINT_LENGTH]


def _readable(folder: Path) -> list[Path]:
    """The files of known formats; the others are named in a warning."""
    files, unread_folders = document_files.files_of(folder)
    readable = [path for path in files if textio.format_of(path) in document_files.READERS]
    formats = ", ".join(document_files.READERS)
    if not readable:
        raise DataError("there is no document to read", remedy=f"Readable are {formats}.", file=folder)
    if suffixes := Counter(path.suffix.lower() or path.name for path in set(files) - set(readable)):
        unread = ", ".join(f"{count} {suffix}" for suffix, count in sorted(suffixes.items()))
        logger.warning("%s: these files are not read: %s", folder, unread)
    if unread_folders:
        names = ", ".join(_name(path, folder) for path in unread_folders)
        logger.warning("%s: links to folders are not followed, and these are not read: %s", folder, names)
    return readable


def _name(path: Path, folder: Path) -> str:
    """A file's path inside the folder; what is not UTF-8 in it is written as \\xff."""
    name = path.relative_to(folder).as_posix() if folder.is_dir() else path.name
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _with_title(title: str, text: str) -> str:
    """The text, after its title unless it begins with that."""
    begin = text.lstrip("# ").lower()
    return text if not title or begin.startswith(title.lower()) else f"{title}\n{text}"


def _provenance(source: str, text: document_files.Text, position: int, count: int) -> dict[str, str]:
    values = {"source": source, "place": text.location, "title": text.title, "chunk": f"{position} of {count}"}
    return {name: value for name, value in values.items() if value}


def _report(folder: Path, counts: Counter[str], chunks: int) -> None:
    if not chunks:
        remedy = "Add texts. Scanned pages hold images only: recognise their text (OCR) first."
        raise DataError("no file has a text", remedy=remedy, file=folder)
    logger.warning("%s: read %s texts as %s chunks", folder, f"{counts['texts']:,}", f"{chunks:,}")
    if counts["empty"]:
        logger.warning("%s: left out %d empty texts. Scanned pages need OCR first", folder, counts["empty"])
    if counts["repeated"]:
        logger.warning("%s: left out %d chunks that repeat another", folder, counts["repeated"])
