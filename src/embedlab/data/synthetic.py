"""Synthetic queries as training data: kept when they find their own document, guarded like any other training data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from embedlab.data.dataset import Dataset, Qrels
from embedlab.data.overlap import normalise

# Query id -> text, to query id -> [(document id, score), …], best first.
Search = Callable[[Mapping[str, str]], Mapping[str, Sequence[tuple[str, float]]]]


class SyntheticQuery(NamedTuple):
    """A query made from a document: its text, the document's id, and how it was made."""

    text: str
    document: str
    kind: str


def round_trip(
    queries: Sequence[SyntheticQuery], corpus: Mapping[str, str], search: Search, *, k: int = 10
) -> tuple[list[SyntheticQuery], list[SyntheticQuery]]:
    """Queries that find their own document again, and the others.

    Consistency filter of Alberti et al. (ACL 2019): a query that does not bring its source back asks for something
    else or for nothing in particular. A document with the source's text counts as the source.

    Args:
        queries: synthetic queries.
        corpus: document id -> text of what is searched.
        search: a search engine; asked once, with all queries.
        k: ranks among which the document must be.

    Returns:
        Kept and dropped, each in the order given.
    """
    found = search({str(number): query.text for number, query in enumerate(queries)})
    kept, dropped = [], []
    for number, query in enumerate(queries):
        texts = {normalise(corpus[document]) for document, _ in list(found.get(str(number), ()))[:k]}
        (kept if normalise(corpus[query.document]) in texts else dropped).append(query)
    return kept, dropped


def as_training(dataset: Dataset, queries: Iterable[SyntheticQuery]) -> Dataset:
    """`dataset` with `queries` as its training queries and no triplets; dev and test stay.

    The same text for several documents is one query with several positives. Field `kind` says how a query was made.
    """
    ids: dict[str, str] = {}
    judged: Qrels = {}
    fields = dict(dataset.fields)
    for query in queries:
        key = ids.setdefault(query.text, f"synthetic{len(ids)}")
        judged[key] = {**judged.get(key, {}), query.document: 1}
        fields.setdefault(key, {"kind": query.kind})
    real = dataset.qrels.get("train", {})
    kept = {query: text for query, text in dataset.queries.items() if query not in real}
    return replace(
        dataset,
        queries=kept | {key: text for text, key in ids.items()},
        qrels={**dataset.qrels, "train": judged},
        triplets=(),
        groups={query: group for query, group in dataset.groups.items() if query in kept},
        fields=fields,
    )
