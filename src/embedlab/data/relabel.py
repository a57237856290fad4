"""A dataset with more judgements, written in a format that `load_dataset` reads."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from embedlab.data import beir, textio
from embedlab.data.collection import Collection
from embedlab.data.dataset import SPLITS, Dataset, Qrels
from embedlab.data.formats import registry, table
from embedlab.data.formats.base import Example, Export, Format, Judged, Negative, check_new
from embedlab.data.formats.convert import default_format, not_held
from embedlab.data.load import Spec, parse_spec
from embedlab.errors import DataError

QUERY_NAMES = {"question": "query", "anchor": "query"}
COMPUTED_FIELDS = ("seen",)  # `load_dataset` adds these


def rejected_documents(spec: str, dataset: Dataset) -> dict[str, set[str]]:
    """Return the documents that are judged not relevant, which `Dataset.qrels` leaves out.

    Of a file of pairs and a BEIR folder, those are all documents of grade 0 and all hard negatives; of other sources,
    the negatives of the training triplets.

    Args:
        spec: what the dataset was loaded from.
        dataset: the dataset.

    Returns:
        Query id -> ids of documents in the corpus.
    """
    rejected: dict[str, set[str]] = {}
    for query, document in (*_of_source(parse_spec(spec)), *_of_triplets(dataset)):
        if document in dataset.corpus:
            rejected.setdefault(query, set()).add(document)
    return rejected


def _of_source(parsed: Spec) -> list[tuple[str, str]]:
    if parsed.scheme not in ("pairs", "beir"):
        return []
    path = textio.location_path(parsed.location)
    if registry.is_beir(path):
        folder = beir.Folder.read(path, repair=True)
        return [
            (query, document) for judged in folder.judged.values() for query, document, grade in judged if grade < 1
        ]
    _, contents = registry.read(path, parsed.options.get("format", ""))
    collection = Collection.from_rows(contents.rows, path, documents=contents.documents, repair=True)
    stated = [(negative.query, negative.triplet) for negative in collection.negatives]
    pairs = [*stated, *collection.judged_negatives()]
    return [(query, collection.documents[triplet.negative]) for query, triplet in pairs]


def _of_triplets(dataset: Dataset) -> list[tuple[str, str]]:
    """(query id, document id) of the triplets whose texts the dataset holds; of equal texts, the first."""
    queries, documents = _first_ids(dataset.queries), _first_ids(dataset.corpus)
    pairs = ((queries.get(triplet.query), documents.get(triplet.negative)) for triplet in dataset.triplets)
    return [(query, document) for query, document in pairs if query is not None and document is not None]


def _first_ids(texts: Mapping[str, str]) -> dict[str, str]:
    """Text -> the first id that has it."""
    ids: dict[str, str] = {}
    for key, text in texts.items():
        ids.setdefault(text, key)
    return ids


def with_queries(dataset: Dataset, path: Path, split: str) -> Dataset:
    """Add queries that nobody has judged to a split. Queries that the dataset has already are left out.

    Args:
        dataset: the dataset.
        path: a table with the column `query` and perhaps `query_id`; without it, the ids are n1, n2, … by row.
        split: the split that gets the queries, without judgements.

    Raises:
        DataError: a row has no query, or its id is one of the dataset (names file, line and column); or the split is
            unknown.
    """
    if split not in SPLITS:
        raise DataError(f"unknown split '{split}'", remedy=f"Use one of {', '.join(SPLITS)}.", field="--split")
    known, added = set(dataset.queries.values()), dict[str, str]()
    for number, row in enumerate(textio.read_rows(path), start=1):
        row = textio.rename_columns(row, QUERY_NAMES, path)
        text = textio.text_of(row, "query", path)
        key = f"n{number}" if textio.is_empty(row.values.get("query_id")) else textio.id_of(row, "query_id", path)
        if text in known:
            continue
        if key in dataset.queries or key in dataset.corpus or key in added:
            problem = f"the id '{key}' is taken by another query or document"
            raise textio.error_at(row, "query_id", path, problem, "Give the query another id in the column 'query_id'.")
        known.add(text)
        added[key] = text
    qrels = {**dataset.qrels, split: {**dataset.qrels.get(split, {}), **{key: {} for key in added}}}
    return replace(dataset, queries={**dataset.queries, **added}, qrels=qrels)


def with_grades(dataset: Dataset, grades: Qrels, rejected: Mapping[str, set[str]]) -> Export:
    """Return the dataset with more judgements, for a writer; the splits stay as they are.

    A new grade replaces an earlier one. A query without a positive is left out.

    Args:
        dataset: the dataset.
        grades: query id -> {document id: grade}; 0 means not relevant.
        rejected: from `rejected_documents`.
    """
    examples = []
    for split, qrels in dataset.qrels.items():
        for query, earlier in qrels.items():
            judged = {**dict.fromkeys(sorted(rejected.get(query, ())), 0), **earlier, **grades.get(query, {})}
            fields = {key: text for key, text in dataset.fields.get(query, {}).items() if key not in COMPUTED_FIELDS}
            texts = [(document, dataset.corpus.get(document, ""), grade) for document, grade in judged.items()]
            example = Example(
                id=query,
                query=dataset.queries[query],
                positives=tuple(Judged(*row) for row in texts if row[2] > 0),
                negatives=tuple(Negative(document, text) for document, text, grade in texts if grade < 1),
                split=split,
                group=dataset.groups.get(query, ""),
                fields=fields,
            )
            examples.append(example)
    return Export(tuple(example for example in examples if example.positives), dataset.corpus)


def write_dataset(dataset: Dataset, export: Export, target: Path) -> list[str]:
    """Write a dataset as a file of pairs, or as a BEIR folder if the path has no suffix.

    Args:
        dataset: the dataset before its judgements were added.
        export: from `with_grades`.
        target: a new file or folder.

    Returns:
        What the format cannot hold, in a few words each.

    Raises:
        DataError: the target exists, its suffix is unknown, or it needs the text of a document that has none.
    """
    check_new(target)
    writer = default_format(target)
    if writer is table.PAIRS and any(not positive.text for e in export.examples for positive in e.positives):
        remedy = "Write a BEIR folder: choose a name without a suffix."
        raise DataError("some documents that are judged relevant are not in the corpus", remedy=remedy, file=target)
    lost = not_held(replace(export, examples=tuple(replace(e, group="") for e in export.examples)), writer)
    lost += _not_exported(dataset, export, writer)
    target.absolute().parent.mkdir(parents=True, exist_ok=True)
    # A folder gets its name when all its files are there: without the last one, it would be read with another test set.
    with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=".label-") as scratch:
        complete = Path(scratch) / target.name
        lost += writer.write(export, complete)
        complete.rename(target)
    return lost


def _not_exported(dataset: Dataset, export: Export, writer: Format) -> list[str]:
    """What a dataset has and an export or its format has not. Groups only make splits, and these are written."""
    written = {(e.query, negative.text) for e in export.examples for negative in e.negatives}
    unwritten = sum((triplet.query, triplet.negative) not in written for triplet in dataset.triplets)
    ignored = writer is not table.PAIRS and bool(dataset.triplets)
    parts = {
        "metadata of documents": any(key in dataset.corpus and key not in dataset.queries for key in dataset.fields),
        "labels": bool(dataset.labels),
        "related documents": bool(dataset.related),
        f"{len(dataset.graded_pairs):,} graded pairs": bool(dataset.graded_pairs),
        f"{unwritten:,} hard negatives of other texts": bool(unwritten),
        "hard negatives for training, which BEIR folders hold as grade 0 and training does not read": ignored,
    }
    return [part for part, is_lost in parts.items() if is_lost]
