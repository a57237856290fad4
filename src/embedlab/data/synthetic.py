"""Synthetic queries: the round-trip filter, and their use as training data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from embedlab.data.dataset import Dataset
from embedlab.data.text_analysis import normalise

# A search engine: takes query id -> text and returns query id -> [(document id, score), …], best first.
Search = Callable[[Mapping[str, str]], Mapping[str, Sequence[tuple[str, float]]]]


class SyntheticQuery(NamedTuple):
    """A query generated from a document: its text, the document's id, and the rule or model that made it."""

    text: str
    document: str
    kind: str


def round_trip(
    queries: Sequence[SyntheticQuery], corpus: Mapping[str, str], search: Search
) -> tuple[list[SyntheticQuery], list[SyntheticQuery]]:
    """Keep the queries for which a search engine finds their source document.

    Round-trip consistency filter (Alberti et al., ACL 2019): a query that does not retrieve its source document is
    about something else, or too vague. A document with the same text as the source counts as the source.

    Args:
        queries: synthetic queries.
        corpus: document id -> text, of the documents that are searched.
        search: a search engine, called once with all queries. The source document must be among its results, so let it
            return about ten.

    Returns:
        The consistent queries and the dropped queries, both in the order of `queries`.
    """
    results = search({str(number): query.text for number, query in enumerate(queries)})
    consistent: list[SyntheticQuery] = []
    dropped: list[SyntheticQuery] = []
    for number, query in enumerate(queries):
        texts = {normalise(corpus[document]) for document, _ in results.get(str(number), ())}
        (consistent if normalise(corpus[query.document]) in texts else dropped).append(query)
    return consistent, dropped


def as_training(dataset: Dataset, queries: Iterable[SyntheticQuery]) -> Dataset:
    """Replace the training queries of a dataset by synthetic ones. Dev and test stay; triplets are removed.

    A text that was generated for several documents is one query with several positives. The field `kind` of a query
    says how it was made.

    Args:
        dataset: the dataset.
        queries: synthetic queries for documents of its corpus.
    """
    ids: dict[str, str] = {}
    judged: dict[str, dict[str, int]] = {}
    fields = dict(dataset.fields)
    for query in queries:
        key = ids.setdefault(query.text, f"synthetic{len(ids)}")
        judged[key] = {**judged.get(key, {}), query.document: 1}
        fields.setdefault(key, {"kind": query.kind})
    real = dataset.qrels.get("train", {})
    held_out = {query: text for query, text in dataset.queries.items() if query not in real}
    return replace(
        dataset,
        queries=held_out | {key: text for text, key in ids.items()},
        qrels={**dataset.qrels, "train": judged},
        triplets=(),
        groups={query: group for query, group in dataset.groups.items() if query in held_out},
        fields=fields,
    )
