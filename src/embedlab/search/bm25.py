"""BM25 ranking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from embedlab import progress
from embedlab.errors import DataError
from embedlab.search.exact import ABSENT, Ranking, require_depth

if TYPE_CHECKING:
    import bm25s


def bm25_ranking(
    corpus: Mapping[str, str], queries: Mapping[str, str], k: int, *, k1: float = 1.5, b: float = 0.75
) -> Ranking:
    """Rank with BM25 in Lucene's form: English stop words removed, Snowball stemmer, words of two letters or more.

    Only documents that share a stemmed word with the query are found, so a ranking may be shorter than k. Equal scores
    are ordered by place in the corpus. The defaults are bm25s's own and were not tuned on any test split.
    Robertson & Zaragoza, The Probabilistic Relevance Framework, 2009; Lù, BM25S, 2024.

    Args:
        corpus: document id -> text.
        queries: query id -> text.
        k: documents per query.
        k1: how slowly repeated words stop counting.
        b: how much long documents are held back, from 0 to 1.

    Raises:
        DataError: when no document holds a word.
        ParameterError: when k is below 1.
    """
    require_depth(k)
    index = _bm25_index(list(corpus.values()), k1, b)
    depth = min(k, len(corpus))
    indices = np.full((len(queries), depth), ABSENT, dtype=np.int64)
    scores = np.full((len(queries), depth), -np.inf, dtype=np.float32)
    for row, words in enumerate(progress.track(stemmed_words(list(queries.values())), "bm25")):
        known = index.get_tokens_ids(words)
        found, found_scores = _best_matches(index.get_scores_from_ids(known), depth) if known else ((), ())
        indices[row, : len(found)], scores[row, : len(found)] = found, found_scores
    return Ranking(tuple(queries), tuple(corpus), indices, scores)


def _bm25_index(texts: list[str], k1: float, b: float) -> bm25s.BM25:
    import bm25s

    words = stemmed_words(texts)
    if not any(words):
        raise DataError("No document holds a word", remedy="Check the corpus for empty or purely symbolic texts")
    index = bm25s.BM25(k1=k1, b=b, method="lucene")
    index.index(words, show_progress=False)
    return index


def stemmed_words(texts: list[str]) -> list[list[str]]:
    import bm25s
    import Stemmer

    return bm25s.tokenize(
        texts, stopwords="en", stemmer=Stemmer.Stemmer("english"), return_ids=False, show_progress=False
    )


def _best_matches(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Up to k documents with a score above 0 and those scores, best first, of one query's scores (N,)."""
    matches = np.flatnonzero(scores > 0)
    best = matches[np.argsort(-scores[matches], kind="stable")[:k]]
    return best, scores[best]
