"""BEIR folders: corpus.jsonl, queries.jsonl and qrels/{train,dev,test}.tsv.

The format of Thakur et al., "BEIR" (NeurIPS 2021 Datasets and Benchmarks). Every file may be gzipped.
"""

from __future__ import annotations

from pathlib import Path

from embedlab.data import textio
from embedlab.data.dataset import SPLITS, Dataset, Qrels
from embedlab.data.splits import complete_splits
from embedlab.data.textio import Row
from embedlab.errors import DataError

COLUMNS = ("query-id", "corpus-id", "score")
RESERVED = ("_id", "title", "text", "metadata")


def load(location: str, *, name: str, split_by: str = "document") -> Dataset:
    """Read a BEIR folder as a dataset.

    A document's text is its title followed by its text. A judgement of grade 0 or less means "not relevant"; queries
    without a relevant document are left out. Other fields of the JSON lines become `fields`. If a query and a document
    have the same id, their fields are merged.

    Args:
        location: the folder. Missing splits are made from the existing ones, by groups.
        name: the dataset's name.
        split_by: see `Dataset`.

    Raises:
        DataError: a file is missing or malformed; names file, line and field.
    """
    folder = _folder(location)
    corpus, document_fields = read_texts(folder / "corpus.jsonl", titled=True)
    queries, query_fields = read_texts(folder / "queries.jsonl")
    judged = {split: _qrels(path, queries, corpus) for split, path in _qrels_files(folder).items()}
    if not any(judged.values()):
        remedy = "Set the score of relevant pairs to 1 or more."
        raise DataError("no relevant pair: every score is 0 or less", remedy=remedy, file=folder / "qrels")
    qrels, groups = complete_splits(judged, queries, corpus, split_by=split_by)
    relevant = {query: queries[query] for judgements in qrels.values() for query in judgements}
    fields = {**document_fields, **{q: {**document_fields.get(q, {}), **query_fields.get(q, {})} for q in relevant}}
    return Dataset(
        name=name,
        corpus=corpus,
        queries=relevant,
        qrels=qrels,
        groups=groups,
        fields={key: values for key, values in fields.items() if values},
        split_by=split_by,
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
    folder = Path(location).expanduser()
    if folder.is_dir():
        return folder
    remedy = "Pass a folder that contains corpus.jsonl, queries.jsonl and qrels/."
    raise DataError("this folder does not exist", remedy=remedy, file=folder)


def _qrels_files(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for split in SPLITS:
        for path in (folder / "qrels" / f"{split}.tsv", folder / "qrels" / f"{split}.tsv.gz"):
            if path.is_file():
                files.setdefault(split, path)
    if files:
        return files
    remedy = "Add at least one of train.tsv, dev.tsv and test.tsv."
    raise DataError("this folder contains no judgements", remedy=remedy, file=folder / "qrels")


def read_texts(path: Path, *, titled: bool = False) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Read a `corpus.jsonl` or `queries.jsonl`.

    Args:
        path: a JSONL file whose lines have `_id` and `text`.
        titled: put the line's `title`, if it has one, in front of the text.

    Returns:
        Id -> text, and id -> metadata.

    Raises:
        DataError: a line is malformed or an id occurs twice.
    """
    texts: dict[str, str] = {}
    fields: dict[str, dict[str, str]] = {}
    for row in textio.read_rows(path):
        key = textio.id_of(row, "_id", path)
        if key in texts:
            problem, remedy = f"the id '{key}' occurs twice", "Give every line a different id."
            raise DataError(problem, remedy=remedy, file=path, line=row.line, field="_id")
        title = textio.text_of(row, "title", path) if titled and row.values.get("title") else ""
        # A title without a text is enough; if both are empty, the error names `text`.
        text = textio.text_of(row, "text", path) if row.values.get("text") or not title else ""
        texts[key] = f"{title} {text}".strip()
        if metadata := textio.metadata_of(row, RESERVED):
            fields[key] = metadata
    return texts, fields


def _qrels(path: Path, queries: dict[str, str], corpus: dict[str, str]) -> Qrels:
    grades: dict[tuple[str, str], int] = {}
    texts = {"query-id": queries, "corpus-id": corpus}
    for row in textio.read_rows(path):
        query, document = (_existing_id(row, field, ids, path) for field, ids in texts.items())
        if (query, document) in grades:
            problem, remedy = f"query '{query}' and document '{document}' are judged twice", "Keep one of the rows."
            raise DataError(problem, remedy=remedy, file=path, line=row.line)
        grades[query, document] = _grade(row, path)
    qrels: dict[str, dict[str, int]] = {}
    for (query, document), grade in grades.items():
        if grade > 0:
            qrels.setdefault(query, {})[document] = grade
    return qrels


def _existing_id(row: Row, field: str, texts: dict[str, str], path: Path) -> str:
    key = textio.text_of(row, field, path)
    if key in texts:
        return key
    file = "queries.jsonl" if field == "query-id" else "corpus.jsonl"
    problem, remedy = f"'{key}' is not in {file}", f"Add it to {file} or remove this row."
    raise DataError(problem, remedy=remedy, file=path, line=row.line, field=field)


def _grade(row: Row, path: Path) -> int:
    text = textio.text_of(row, "score", path)
    try:
        return int(text)
    except ValueError as error:
        problem, remedy = f"score must be an integer, got '{text}'", "Write 0 for not relevant, 1 or more for relevant."
        raise DataError(problem, remedy=remedy, file=path, line=row.line, field="score") from error
