"""BEIR folders: corpus.jsonl, queries.jsonl and qrels/{train,dev,test}.tsv.

The format of Thakur et al., "BEIR" (NeurIPS 2021 Datasets and Benchmarks). Every file may be gzipped.
"""

from __future__ import annotations

from pathlib import Path

from embedlab.data import textio
from embedlab.data.dataset import SPLITS, Dataset, Qrels
from embedlab.data.splits import complete
from embedlab.data.textio import Row
from embedlab.errors import DataError

COLUMNS = ("query-id", "corpus-id", "score")
RESERVED = ("_id", "title", "text", "metadata")


def load(location: str, *, name: str, split_by: str = "document") -> Dataset:
    """The folder as a dataset; splits it lacks are cut from those it has, by groups.

    A document reads as its title and text. Judgements of grade 0 or less say "not relevant" and are no positives;
    queries without a positive are left out. Further fields of the JSON lines become `fields`; should a query
    and a document have the same id, their fields are merged.

    Raises:
        DataError: with file, line and field of whatever is malformed.
    """
    folder = _folder(location)
    corpus, document_fields = read_texts(folder / "corpus.jsonl", titled=True)
    queries, query_fields = read_texts(folder / "queries.jsonl")
    judged = {split: _qrels(path, queries, corpus) for split, path in _qrels_files(folder).items()}
    if not any(judged.values()):
        raise DataError("no positives: no score is 1 or more", remedy="Judge some pairs as relevant.", file=folder)
    qrels, groups = complete(judged, queries, corpus, split_by=split_by)
    relevant = {query: queries[query] for part in qrels.values() for query in part}
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
    """Hash of the corpus, the queries and the qrels."""
    folder = _folder(location)
    files = [textio.existing(folder / "corpus.jsonl"), textio.existing(folder / "queries.jsonl")]
    return textio.fingerprint([*files, *_qrels_files(folder).values()])


def _folder(location: str) -> Path:
    folder = Path(location).expanduser()
    if folder.is_dir():
        return folder
    remedy = "Name a folder with corpus.jsonl, queries.jsonl and qrels/."
    raise DataError("there is no such folder", remedy=remedy, file=folder)


def _qrels_files(folder: Path) -> dict[str, Path]:
    files = {}
    for split in SPLITS:
        for path in (folder / "qrels" / f"{split}.tsv", folder / "qrels" / f"{split}.tsv.gz"):
            if path.is_file():
                files.setdefault(split, path)
    if files:
        return files
    raise DataError("no judgements", remedy="Add at least one of train.tsv, dev.tsv, test.tsv.", file=folder / "qrels")


def read_texts(path: Path, *, titled: bool = False) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Id -> text and id -> metadata, from the `_id`, `text` and, if `titled`, `title` of every line."""
    texts: dict[str, str] = {}
    fields: dict[str, dict[str, str]] = {}
    for row in textio.read_rows(path):
        key = textio.id_of(row, "_id", path)
        if key in texts:
            problem, remedy = f"'{key}' is there twice", "Give every line an id of its own."
            raise DataError(problem, remedy=remedy, file=path, line=row.line, field="_id")
        title = textio.text_of(row, "title", path) if titled and row.values.get("title") else ""
        # A title may stand alone, but an empty line is a fault of the text.
        text = textio.text_of(row, "text", path) if row.values.get("text") or not title else ""
        texts[key] = f"{title} {text}".strip()
        if metadata := textio.metadata_of(row, RESERVED):
            fields[key] = metadata
    return texts, fields


def _qrels(path: Path, queries: dict[str, str], corpus: dict[str, str]) -> Qrels:
    grades: dict[tuple[str, str], int] = {}
    known = {"query-id": queries, "corpus-id": corpus}
    for row in textio.read_rows(path):
        query, document = (_known_id(row, field, ids, path) for field, ids in known.items())
        if (query, document) in grades:
            problem, remedy = f"query '{query}' and document '{document}' are judged twice", "Keep one judgement."
            raise DataError(problem, remedy=remedy, file=path, line=row.line)
        grades[query, document] = _grade(row, path)
    qrels: dict[str, dict[str, int]] = {}
    for (query, document), grade in grades.items():
        if grade > 0:
            qrels.setdefault(query, {})[document] = grade
    return qrels


def _known_id(row: Row, field: str, known: dict[str, str], path: Path) -> str:
    key = textio.text_of(row, field, path)
    if key in known:
        return key
    where = "queries.jsonl" if field == "query-id" else "corpus.jsonl"
    problem, remedy = f"'{key}' is not in {where}", "Add it there or remove the judgement."
    raise DataError(problem, remedy=remedy, file=path, line=row.line, field=field)


def _grade(row: Row, path: Path) -> int:
    text = textio.text_of(row, "score", path)
    try:
        return int(text)
    except ValueError as error:
        problem, remedy = f"the grade '{text}' is not an integer", "Write 0 for not relevant, 1 or more for relevant."
        raise DataError(problem, remedy=remedy, file=path, line=row.line, field="score") from error
