"""What training must not have seen: find it, name it, take it out.

Held-out queries are compared by normal form and by word sets. A held-out query may equal a document of the corpus,
which every retriever sees, as long as nothing trains on that document.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from embedlab.data.dataset import Dataset
from embedlab.data.overlap import near_duplicates, normalise
from embedlab.data.splits import restrict
from embedlab.errors import LeakageError

IDENTICAL, NEAR_IDENTICAL = "identical query", "near-identical query"
TRAINING_TEXT, SHARED_DOCUMENT, SHARED_GROUP = "held-out query as training text", "shared document", "shared group"
KINDS = (IDENTICAL, NEAR_IDENTICAL, TRAINING_TEXT, SHARED_DOCUMENT, SHARED_GROUP)

logger = logging.getLogger(__name__)


class Place(NamedTuple):
    """Where a training example lives: `part` is train, dev, triplets or graded_pairs; `key` a query id or an index."""

    part: str
    key: str | int


class Leak(NamedTuple):
    """One example that gives a held-out query away, and the held-out text it gives away."""

    kind: str
    place: Place
    text: str
    held_out: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.place.part} {self.place.key} '{self.text[:80]}' ~ held out '{self.held_out[:80]}'"


@dataclass(frozen=True)
class LeakageReport:
    """Every leaking example once, under the first of `KINDS` that applies."""

    leaks: tuple[Leak, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.leaks

    @cached_property
    def counts(self) -> dict[str, int]:
        """Kind -> number of leaking examples; kinds that do not occur are 0."""
        found = Counter(leak.kind for leak in self.leaks)
        return {kind: found[kind] for kind in KINDS}

    def examples(self, kind: str, count: int = 3) -> list[Leak]:
        """The first `count` leaks of a kind."""
        return [leak for leak in self.leaks if leak.kind == kind][:count]

    def __str__(self) -> str:
        if self.clean:
            return "no leaks"
        found = ", ".join(f"{count} {kind}" for kind, count in self.counts.items() if count)
        return f"{len(self.leaks)} leaking examples ({found}), e.g. {self.leaks[0]}"


class _Example(NamedTuple):
    """One thing to train or select on, as texts in normal form except `query`, which stays as it is."""

    query: str | None
    positives: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    group: str | None = None


def check(dataset: Dataset) -> LeakageReport:
    """Look for training examples that touch dev or test, and for dev queries that touch test."""
    training = {**_queries(dataset, "train"), **_triplets(dataset), **_graded_pairs(dataset)}
    leaks = list(_leaks(dataset, training, ("dev", "test")))
    leaks += _leaks(dataset, _queries(dataset, "dev"), ("test",))
    return LeakageReport(tuple(leaks))


def repair(dataset: Dataset) -> tuple[Dataset, LeakageReport]:
    """Drop every leaking example, from train before dev and never from test.

    Returns:
        The clean dataset and the report of what was dropped.
    """
    report = check(dataset)
    gone = {leak.place for leak in report.leaks}
    drop = {split: {str(place.key) for place in gone if place.part == split} for split in ("train", "dev")}
    triplets = (t for i, t in enumerate(dataset.triplets) if Place("triplets", i) not in gone)
    graded_pairs = (p for i, p in enumerate(dataset.graded_pairs) if Place("graded_pairs", i) not in gone)
    return restrict(dataset, drop, triplets=triplets, graded_pairs=graded_pairs), report


def guard(dataset: Dataset, *, mend: bool, file: str | None = None) -> Dataset:
    """`dataset` when it is clean; repaired and logged with `mend`.

    Raises:
        LeakageError: it leaks and `mend` is off.
    """
    mended, report = repair(dataset)
    if report.clean:
        return dataset
    if mend:
        logger.info("%s: dropped %s", dataset.name, report)
        return mended
    raise LeakageError(
        str(report),
        remedy="Split again without them, or let the loader drop the training side: load_dataset(..., repair=True), "
        f"as a spec '{dataset.name}{'&' if '?' in dataset.name else '?'}repair=true'.",
        file=file,
    )


def _leaks(dataset: Dataset, examples: Mapping[Place, _Example], held_out: tuple[str, ...]) -> Iterator[Leak]:
    """At most one leak per example. Dev is not trained on, so its documents may read like a test query."""
    queries = {q: text for split in held_out for q, text in dataset.split_queries(split).items()}
    query_texts = {normalise(text): text for text in queries.values()}
    document_texts = _relevant_texts(dataset, held_out) if dataset.split_by == "document" else {}
    groups = {dataset.groups[q]: text for q, text in queries.items() if q in dataset.groups}
    with_query = {place: example.query for place, example in examples.items() if example.query is not None}
    near = {place: queries[q] for place, q in near_duplicates(with_query, queries)}
    for place, example in examples.items():
        trained = () if place.part == "dev" else example.positives + example.others
        matches = {
            IDENTICAL: query_texts.get(normalise(example.query)) if example.query is not None else None,
            NEAR_IDENTICAL: near.get(place),
            TRAINING_TEXT: _first(query_texts, trained),
            SHARED_DOCUMENT: _first(document_texts, example.positives),
            SHARED_GROUP: groups.get(example.group) if example.group is not None else None,
        }
        for kind, match in matches.items():
            if match is not None:
                yield Leak(kind, place, example.query or example.positives[0], match)
                break


def _first(held_out: Mapping[str, str], texts: Iterable[str]) -> str | None:
    return next((held_out[text] for text in texts if text in held_out), None)


def _relevant_texts(dataset: Dataset, splits: Iterable[str]) -> dict[str, str]:
    relevant = {document for split in splits for _, document in dataset.pairs(split)}
    return {normalise(dataset.corpus[document]): dataset.corpus[document] for document in sorted(relevant)}


def _queries(dataset: Dataset, split: str) -> dict[Place, _Example]:
    texts = {document: normalise(dataset.corpus[document]) for _, document in dataset.pairs(split)}
    return {
        Place(split, query): _Example(
            dataset.queries[query], tuple(texts[d] for d in grades), group=dataset.groups.get(query)
        )
        for query, grades in dataset.qrels.get(split, {}).items()
    }


def _triplets(dataset: Dataset) -> dict[Place, _Example]:
    return {
        Place("triplets", i): _Example(t.query, (normalise(t.positive),), (normalise(t.negative),))
        for i, t in enumerate(dataset.triplets)
    }


def _graded_pairs(dataset: Dataset) -> dict[Place, _Example]:
    return {
        Place("graded_pairs", i): _Example(None, (normalise(p.text1), normalise(p.text2)))
        for i, p in enumerate(dataset.graded_pairs)
    }
