"""BEIR folders: corpus.jsonl, queries.jsonl and qrels/{train,dev,test}.tsv.

The format of Thakur et al., "BEIR" (NeurIPS 2021 Datasets and Benchmarks). Every file may be gzipped. Judgements may
have the columns of TREC instead, `query 0 document grade`, or no header.
"""

from __future__ import annotations

import itertools
import logging
import unicodedata
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from embedlab.data import splits, textio
from embedlab.data.dataset import SPLIT_ALIASES, SPLITS, Dataset, Qrels, split_name
from embedlab.data.formats import trec
from embedlab.data.splits import complete_splits
from embedlab.data.textio import Row
from embedlab.errors import DataError

COLUMNS = ("query-id", "corpus-id", "score")
ALIASES = {"query_id": "query-id", "corpus_id": "corpus-id"}
RESERVED = ("_id", "title", "text", "metadata")
MAX_GRADE = 1_000
QRELS_SUFFIXES = (".tsv", ".qrels", ".trec", ".txt")
NAMED = 5  # files that an error names
UNKNOWN = "Add it to {file}, remove this row, or load with ?repair=true."  # what helps if an id is unknown
MORE_QUERIES = (
    f"{splits.MORE_QUERIES} With qrels/train.tsv, qrels/dev.tsv and qrels/test.tsv you choose the splits yourself."
)
USUAL_GRADE = 10  # above it, the grades are probably percentages

logger = logging.getLogger(__name__)


def load(location: str, *, name: str, split_by: str = "document", repair: bool = False, divide: bool = True) -> Dataset:
    """Read a BEIR folder as a dataset.

    A document's text is its title followed by its text. Documents and queries without a text are left out with a
    warning, unless they are judged. A judgement of grade 0 or less means "not relevant"; queries without a relevant
    document are left out. Other fields of the JSON lines become `fields`. If a query and a document have the same id,
    their fields are merged.

    Args:
        location: the folder. Missing splits are made from the existing ones, by groups.
        name: the dataset's name.
        split_by: see `Dataset`.
        divide: see `complete_splits`.
        repair: accept judgements that name an unknown document or one without a text. They count as not found in dev
            and test, as in trec_eval, and are left out of train. Judgements of unknown queries are left out.

    Raises:
        DataError: a file is missing or malformed; names file, line and field.
    """
    path = _folder(location)
    folder = Folder.read(path, repair=repair)
    corpus, queries = folder.corpus, folder.queries
    judged = {split: _positives(rows, queries.texts) for split, rows in folder.judged.items()}
    if not any(judged.values()):
        remedy = "Set the score of relevant pairs to 1 or more."
        raise DataError("no relevant pair: every score is 0 or less", remedy=remedy, file=path / "qrels")
    if not any(_found(qrels, corpus.texts) for qrels in judged.values()):
        remedy = "Write the ids of corpus.jsonl in the column corpus-id, letter by letter."
        problem = "no relevant document is in corpus.jsonl with a text"
        raise DataError(problem, remedy=remedy, file=path / "qrels", field="corpus-id")
    _warn_of_unanswered(folder, judged)
    with textio.naming(path):
        qrels, groups = complete_splits(
            judged, queries.texts, corpus.texts, split_by=split_by, divide=divide, remedy=MORE_QUERIES
        )
    qrels = {**qrels, "train": _found(qrels["train"], corpus.texts)}
    relevant = {query: queries.texts[query] for judgements in qrels.values() for query in judgements}
    fields = {
        **corpus.fields,
        **{q: {**corpus.fields.get(q, {}), **queries.fields.get(q, {})} for q in relevant},
    }
    return Dataset(
        name=name,
        corpus=corpus.texts,
        queries=relevant,
        qrels=qrels,
        groups={query: group for query, group in groups.items() if query in relevant},
        fields={key: values for key, values in fields.items() if values},
        split_by=split_by,
    )


def _warn_of_unanswered(folder: Folder, positives: Mapping[str, Qrels]) -> None:
    """Count the queries whose judgements are all 0 or less."""
    answered = {query for judgements in positives.values() for query in judgements}
    names = dict.fromkeys(row.query for rows in folder.judged.values() for row in rows if row.query not in answered)
    if names:
        files = next(iter(folder.files.values())).parent
        logger.warning(
            "%s: left out %d queries without a relevant document, for example '%s'",
            files,
            len(names),
            next(iter(names)),
        )


def source_fingerprint(location: str) -> str:
    """Hash the files of a BEIR folder.

    Args:
        location: the folder.

    Returns:
        16 hex digits that change when the corpus, the queries or the qrels change.
    """
    folder = _folder(location)
    files = [textio.find_file(folder / "corpus.jsonl"), textio.find_file(folder / "queries.jsonl")]
    return textio.fingerprint([*files, *_qrels_files(folder).values()])


def _folder(location: str) -> Path:
    folder = textio.location_path(location)
    if textio.path_exists(folder) and folder.is_dir():
        return folder
    if textio.path_exists(folder):
        raise DataError("this is a file", remedy=f"Write pairs:{location}, or name its folder.", file=folder)
    remedy = "Pass a folder that contains corpus.jsonl, queries.jsonl and qrels/."
    if not folder.is_absolute():
        remedy += f" It was searched at {folder.absolute()}."
    raise DataError("this folder does not exist", remedy=remedy, file=folder)


def _qrels_files(folder: Path) -> dict[str, Path]:
    """Split -> file, in the order of `SPLITS`."""
    files: dict[str, Path] = {}
    for name, suffix in itertools.product((*SPLITS, *SPLIT_ALIASES), QRELS_SUFFIXES):
        split = split_name(name)
        plain, gzipped = folder / "qrels" / f"{name}{suffix}", folder / "qrels" / f"{name}{suffix}.gz"
        if not plain.is_file() and not gzipped.is_file():
            continue
        path = plain if plain.is_file() else gzipped
        if split in files:
            problem, remedy = f"{files[split].name} and {path.name} are both the {split} split", "Remove one of them."
            raise DataError(problem, remedy=remedy, file=folder / "qrels")
        files[split] = path
    if files:
        return files
    remedy = "Add at least one of train.tsv, dev.tsv and test.tsv."
    file_names = sorted(path.name for path in (folder / "qrels").glob("*"))[:NAMED]
    remedy += f" There are other files: {', '.join(file_names)}." if file_names else ""
    raise DataError("this folder contains no judgements", remedy=remedy, file=folder / "qrels")


def _warn_of_other_files(folder: Path, files: Mapping[str, Path]) -> None:
    read = {path.name.removesuffix(".gz") for path in files.values()}
    visible = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    if unread := sorted(name for name in visible if name.removesuffix(".gz") not in read):
        names = ", ".join(f"{split}.tsv" for split in SPLITS)
        logger.warning("%s: these files are not read: %s. The names of splits are %s", folder, ", ".join(unread), names)


@dataclass(frozen=True)
class Texts:
    """The contents of a `corpus.jsonl` or `queries.jsonl`.

    Attributes:
        path: the file.
        texts: id -> text, without the empty ones.
        fields: id -> metadata.
        empty: id -> line of a record whose text is empty.
    """

    path: Path
    texts: dict[str, str] = field(default_factory=dict)
    fields: dict[str, dict[str, str]] = field(default_factory=dict)
    empty: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, *, titled: bool = False) -> Texts:
        """Read a file.

        Args:
            path: a JSONL file whose lines have `_id` and `text`.
            titled: put the line's `title`, if it has one, in front of the text.

        Raises:
            DataError: a line is malformed or an id occurs twice.
        """
        rows = textio.read_rows(path)
        textio.report_unused(rows, RESERVED, path)
        texts = cls(path)
        for row in rows:
            texts._add(row, titled)
        if not texts.texts:
            raise texts.error(*next(iter(texts.empty.items())))
        return texts

    def _add(self, row: Row, titled: bool) -> None:
        key = textio.id_of(row, "_id", self.path)
        if key in self.texts or key in self.empty:
            problem, remedy = f"the id '{key}' occurs twice", "Give every line a different id."
            raise DataError(problem, remedy=remedy, file=self.path, line=row.line, field="_id")
        has_title = titled and not textio.is_empty(row.values.get("title"))
        title = textio.text_of(row, "title", self.path) if has_title else ""
        if "text" in row.values and textio.is_empty(row.values["text"]) and not title:
            self.empty[key] = row.line
            return
        # A title without a text is enough.
        has_text = not title or not textio.is_empty(row.values.get("text"))
        text = textio.text_of(row, "text", self.path) if has_text else ""
        self.texts[key] = f"{title} {text}".strip()
        if metadata := textio.metadata_of(row, RESERVED):
            self.fields[key] = metadata

    def report(self) -> None:
        """Warn of records without a text."""
        if self.empty:
            line = next(iter(self.empty.values()))
            logger.warning("%s: left out %d records without a text, first in line %d", self.path, len(self.empty), line)

    def error(self, key: str, line: int, reason: str = "") -> DataError:
        """Return the error for a record that needs a text.

        Args:
            key: its id.
            line: its line.
            reason: why it needs one.
        """
        problem, remedy = f"'text' of '{key}' is empty{reason}", "Fill it in or remove the record and its judgements."
        return DataError(problem, remedy=remedy, file=self.path, line=line, field="text")


def read_texts(path: Path, *, titled: bool = False) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Read a `corpus.jsonl` or `queries.jsonl`; records without a text are left out with a warning.

    Args:
        path, titled: see `Texts.read`.

    Returns:
        Id -> text, and id -> metadata.

    Raises:
        DataError: a line is malformed or an id occurs twice.
    """
    texts = Texts.read(path, titled=titled)
    texts.report()
    return texts.texts, texts.fields


def _positives(judgements: Iterable[Judgement], queries: Container[str]) -> Qrels:
    qrels: dict[str, dict[str, int]] = {}
    for query, document, grade in judgements:
        if grade > 0 and query in queries:
            qrels.setdefault(query, {})[document] = grade
    return qrels


def _found(qrels: Qrels, corpus: Mapping[str, str]) -> Qrels:
    """The judgements of documents that exist, of queries that have one."""
    judged = {query: {d: grade for d, grade in grades.items() if d in corpus} for query, grades in qrels.items()}
    return {query: grades for query, grades in judged.items() if grades}


class Judgement(NamedTuple):
    """A judgement; a grade of 0 or less means "not relevant"."""

    query: str
    document: str
    grade: int


@dataclass(frozen=True)
class Folder:
    """The contents of a BEIR folder as they are, before missing splits are made.

    Attributes:
        corpus, queries: the texts.
        files: split -> file of its judgements.
        judged: split -> judgements, also those of unknown documents if the folder was read with `repair`.
    """

    corpus: Texts
    queries: Texts
    files: dict[str, Path]
    judged: dict[str, list[Judgement]]

    @classmethod
    def read(cls, path: Path, *, repair: bool = False, unknown: str = UNKNOWN) -> Folder:
        """Read a folder.

        Args:
            path: the folder.
            repair: see `load`.
            unknown: what helps if an id is unknown, with the placeholder {file}.

        Raises:
            DataError: a file is missing or malformed.
        """
        corpus, queries = Texts.read(path / "corpus.jsonl", titled=True), Texts.read(path / "queries.jsonl")
        files = _qrels_files(path)
        _warn_of_other_files(path / "qrels", files)
        reader = _QrelsReader(queries, corpus, repair, unknown)
        judged = {split: reader.read(file) for split, file in files.items()}
        reader.report(path / "qrels")
        queries.report()
        corpus.report()
        return cls(corpus, queries, files, judged)


@dataclass
class _QrelsReader:
    """Reads judgements and counts those of unknown ids."""

    queries: Texts
    corpus: Texts
    repair: bool
    unknown: str
    unknown_queries: int = 0
    unknown_documents: int = 0
    highest: int = 0

    def read(self, path: Path) -> list[Judgement]:
        """The judgements of a file, each once."""
        grades: dict[tuple[str, str], int] = {}
        for row in self._rows(path):
            grade = _grade(row, path)
            self.highest = max(self.highest, grade)
            key = self._known(row, "query-id", path, grade), self._known(row, "corpus-id", path, grade)
            if grades.setdefault(key, grade) != grade:
                problem = f"query '{key[0]}' and document '{key[1]}' are judged twice, with different scores"
                raise DataError(problem, remedy="Keep one of the rows.", file=path, line=row.line, field="score")
        return [Judgement(query, document, grade) for (query, document), grade in grades.items()]

    def report(self, folder: Path) -> None:
        """Warn of what was accepted."""
        if self.unknown_documents:
            message = "%s: judgements of documents that are missing or empty: %d. They count as not found"
            logger.warning(message, folder, self.unknown_documents)
        if self.unknown_queries:
            message = "%s: left out judgements of queries that are missing or empty: %d"
            logger.warning(message, folder, self.unknown_queries)
        if self.highest > USUAL_GRADE:
            message = "%s: the scores go up to %d. Every score of 1 or more means relevant"
            logger.warning(message, folder, self.highest)

    def _rows(self, path: Path) -> list[Row]:
        if trec.kind_of(path) == "qrels":
            return trec.read(path).rows
        if textio.format_of(path) != ".tsv":
            remedy = "Write 'query 0 document grade' on each line, or name the file *.tsv."
            raise DataError("these are not TREC judgements", remedy=remedy, file=path, line=1)
        rows = [textio.rename_columns(row, ALIASES, path) for row in textio.read_rows(path, columns=COLUMNS)]
        if missing := [column for column in COLUMNS if column not in rows[0].values]:
            header = ", ".join(map(repr, textio.read_rows(path)[0].values))
            problem = f"line 1 must be the header, with the columns {', '.join(COLUMNS)}; it is {header}"
            remedy = "Add the header and separate the cells by tabs."
            raise DataError(problem, remedy=remedy, file=path, line=1, field=missing[0])
        return rows

    def _known(self, row: Row, column: str, path: Path, grade: int) -> str:
        """An id that is in the corpus or the queries. Only relevant documents need a text."""
        texts = self.queries if column == "query-id" else self.corpus
        key = textio.text_of(row, column, path)
        if key in texts.texts or (key in texts.empty and grade <= 0):
            return key
        if self.repair:
            self.unknown_queries += column == "query-id"
            self.unknown_documents += column == "corpus-id"
            return key
        if key in texts.empty:
            raise texts.error(key, texts.empty[key], f", but {path.name}:{row.line} judges it relevant")
        file = texts.path.name
        hint = _hint(key, texts.texts)
        problem, remedy = f"'{key}' is not in {file}", self.unknown.format(file=file)
        raise DataError(problem, remedy=remedy + hint, file=path, line=row.line, field=column)


def _hint(key: str, texts: Mapping[str, str]) -> str:
    """Name the id that is meant, if it differs only in how it is written."""
    integer = key.removesuffix(".0")
    if integer in texts:
        return f" There is '{integer}': write ids as whole numbers."
    if key.isdecimal() and (padded := [name for name in texts if name.isdecimal() and int(name) == int(key)]):
        return f" There is '{padded[0]}': a spreadsheet program may have removed zeros. Write ids as texts."
    plain = _plain(key)
    similar = next((name for name in texts if _plain(name) == plain), None)
    return "" if similar is None else f" There is {ascii(similar)}, and this is {ascii(key)}: write both the same way."


def _plain(key: str) -> str:
    """An id without differences that are hard to see: case, outer spaces and the Unicode normal form."""
    return unicodedata.normalize("NFKC", key).strip().casefold()


def _grade(row: Row, path: Path) -> int:
    text = textio.text_of(row, "score", path)
    number = textio.number_of(text)
    if number is not None and number.is_integer() and number <= MAX_GRADE:
        return int(number)
    problem = f"score must be an integer, {MAX_GRADE:,} or less, got '{text}'"
    remedy = textio.number_remedy(text, "Write 0 for not relevant, 1 or more for relevant.")
    raise DataError(problem, remedy=remedy, file=path, line=row.line, field="score")
