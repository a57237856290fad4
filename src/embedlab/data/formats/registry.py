"""All formats, and the choice of one by the content of a file."""

from __future__ import annotations

import difflib
import logging
from dataclasses import replace
from pathlib import Path

from embedlab.data import textio
from embedlab.data.collection import Collection
from embedlab.data.formats import (
    argilla,
    beir_folder,
    flag_embedding,
    label_studio,
    llama_index,
    ms_swift,
    msmarco,
    nemo,
    saved_dataset,
    table,
    tevatron,
    trec,
)
from embedlab.data.formats.base import Contents, Format, Source
from embedlab.data.splits import MORE_QUERIES
from embedlab.errors import DataError

# The first that matches is taken, so the plainest comes last.
FORMATS: tuple[Format, ...] = (
    saved_dataset.FORMAT,
    beir_folder.TREC,
    beir_folder.FORMAT,
    llama_index.FORMAT,
    msmarco.FORMAT,
    nemo.FORMAT,
    tevatron.FORMAT,
    flag_embedding.FORMAT,
    ms_swift.FORMAT,
    argilla.FORMAT,
    label_studio.FORMAT,
    table.SENTENCE_PAIRS,
    table.PAIRS,
)
BY_NAME = {format_.name: format_ for format_ in FORMATS}
FOLDERS = (saved_dataset.FORMAT.name, beir_folder.TREC.name, beir_folder.FORMAT.name)

logger = logging.getLogger(__name__)


def is_beir(path: Path) -> bool:
    """Whether a path is a BEIR folder."""
    return textio.path_exists(path) and beir_folder.is_beir(path)


def named(name: str, field: str = "format") -> Format:
    """Return the format of a name.

    Raises:
        DataError: there is none; suggests the closest.
    """
    if name in BY_NAME:
        return BY_NAME[name]
    close = difflib.get_close_matches(name.lower(), BY_NAME, n=1)
    remedy = f"Did you mean '{close[0]}'?" if close else f"Use one of {', '.join(BY_NAME)}."
    raise DataError(f"unknown format '{name}'", remedy=remedy, field=field)


def detect(source: Source) -> Format:
    """Return the format of a file or folder, by its content.

    Raises:
        DataError: it does not exist, or it has none of the formats.
    """
    path = source.path
    if not path.is_dir():
        file = textio.find_file(path)
        if source.suffix in trec.SUFFIXES and source.suffix != ".txt":
            trec.read(file)  # raises if it is neither judgements nor a run
        if source.suffix in trec.SUFFIXES and trec.kind_of(file):
            remedy = "Save it as FOLDER/qrels/test.qrels, with corpus.jsonl and queries.jsonl, and write beir:FOLDER."
            raise DataError("a TREC file has ids, and no texts", remedy=remedy, file=path)
    for format_ in FORMATS:
        if format_.matches(source):
            return format_
    if path.is_dir():
        textio.find_file(path)  # raises: this is a folder
    remedy = f"Write a list of objects, or one of the formats {', '.join(BY_NAME)}."
    raise DataError("the format of this file is unknown", remedy=remedy, file=path)


def read(path: Path, name: str = "") -> tuple[Format, Contents]:
    """Read a file or folder.

    Args:
        path: the file or folder.
        name: the format; empty for the one that the content shows.

    Raises:
        DataError: it is missing or malformed; names file, line and field.
    """
    source = Source(path)
    format_ = named(name) if name else None
    is_folder = textio.path_exists(path) and path.is_dir()
    if not is_folder:
        textio.find_file(path)
    if format_ is not None and is_folder != (format_.name in FOLDERS):
        problem = f"{format_.title} is a {'file' if is_folder else 'folder'}, and this is not"
        raise DataError(problem, remedy="Name another path or another format.", file=path)
    format_ = format_ or detect(source)
    contents = format_.read(source)
    rows = [row._replace(names=format_.names) for row in contents.rows] if format_.names else contents.rows
    return format_, replace(contents, rows=rows)


def collect(path: Path, name: str = "", *, repair: bool = False) -> Collection:
    """Read a file or folder, and say in one line what it was read as, unless it is a plain table.

    Args:
        path, name: as for `read`.
        repair: see `Collection`.

    Raises:
        DataError: as for `read`, or its records contradict each other.
    """
    format_, contents = read(path, name)
    is_table = format_ is table.PAIRS
    collection = Collection.from_rows(
        contents.rows,
        path,
        documents=contents.documents,
        repair=repair,
        more_queries=table.MORE_QUERIES if is_table else MORE_QUERIES,
    )
    if not is_table:
        logger.warning("%s: %s", path, description(format_, contents, collection))
    return collection


def description(format_: Format, contents: Contents, collection: Collection) -> str:
    """Say what a file was read as: "read as FlagEmbedding: 3,120 queries, 1.4 positives each"."""
    if collection.graded_pairs:
        sizes = [f"{len(collection.graded_pairs):,} pairs with a similarity"]
    else:
        judged = [grades for section in collection.qrels.values() for grades in section.values()]
        negatives = len(collection.negatives) + len(collection.judged_negatives())
        sizes = [f"{len(judged):,} queries, {sum(map(len, judged)) / len(judged):.1f} positives each"]
        sizes += [f"{negatives / len(judged):.1f} hard negatives each"] if negatives else []
        sizes += [f"{len(collection.documents):,} documents"]
    return f"read as {format_.title}: {', '.join([*sizes, *contents.notes])}"


def files_of(path: Path) -> list[Path]:
    """Return every file that a location consists of, for its fingerprint.

    Raises:
        DataError: it does not exist.
    """
    if not textio.path_exists(path) or not path.is_dir():
        file = textio.find_file(path)
        return [file, *_corpus_files(Source(path))]
    return sorted(file for file in path.rglob("*") if file.is_file())


def _corpus_files(source: Source) -> list[Path]:
    """The tables that a NeMo file names."""
    if source.suffix != ".json" or not nemo.is_wrapped(source):
        return []
    return nemo.files_of_corpus(source)
