"""The dataset type that every loader returns."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

Qrels = Mapping[str, Mapping[str, int]]  # query id -> {document id: grade >= 1}

SPLITS = ("train", "dev", "test")
SPLIT_ALIASES = {"val": "dev", "valid": "dev", "validation": "dev"}


class Triplet(NamedTuple):
    """Three texts: a query, a document that answers it, and a similar document that does not (a hard negative)."""

    query: str
    positive: str
    negative: str


class GradedPair(NamedTuple):
    """Two texts and their similarity, from 0 to 1."""

    text1: str
    text2: str
    score: float


def split_name(name: str) -> str:
    """Return the name that this package uses for a split: `dev` for `validation`, others unchanged."""
    return SPLIT_ALIASES.get(name, name)


def own_documents(qrels: Qrels, corpus: Container[str]) -> frozenset[str]:
    """Ids of the queries with a document of the same id in `corpus` that is not judged relevant to them."""
    return frozenset(query for query, grades in qrels.items() if query in corpus and grades.get(query, 0) <= 0)


@dataclass(frozen=True)
class Dataset:
    """Queries, documents and relevance judgements, with fixed splits.

    Attributes:
        name: the spec string it was loaded from, e.g. `icd10cm:small`.
        corpus: document id -> text.
        queries: query id -> text, of all splits.
        qrels: split -> query id -> {document id: grade}; grades are integers >= 1. Of dev and test, a document may be
            missing from the corpus: then it counts as not found.
        triplets: training triplets with hard negatives.
        groups: query id -> group; all queries of a group are in the same split.
        labels: label name -> {document or query id: class}, e.g. chapters.
        graded_pairs: training pairs with a similarity from 0 to 1.
        related: document id -> documents that are too similar to be its hard negatives, for example its ancestors and
            descendants in a code tree.
        fields: query or document id -> metadata for slices and filters.
        split_by: "document" if a relevant document may occur in one split only, "query" if only queries are held out.
        codes: query or document id -> the codes of what it names, in a scheme that other datasets use too, such as
            ICD-10. What has the same code in another dataset means the same.
        leaks: training examples that were dropped when the data was loaded, because they reveal held-out queries: kind
            -> number.
        headings: document id -> titles of what the document is a part of, the widest first, such as chapter, block and
            category. They belong to the documents and contain nothing from queries.
    """

    name: str
    corpus: Mapping[str, str]
    queries: Mapping[str, str]
    qrels: Mapping[str, Qrels]
    triplets: tuple[Triplet, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    graded_pairs: tuple[GradedPair, ...] = ()
    related: Mapping[str, frozenset[str]] = field(default_factory=dict)
    fields: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    split_by: str = "document"
    codes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    leaks: Mapping[str, int] = field(default_factory=dict)
    headings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __repr__(self) -> str:
        """One short line: a notebook cell may end with a dataset."""
        counts = ", ".join(f"{split} {len(judged)}" for split, judged in self.qrels.items())
        return f"Dataset({self.name!r}, {len(self.corpus)} documents, queries: {counts})"

    def split_queries(self, split: str) -> dict[str, str]:
        """Query id -> text of the queries in `split`, in the order of the qrels."""
        return {query_id: self.queries[query_id] for query_id in self.qrels.get(split, {})}

    def own_documents(self, split: str) -> frozenset[str]:
        """Ids of the queries in `split` with a document of the same id that is not judged relevant to them.

        Searches leave that document out, as BEIR and mteb (`ignore_identical_ids`) do: the query would find itself. It
        is not a negative in training either.
        """
        return own_documents(self.qrels.get(split, {}), self.corpus)

    def pairs(self, split: str) -> list[tuple[str, str]]:
        """(query id, document id) of every positive in `split` that is in the corpus, in the order of the qrels."""
        return [(q, d) for q, grades in self.qrels.get(split, {}).items() for d in grades if d in self.corpus]


def split_fingerprint(dataset: Dataset, split: str) -> str:
    """Hash everything that a score of a split depends on: its queries, their judgements and the whole corpus.

    The order does not count, and neither do the other splits.

    Args:
        dataset: queries, corpus and qrels.
        split: whose queries.

    Returns:
        16 hex digits.
    """
    judged = dataset.qrels.get(split, {})
    lines = [f"document {document!r} {text!r}" for document, text in dataset.corpus.items()]
    lines += [
        f"query {query!r} {dataset.queries[query]!r} {sorted(grades.items())}" for query, grades in judged.items()
    ]
    digest = hashlib.sha256()
    for line in sorted(lines):
        digest.update(f"{line}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]
