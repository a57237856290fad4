"""BM25 ranking."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from embedlab import progress
from embedlab.data.languages import DEFAULT, detect_language, stemmed_words
from embedlab.errors import DataError
from embedlab.search.exact import ABSENT, Ranking, matched, require_depth

if TYPE_CHECKING:
    import bm25s

SORTED_MATCHES = 4  # times k: more matches are cut to the best before they are sorted

_log = logging.getLogger(__name__)


def bm25_ranking(
    corpus: Mapping[str, str],
    queries: Mapping[str, str],
    k: int,
    *,
    own_documents: Collection[str] = (),
    k1: float = 1.5,
    b: float = 0.75,
    language: str | None = None,
) -> Ranking:
    """Rank documents with BM25 (Lucene's formula, stop words removed, Snowball stemmer).

    A document is found only if it shares a stemmed word of two letters or more with the query, so a ranking may be
    shorter than k. Equal scores are in corpus order. The defaults are those of bm25s, not tuned on any test set.
    Robertson & Zaragoza, The Probabilistic Relevance Framework, 2009; Lù, BM25S, 2024.

    Args:
        corpus: document id -> text.
        queries: query id -> text.
        k: documents per query.
        own_documents: ids of the queries whose document of the same id is left out, see `Dataset.own_documents`.
        k1: how much repeated words count; a larger value counts them more.
        b: how much long documents are penalised, from 0 to 1.
        language: of the documents, such as `de`, for stop words and stemming. When None it is detected, and English if
            the documents do not tell; see `data.languages`.

    Returns:
        Ranking of the queries; scores are 0 or more. If no query shares a word with any document, for example because
        they are in other languages, it is not measurable. A warning says so, and if that holds for most queries.

    Raises:
        DataError: no document contains a word.
        ParameterError: `k` is below 1, or `language` is not the code of a language.
    """
    require_depth(k)
    texts = list(corpus.values())
    language = detect_language(texts) or DEFAULT if language is None else language
    index = _bm25_index(stemmed_words(texts, language), k1, b)
    depth = min(k + bool(own_documents), len(corpus))
    indices = np.full((len(queries), depth), ABSENT, dtype=np.int64)
    scores = np.full((len(queries), depth), -np.inf, dtype=np.float32)
    for row, words in enumerate(progress.track(stemmed_words(queries.values(), language), "bm25")):
        token_ids = index.get_tokens_ids(words)
        if token_ids:
            matches, match_scores = _best_matches(index.get_scores_from_ids(token_ids), depth)
            indices[row, : len(matches)], scores[row, : len(matches)] = matches, match_scores
    ranking = Ranking(tuple(queries), tuple(corpus), indices, scores)
    ranking = ranking.without_own(own_documents, k) if own_documents else ranking
    return _with_common_words(ranking)


def _with_common_words(ranking: Ranking) -> Ranking:
    """`ranking`; if no query shares a word with any document, it is not measurable."""
    queries, checked = len(ranking.query_ids), matched(ranking)
    without = int((ranking.indices == ABSENT).all(axis=1).sum())
    if without > queries / 2:
        consequence = "As a baseline it is weak here." if checked.measurable else "It is not a baseline here."
        _log.warning("BM25 found no common word in %d of %d queries. %s", without, queries, consequence)
    return checked


def _bm25_index(words: list[list[str]], k1: float, b: float) -> bm25s.BM25:
    import bm25s

    if not any(words):
        remedy = "Check the corpus for empty texts and texts without letters"
        raise DataError("no document contains a word", remedy=remedy)
    index = bm25s.BM25(k1=k1, b=b, method="lucene")
    index.index(words, show_progress=False)
    return index


def _best_matches(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return up to k documents with a score above 0, best first, and their scores, from one query's scores (N,)."""
    matches = np.flatnonzero(scores > 0)
    if len(matches) > SORTED_MATCHES * k:  # sort only those that reach the k-th score
        of_matches = scores[matches]
        matches = matches[of_matches >= np.partition(of_matches, len(matches) - k)[len(matches) - k]]
    best = matches[np.argsort(-scores[matches], kind="stable")[:k]]
    return best, scores[best]
