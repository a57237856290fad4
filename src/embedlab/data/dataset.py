"""The one shape every data source is brought into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

Qrels = Mapping[str, Mapping[str, int]]  # query id -> {document id: grade >= 1}

SPLITS = ("train", "dev", "test")


class Triplet(NamedTuple):
    """An expert's judgement as texts: `positive` answers `query`, `negative` looks alike and does not."""

    query: str
    positive: str
    negative: str


class GradedPair(NamedTuple):
    """Two texts and how alike they are, between 0 and 1."""

    text1: str
    text2: str
    score: float


@dataclass(frozen=True)
class Dataset:
    """Queries, documents and who answers whom, with the splits fixed.

    Attributes:
        name: the spec string it was loaded from, e.g. `icd10cm:small`.
        corpus: document id -> text.
        queries: query id -> text, over all splits.
        qrels: split -> query id -> {document id: grade}; grades are integers >= 1.
        triplets: expert triplets for training only.
        groups: query id -> the group that must not cross splits.
        labels: label name -> {document or query id: class}, e.g. chapters.
        graded_pairs: text pairs with a similarity in [0, 1].
        related: document id -> documents too close to serve as its hard negatives
            (ancestors and descendants in a code tree, for instance).
        fields: query or document id -> free metadata for slices and filters.
        split_by: "document" when no relevant document may be shared by two splits,
            "query" when only the queries are held out.
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

    def split_queries(self, split: str) -> dict[str, str]:
        """Query id -> text of the queries judged in `split`, in qrels order."""
        return {query_id: self.queries[query_id] for query_id in self.qrels.get(split, {})}

    def pairs(self, split: str) -> list[tuple[str, str]]:
        """(query id, document id) of every positive in `split`, in qrels order."""
        return [(q, d) for q, grades in self.qrels.get(split, {}).items() for d in grades]
