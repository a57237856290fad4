"""How much a query and its answer have in common word for word: where a model that only looks up words must fail."""

from __future__ import annotations

from embedlab.data.dataset import Dataset
from embedlab.data.overlap import words

FIELD = "shared words"
NONE, SOME, ALL = "none", "some", "all"


def shared_words(dataset: Dataset, split: str = "test") -> dict[str, dict[str, str]]:
    """Query id -> {"shared words": "none", "some" or "all"}, as `evaluation.slices` takes it.

    Counted are the query's words that occur in any of its positives, stop words and case aside.
    """
    from bm25s.stopwords import STOPWORDS_EN

    ignored = frozenset(STOPWORDS_EN)
    kinds = {}
    for query, positives in dataset.qrels[split].items():
        wanted = set(words(dataset.queries[query])) - ignored
        found = {word for document in positives for word in words(dataset.corpus[document])}
        kinds[query] = {FIELD: ALL if wanted <= found else SOME if wanted & found else NONE}
    return kinds
