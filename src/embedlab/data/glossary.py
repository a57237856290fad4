"""`glossary:FILE`: training pairs and hard negatives from a glossary, thesaurus or ontology.

A synonym or abbreviation is a query, and so is a definition; the preferred term answers it. Parents and siblings of a
term are similar and wrong: hard negatives.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from embedlab.data import glossary_files, textio
from embedlab.data.collection import Collection
from embedlab.data.dataset import Dataset
from embedlab.data.glossary_files import Term
from embedlab.data.splits import seeded_order
from embedlab.data.text_analysis import normalise
from embedlab.data.textio import Row
from embedlab.errors import DataError

NEGATIVES = 2  # hard negatives per pair: one parent, and siblings

logger = logging.getLogger(__name__)


def load(location: str, *, name: str, split_by: str = "document", divide: bool = True, language: str = "") -> Dataset:
    """Read a glossary as a dataset: its terms are the corpus, synonyms and definitions the queries.

    Queries have the field `kind`: "synonym" or "definition". A term and all its queries stay in one split.

    Args:
        location: the file or the installed ontology, see `glossary_files.path_of` and `glossary_files.read`.
        name: the dataset's name.
        split_by: see `Dataset`.
        divide: see `complete_splits`.
        language: of the labels in SKOS.

    Raises:
        DataError: the file is malformed, or no term has a synonym or a definition.
    """
    path = glossary_files.path_of(location)
    return collect(path, language).dataset(name, split_by=split_by, divide=divide)


def collect(path: Path, language: str = "") -> Collection:
    """Read a glossary as queries and documents, before any split is made.

    Args:
        path, language: see `glossary_files.read`.

    Raises:
        DataError: see `load`.
    """
    terms = glossary_files.read(path, language)
    rows = pair_rows(terms)
    if not rows:
        problem = "no term has a synonym or a definition"
        raise DataError(problem, remedy="Add the columns synonyms or definition.", file=path)
    kinds = {kind: sum(row.values["kind"] == kind for row in rows) for kind in ("synonym", "definition")}
    logger.warning("%s: %d terms, %d synonyms, %d definitions", path, len(terms), *kinds.values())
    names = {term.id: term.name for term in terms}
    return Collection.from_rows(rows, path, documents=names, more_queries="Add terms with synonyms or definitions.")


def source_fingerprint(location: str) -> str:
    """Hash the file.

    Args:
        location: as for `load`.

    Returns:
        16 hex digits.
    """
    return textio.fingerprint([textio.find_file(glossary_files.path_of(location))])


def pair_rows(terms: Sequence[Term], negatives: int = NEGATIVES) -> list[Row]:
    """Return one record per synonym and definition, with the columns of `pairs`.

    A synonym of several terms has all of them as positives. A query whose normal form is that of its term is left out.

    Args:
        terms: the glossary.
        negatives: maximum number of hard negatives per record.
    """
    wrong = wrong_terms(terms)
    answers: dict[str, dict[str, None]] = defaultdict(dict)  # normal form of a query -> names that answer it
    for term, _, text in _queries(terms):
        answers[normalise(text)][term.name] = None
    rows = []
    for number, (term, kind, text) in enumerate(_queries(terms), start=1):
        right = {normalise(name) for name in (*answers[normalise(text)], text)}
        hard = [name for name in wrong[term.id] if normalise(name) not in right][:negatives]
        values = {"query": text, "positive": {"docid": term.id, "text": term.name}, "negatives": hard, "kind": kind}
        rows.append(Row(term.line or number, {**values, "group": term.id}))
    return _one_group_per_query(rows)


def _queries(terms: Iterable[Term]) -> Iterable[tuple[Term, str, str]]:
    """Term, kind and text of every query."""
    for term in terms:
        texts = [("synonym", text) for text in dict.fromkeys(term.synonyms)]
        texts += [("definition", term.definition)] if term.definition else []
        yield from ((term, kind, text) for kind, text in texts if normalise(text) != normalise(term.name))


def _one_group_per_query(rows: list[Row]) -> list[Row]:
    """Give a query of several terms one group; shared documents keep the terms together."""
    first: dict[str, str] = {}
    return [
        row._replace(values={**row.values, "group": first.setdefault(row.values["query"], row.values["group"])})
        for row in rows
    ]


def wrong_terms(terms: Sequence[Term]) -> dict[str, list[str]]:
    """Return term id -> names of similar terms that are not the term: its first parent, then its siblings.

    Siblings share a parent; they come in an order that depends on their ids only.

    >>> disease = Term("d", "disease")
    >>> flu, cold = Term("f", "influenza", parents=["d"]), Term("c", "common cold", parents=["d"])
    >>> " and ".join(wrong_terms([disease, flu, cold])["f"])
    'disease and common cold'
    """
    names = {term.id: term.name for term in terms}
    children: dict[str, list[str]] = defaultdict(list)
    for term in terms:
        for parent in term.parents:
            children[parent].append(term.id)
    similar = {}
    for term in terms:
        siblings = {sibling for parent in term.parents for sibling in children[parent]} - {term.id, *term.parents}
        similar[term.id] = [names[key] for key in (*term.parents[:1], *seeded_order(siblings))]
    return similar
