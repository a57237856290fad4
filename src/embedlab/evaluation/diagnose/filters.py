"""Search only among the documents that carry the right metadata, known with the query or guessed from training data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from embedlab.data.dataset import Dataset
from embedlab.errors import ParameterError
from embedlab.search.exact import ABSENT, Ranking
from embedlab.search.vectors import Vectors

Values = Mapping[str, str]  # document or query id -> value of one metadata field


def field_values(dataset: Dataset, field: str) -> Values:
    """Id -> value of `field`, out of the dataset's labels and free metadata.

    Raises:
        ParameterError: no document has the field.
    """
    free = {key: values[field] for key, values in dataset.fields.items() if field in values}
    values = {**free, **dataset.labels.get(field, {})}
    if not any(document in values for document in dataset.corpus):
        known = {name for document in dataset.corpus for name in dataset.fields.get(document, {})} | {*dataset.labels}
        remedy = f"Fields of the documents: {', '.join(sorted(known)) or 'none'}"
        raise ParameterError(f"no document has the field {field!r}", remedy=remedy, field="filter_field")
    return values


def document_label(dataset: Dataset) -> str:
    """The first label that tells documents apart, e.g. `chapter`; empty where there is none."""
    for name, label in dataset.labels.items():
        if len({label[document] for document in dataset.corpus if document in label}) > 1:
            return name
    return ""


def guess_values(train: Vectors, answers: Mapping[str, Sequence[str]], queries: Vectors, k: int) -> list[list[str]]:
    """The values that the k nearest training queries' answers have, likeliest first, for every query.

    A neighbour votes with its cosine similarity for every value among its answers, never with less than 0. Equal votes
    are ordered by value.

    Args:
        train: the training queries; its corpus is not used.
        answers: training query id -> the values of its positives.
        queries: the queries to guess for.
        k: neighbours.
    """
    neighbours = Vectors(queries.query_ids, train.query_ids, queries.queries, train.queries).rank(k)
    guesses = []
    for found in neighbours.as_candidates().values():
        votes: dict[str, float] = defaultdict(float)
        for neighbour, similarity in found:
            for value in answers.get(neighbour, ()):
                votes[value] += max(similarity, 0.0)
        guesses.append(sorted(votes, key=lambda value: (-votes[value], value)))
    return guesses


def rank_among(vectors: Vectors, allowed: Sequence[frozenset[str]], values: Values, k: int) -> Ranking:
    """Exact search among the documents whose value is allowed; those without a value always stay in.

    Args:
        vectors: queries and corpus.
        allowed: one set of values per query; an empty one lets every document pass.
        values: document id -> value.
        k: documents per query; fewer are found where fewer pass.
    """
    depth = min(k, len(vectors.corpus_ids))
    indices = np.full((len(allowed), depth), ABSENT, dtype=np.int64)
    scores = np.full((len(allowed), depth), -np.inf, dtype=np.float32)
    value_of = np.array([values.get(document) for document in vectors.corpus_ids], dtype=object)
    rows_of: dict[frozenset[str], list[int]] = defaultdict(list)
    for row, wanted in enumerate(allowed):
        rows_of[wanted].append(row)
    for wanted, rows in rows_of.items():
        places = np.flatnonzero([not wanted or value is None or value in wanted for value in value_of])
        if len(places):
            found = _subset(vectors, rows, places).rank(depth)
            indices[rows, : found.depth] = places[found.indices]
            scores[rows, : found.depth] = found.scores
    return Ranking(vectors.query_ids, vectors.corpus_ids, indices, scores)


def _subset(vectors: Vectors, rows: Sequence[int], places: np.ndarray) -> Vectors:
    return Vectors(
        tuple(vectors.query_ids[row] for row in rows),
        tuple(vectors.corpus_ids[place] for place in places),
        vectors.queries[rows],
        vectors.corpus[places],
    )
