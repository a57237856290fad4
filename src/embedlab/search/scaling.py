"""What searches cost as the corpus grows: larger corpora from a real one, and times side by side."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from embedlab import progress
from embedlab.search.rescore import Searcher

BLOCK = 16_384  # rows made together


def enlarge(vectors: np.ndarray, size: int, *, likeness: float = 0.8, seed: int = 0) -> np.ndarray:
    """A corpus of `size` unit vectors that looks like `vectors`: the real ones first, then disturbed copies.

    A copy is `likeness` times a random real vector plus noise of the real vectors' covariance, scaled to unit length;
    its cosine with the original is about `likeness`. So the spectrum stays, each dimension keeps its variance (early
    Matryoshka dimensions carry more), and neighbourhoods stay crowded. It says what searching costs and how well a
    shortlist agrees with full search; what is relevant to a query it cannot say.

    Args:
        vectors: float32 (N, d) of unit rows.
        size: rows wanted; fewer than N cuts.
        likeness: between 0 (only the spectrum is kept) and 1 (exact copies).
        seed: of the noise.

    Returns:
        float32 (size, d).
    """
    rng = np.random.default_rng(seed)
    grown = np.empty((size, vectors.shape[1]), dtype=np.float32)
    real = min(size, len(vectors))
    grown[:real] = vectors[:real]
    shape = _noise_shape(vectors)
    for start in range(real, size, BLOCK):
        rows = grown[start : start + BLOCK]
        noise = rng.standard_normal(rows.shape, dtype=np.float32) @ shape
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        rows[:] = likeness * vectors[rng.integers(len(vectors), size=len(rows))] + (1 - likeness**2) ** 0.5 * noise
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return grown


def _noise_shape(vectors: np.ndarray) -> np.ndarray:
    """(d, d) matrix A such that z @ A has the covariance of `vectors` for standard normal z."""
    values, axes = np.linalg.eigh(np.cov(vectors, rowvar=False))
    return (np.sqrt(np.maximum(values, 0))[:, None] * axes.T).astype(np.float32)


def exact(corpus: np.ndarray) -> Searcher:
    """faiss's exact search by inner product, over `corpus` (N, d) as it lies: the one to beat."""
    import faiss

    return lambda queries, k: faiss.knn(queries, corpus, k, metric=faiss.METRIC_INNER_PRODUCT)


def compare_speed(
    searchers: Mapping[str, Searcher], queries: np.ndarray, *, k: int = 10, batch: int = 0, rounds: int = 5
) -> pd.DataFrame:
    """Time searches against each other, turn by turn so that a busy machine slows all of them alike.

    Args:
        searchers: name -> search; the first is what the others are compared with.
        queries: float32 (Q, d).
        k: documents per query.
        batch: queries given at a time; all of them when 0, one by one for latency.
        rounds: turns each; one more before them is not counted.

    Returns:
        Columns name, ms_per_query (median over rounds), speed (the first's time over this one's, median of the
        rounds' ratios), speed_low, speed_high (smallest and largest ratio of a round).
    """
    turns = [_turn(searchers, queries, k, batch or len(queries)) for _ in progress.track(range(rounds + 1), "time")]
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


def _turn(searchers: Mapping[str, Searcher], queries: np.ndarray, k: int, batch: int) -> Sequence[float]:
    seconds = []
    for search in searchers.values():
        began = time.perf_counter()
        for start in range(0, len(queries), batch):
            search(queries[start : start + batch], k)
        seconds.append(time.perf_counter() - began)
    return seconds
