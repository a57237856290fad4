"""Metadata filters: search only documents with the right value, which is known for the query or predicted."""

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
    """Look up a metadata field in the dataset's fields and labels: document or query id -> value.

    Raises:
        ParameterError: no document has the field.
    """
    metadata = {key: values[field] for key, values in dataset.fields.items() if field in values}
    values = {**metadata, **dataset.labels.get(field, {})}
    if not any(document in values for document in dataset.corpus):
        names = {name for document in dataset.corpus for name in dataset.fields.get(document, {})} | {*dataset.labels}
        remedy = f"Fields of the documents: {', '.join(sorted(names)) or 'none'}"
        raise ParameterError(f"no document has the field {field!r}", remedy=remedy, field="filter_field")
    return values


def document_label(dataset: Dataset) -> str:
    """Return the first label with different values, e.g. `chapter`; empty if there is none."""
    for name, label in dataset.labels.items():
        if len({label[document] for document in dataset.corpus if document in label}) > 1:
            return name
    return ""


def guess_values(train: Vectors, answers: Mapping[str, Sequence[str]], queries: Vectors, k: int) -> list[list[str]]:
    """Predict the metadata value of every query from the answers of its k nearest training queries.

    Each neighbour votes for the values of its answers, weighted by its cosine similarity (at least 0). Equal votes are
    sorted by value.

    Args:
        train: the training queries; its corpus is not used.
        answers: training query id -> the values of its positives.
        queries: the queries to predict for.
        k: neighbours.

    Returns:
        Per query the values, most likely first.
    """
    neighbours = Vectors(queries.query_ids, train.query_ids, queries.queries, train.queries).rank(k)
    guesses = []
    for nearest in neighbours.as_candidates().values():
        votes: dict[str, float] = defaultdict(float)
        for neighbour, similarity in nearest:
            for value in answers.get(neighbour, ()):
                votes[value] += max(similarity, 0.0)
        guesses.append(sorted(votes, key=lambda value: (-votes[value], value)))
    return guesses


def rank_among(vectors: Vectors, allowed: Sequence[frozenset[str]], values: Values, k: int) -> Ranking:
    """Search exactly among the documents with an allowed value; documents without a value are always included.

    Args:
        vectors: queries and corpus.
        allowed: one set of values per query; an empty set allows every document.
        values: document id -> value.
        k: documents per query; fewer if fewer are allowed.
    """
    depth = min(k, len(vectors.corpus_ids))
    indices = np.full((len(allowed), depth), ABSENT, dtype=np.int64)
    scores = np.full((len(allowed), depth), -np.inf, dtype=np.float32)
    value_of = np.array([values.get(document) for document in vectors.corpus_ids], dtype=object)
    rows_of: dict[frozenset[str], list[int]] = defaultdict(list)
    for row, query_values in enumerate(allowed):
        rows_of[query_values].append(row)
    for query_values, rows in rows_of.items():
        documents = np.flatnonzero([not query_values or value is None or value in query_values for value in value_of])
        if len(documents):
            ranking = _subset(vectors, rows, documents).rank(depth)
            indices[rows, : ranking.depth] = np.where(ranking.indices == ABSENT, ABSENT, documents[ranking.indices])
            scores[rows, : ranking.depth] = ranking.scores
    return Ranking(vectors.query_ids, vectors.corpus_ids, indices, scores)


def _subset(vectors: Vectors, rows: Sequence[int], documents: np.ndarray) -> Vectors:
    return Vectors(
        tuple(vectors.query_ids[row] for row in rows),
        tuple(vectors.corpus_ids[document] for document in documents),
        vectors.queries[rows],
        vectors.corpus[documents],
        vectors.own_documents,
    )
