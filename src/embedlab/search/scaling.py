"""Measure how the cost of search grows with the corpus: larger corpora made from a real one, and timings."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from embedlab import progress
from embedlab.search.recall import recall_at_k
from embedlab.search.rescore import Searcher

K = 10  # documents per query
BLOCK_ROWS = 16_384  # generated together


def enlarge(vectors: np.ndarray, size: int, *, similarity: float = 0.8, seed: int = 0) -> np.ndarray:
    """Build a corpus of `size` unit vectors that resembles `vectors`: the real ones first, then noisy copies.

    A copy is `similarity` times a random real vector plus noise with the covariance of the real vectors, scaled to unit
    length. Its cosine with the original is about `similarity`. So every dimension keeps its variance (early Matryoshka
    dimensions hold more), and neighbourhoods stay dense. Use it to measure the cost of search and the agreement with
    full search. It says nothing about relevance.

    Args:
        vectors: float32 (N, d), unit rows.
        size: rows of the result; below N the corpus is cut.
        similarity: from 0 (noise only) to 1 (exact copies).
        seed: of the noise.

    Returns:
        float32 (size, d).
    """
    rng = np.random.default_rng(seed)
    corpus = np.empty((size, vectors.shape[1]), dtype=np.float32)
    real = min(size, len(vectors))
    corpus[:real] = vectors[:real]
    transform = _noise_transform(vectors)
    for start in range(real, size, BLOCK_ROWS):
        rows = corpus[start : start + BLOCK_ROWS]
        noise = rng.standard_normal(rows.shape, dtype=np.float32) @ transform
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        rows[:] = similarity * vectors[rng.integers(len(vectors), size=len(rows))] + (1 - similarity**2) ** 0.5 * noise
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return corpus


def _noise_transform(vectors: np.ndarray) -> np.ndarray:
    """Return a matrix A (d, d) such that z @ A has the covariance of `vectors` for standard normal z."""
    values, axes = np.linalg.eigh(np.cov(vectors, rowvar=False))
    return (np.sqrt(np.maximum(values, 0))[:, None] * axes.T).astype(np.float32)


def exact(corpus: np.ndarray) -> Searcher:
    """Return faiss's exact search by inner product over `corpus` (N, d), the reference for speed."""
    import faiss

    return lambda queries, k: faiss.knn(queries, corpus, k, metric=faiss.METRIC_INNER_PRODUCT)


def recall_of_first(searchers: Mapping[str, Searcher], queries: np.ndarray, corpus: np.ndarray) -> dict[str, float]:
    """Compute how many documents of the first search, which is exact, each search finds: name -> recall@10.

    Args:
        searchers: name -> search over `corpus`.
        queries: float32 (Q, d).
        corpus: float32 (N, d).
    """
    retrieved = {name: searcher(queries, K) for name, searcher in searchers.items()}
    exact_scores = next(iter(retrieved.values()))[0]
    return {
        name: float(recall_at_k(indices, queries, corpus, exact_scores).mean())
        for name, (_, indices) in retrieved.items()
    }


def compare_speed(
    searchers: Mapping[str, Searcher], queries: np.ndarray, *, batch: int = 0, rounds: int = 5
) -> pd.DataFrame:
    """Time searches in turns, so that a busy machine slows all of them.

    Args:
        searchers: name -> search; the others are compared with the first.
        queries: float32 (Q, d).
        batch: queries per call; 0 passes all at once, 1 measures latency.
        rounds: timed rounds; one more at the start is not counted.

    Returns:
        Columns name, ms_per_query (median over rounds), speed (time of the first divided by this one's, median of the
        rounds), speed_low, speed_high (smallest and largest of a round).
    """
    turns = [_round(searchers, queries, batch or len(queries)) for _ in progress.track(range(rounds + 1), "time")]
    seconds = np.array(turns[1:])  # (rounds, searchers)
    ratios = seconds[:, :1] / seconds
    return pd.DataFrame(
        {
            "name": list(searchers),
            "ms_per_query": np.median(seconds, axis=0) / len(queries) * 1e3,
            "speed": np.median(ratios, axis=0),
            "speed_low": ratios.min(axis=0),
            "speed_high": ratios.max(axis=0),
        }
    )


def _round(searchers: Mapping[str, Searcher], queries: np.ndarray, batch: int) -> Sequence[float]:
    """Return the seconds of each search for all queries."""
    seconds = []
    for search in searchers.values():
        start_time = time.perf_counter()
        for start in range(0, len(queries), batch):
            search(queries[start : start + batch], K)
        seconds.append(time.perf_counter() - start_time)
    return seconds
