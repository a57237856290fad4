"""Hybrid search: fuse several rankings of the same queries into one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedlab.errors import DataError, ParameterError
from embedlab.search.exact import ABSENT, Ranking, require_depth


def fuse_rrf(rankings: Sequence[Ranking], k: int, c: float = 60) -> Ranking:
    """Fuse rankings by reciprocal rank: each ranking gives its document at rank r (from 1) the score 1 / (c + r).

    The rankings may score on different scales. Cormack, Clarke & Büttcher, SIGIR 2009.

    Args:
        rankings: of the same queries and corpus.
        k: documents per query.
        c: constant of the formula; 60 in the paper.

    Raises:
        DataError: the rankings differ in queries or corpus, or in their order.
    """
    contributions = [np.broadcast_to(1 / (c + np.arange(1, r.depth + 1)), r.indices.shape) for r in rankings]
    return _fuse(rankings, contributions, k)


def fuse_scores(a: Ranking, b: Ranking, weight: float, *, k: int | None = None) -> Ranking:
    """Fuse two rankings by a weighted mean of their scores, each scaled to [0, 1] per query first.

    The scores are min-max scaled over the retrieved documents. A document that a ranking does not contain gets 0 from
    it, and if all scores of a ranking are equal they become 1. Choose `weight` on dev. Bruch, Gai & Ingber, An Analysis
    of Fusion Functions for Hybrid Retrieval, TOIS 2023.

    Args:
        a, b: rankings of the same queries and corpus.
        weight: weight of `a`, from 0 to 1.
        k: documents per query; as many as the deeper ranking when not given.

    Raises:
        DataError: the rankings differ in queries or corpus, or in their order.
        ParameterError: `weight` is outside 0 to 1.
    """
    if not 0 <= weight <= 1:
        problem = f"weight must be between 0 and 1, got {weight}"
        raise ParameterError(problem, remedy="Set weight=0.5, for example", field="weight")
    depth = max(a.depth, b.depth) if k is None else k
    return _fuse([a, b], [weight * _min_max(a.scores), (1 - weight) * _min_max(b.scores)], depth)


def _min_max(scores: np.ndarray) -> np.ndarray:
    """Scores (Q, k) scaled to [0, 1] per query in float64; empty ranks stay -inf."""
    present = np.isfinite(scores)
    low = np.where(present, scores, np.inf).min(1, keepdims=True, initial=np.inf)
    span = scores.max(1, keepdims=True, initial=-np.inf).astype(np.float64) - low
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = np.where(span > 0, (scores - low) / span, 1.0)
    return np.where(present, scaled, -np.inf)


def _fuse(rankings: Sequence[Ranking], contributions: Sequence[np.ndarray], k: int) -> Ranking:
    """Sum the contributions (Q, k_i) of every ranking by document and keep the k best; ties by corpus order."""
    require_depth(k)
    if len({(ranking.query_ids, ranking.corpus_ids) for ranking in rankings}) != 1:
        raise DataError("The rankings differ in queries or corpus", remedy="Fuse rankings of one split of one dataset")
    first = rankings[0]
    width, queries = len(first.corpus_ids), len(first.query_ids)
    present = [r.indices != ABSENT for r in rankings]
    rows = np.arange(queries)[:, None]
    keys = np.concatenate([(rows * width + r.indices)[p] for r, p in zip(rankings, present, strict=True)])
    scores = np.concatenate([c[p] for c, p in zip(contributions, present, strict=True)])
    unique, inverse = np.unique(keys, return_inverse=True)
    totals = np.bincount(inverse, weights=scores, minlength=len(unique)).astype(np.float32)
    return _ranked(first, unique // max(width, 1), unique % max(width, 1), totals, min(k, width))


def _ranked(template: Ranking, rows: np.ndarray, documents: np.ndarray, scores: np.ndarray, k: int) -> Ranking:
    """Rank scored (row, document) entries, all (E,): the k best per query of `template`."""
    order = np.lexsort((documents, -scores, rows))
    rows, documents, scores = rows[order], documents[order], scores[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    within = rank < k
    indices = np.full((len(template.query_ids), k), ABSENT, dtype=np.int64)
    all_scores = np.full((len(template.query_ids), k), -np.inf, dtype=np.float32)
    indices[rows[within], rank[within]] = documents[within]
    all_scores[rows[within], rank[within]] = scores[within]
    return Ranking(template.query_ids, template.corpus_ids, indices, all_scores)
