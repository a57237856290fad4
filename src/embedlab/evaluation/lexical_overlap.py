"""Measure the word overlap of queries and their answers: without overlap, a model that only matches words must fail."""

from __future__ import annotations

from embedlab.data.dataset import Dataset
from embedlab.data.languages import DEFAULT, detect_language, stop_words
from embedlab.data.text_analysis import words
from embedlab.evaluation.slices import UNKNOWN

FIELD = "shared words"
NONE, SOME, ALL = "none", "some", "all"


def shared_words(dataset: Dataset) -> dict[str, dict[str, str]]:
    """Return query id -> {"shared words": "none", "some" or "all"}, as `evaluation.slices` takes it.

    A query word counts as shared if it occurs in any positive. Case and the stop words of queries and documents are
    ignored. A query without other words shows nothing and is "(unknown)".

    Args:
        dataset: queries, corpus and qrels; its test queries are compared.
    """
    ignored, kinds = frozenset[str](), {}
    for texts in (dataset.corpus, dataset.split_queries("test")):
        ignored |= stop_words(detect_language(texts.values()) or DEFAULT)
    for query, positives in dataset.qrels["test"].items():
        query_words = set(words(dataset.queries[query])) - ignored
        answer_words = {word for document in positives for word in words(dataset.corpus.get(document, ""))}
        shared = ALL if query_words <= answer_words else SOME if query_words & answer_words else NONE
        kinds[query] = {FIELD: shared if query_words else UNKNOWN}
    return kinds
