"""Hybrid search: fuse several rankings of the same queries into one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedlab.errors import DataError, ParameterError
from embedlab.search.exact import ABSENT, Ranking, require_depth


def fuse_rrf(rankings: Sequence[Ranking], k: int, c: float = 60) -> Ranking:
    """Reciprocal rank fusion: every ranking gives its document at rank r (from 1) the score 1 / (c + r).

    Needs no scores to be comparable. Cormack, Clarke & Büttcher, SIGIR 2009, whose c = 60 is kept.

    Raises:
        DataError: when the rankings are not of the same queries and corpus, in the same order.
    """
    contributions = [np.broadcast_to(1 / (c + np.arange(1, r.depth + 1)), r.indices.shape) for r in rankings]
    return _fuse(rankings, contributions, k)


def fuse_scores(a: Ranking, b: Ranking, weight: float, *, k: int | None = None) -> Ranking:
    """Convex combination of scores: weight * a + (1 - weight) * b, each first scaled to [0, 1] per query.

    Min-max scaling over the documents found; a document that one ranking did not find gets 0 from it, and where all its
    scores are equal they become 1. Bruch, Gai & Ingber, An Analysis of Fusion Functions for Hybrid Retrieval, TOIS
    2023. Choose `weight` on dev.

    Args:
        a, b: rankings of the same queries and corpus.
        weight: share of `a`, from 0 to 1.
        k: documents per query; as many as the deeper ranking when not given.

    Raises:
        DataError: when the rankings are not of the same queries and corpus, in the same order.
        ParameterError: when `weight` lies outside 0 to 1.
    """
    if not 0 <= weight <= 1:
        raise ParameterError(f"The weight is {weight}", remedy="Choose one from 0 to 1", field="weight")
    depth = max(a.depth, b.depth) if k is None else k
    return _fuse([a, b], [weight * _min_max(a.scores), (1 - weight) * _min_max(b.scores)], depth)


def _min_max(scores: np.ndarray) -> np.ndarray:
    """Scores (Q, k) scaled to [0, 1] per query in float64; places that hold no document stay -inf."""
    present = np.isfinite(scores)
    low = np.where(present, scores, np.inf).min(1, keepdims=True, initial=np.inf)
    span = scores.max(1, keepdims=True, initial=-np.inf).astype(np.float64) - low
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = np.where(span > 0, (scores - low) / span, 1.0)
    return np.where(present, scaled, -np.inf)


def _fuse(rankings: Sequence[Ranking], contributions: Sequence[np.ndarray], k: int) -> Ranking:
    """Sum the contributions (Q, k_i) of every ranking by document and keep the k best; ties by place in the corpus."""
    require_depth(k)
    if len({(ranking.query_ids, ranking.corpus_ids) for ranking in rankings}) != 1:
        raise DataError("The rankings differ in queries or corpus", remedy="Fuse rankings of one split of one dataset")
    first = rankings[0]
    width, queries = len(first.corpus_ids), len(first.query_ids)
    present = [r.indices != ABSENT for r in rankings]
    rows = np.arange(queries)[:, None]
    keys = np.concatenate([(rows * width + r.indices)[p] for r, p in zip(rankings, present, strict=True)])
    parts = np.concatenate([c[p] for c, p in zip(contributions, present, strict=True)])
    unique, inverse = np.unique(keys, return_inverse=True)
    totals = np.bincount(inverse, weights=parts, minlength=len(unique)).astype(np.float32)
    return _ranked(first, unique // max(width, 1), unique % max(width, 1), totals, min(k, width))


def _ranked(like: Ranking, rows: np.ndarray, documents: np.ndarray, scores: np.ndarray, k: int) -> Ranking:
    """The k best of scored (row, document) entries, all (E,), as a ranking of the queries and corpus of `like`."""
    order = np.lexsort((documents, -scores, rows))
    rows, documents, scores = rows[order], documents[order], scores[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = rank < k
    indices = np.full((len(like.query_ids), k), ABSENT, dtype=np.int64)
    all_scores = np.full((len(like.query_ids), k), -np.inf, dtype=np.float32)
    indices[rows[kept], rank[kept]] = documents[kept]
    all_scores[rows[kept], rank[kept]] = scores[kept]
    return Ranking(like.query_ids, like.corpus_ids, indices, all_scores)
