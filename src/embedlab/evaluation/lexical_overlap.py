"""Measure the word overlap of queries and their answers: without overlap, a model that only matches words must fail."""

from __future__ import annotations

from embedlab.data.dataset import Dataset
from embedlab.data.text_analysis import words

FIELD = "shared words"
NONE, SOME, ALL = "none", "some", "all"


def shared_words(dataset: Dataset) -> dict[str, dict[str, str]]:
    """Return query id -> {"shared words": "none", "some" or "all"}, as `evaluation.slices` takes it.

    A query word counts as shared if it occurs in any positive. Stop words and case are ignored.

    Args:
        dataset: queries, corpus and qrels; its test queries are compared.
    """
    from bm25s.stopwords import STOPWORDS_EN

    ignored = frozenset(STOPWORDS_EN)
    kinds = {}
    for query, positives in dataset.qrels["test"].items():
        query_words = set(words(dataset.queries[query])) - ignored
        answer_words = {word for document in positives for word in words(dataset.corpus.get(document, ""))}
        kinds[query] = {FIELD: ALL if query_words <= answer_words else SOME if query_words & answer_words else NONE}
    return kinds
