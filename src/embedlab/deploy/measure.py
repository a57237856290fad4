"""Measure an index: recall against exact search, size, build time and latency."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from embedlab import progress
from embedlab.deploy.indexes import TUNED_BY, IndexSpec, VectorIndex
from embedlab.errors import ParameterError
from embedlab.search.exact import search
from embedlab.search.recall import recall_at_k

if TYPE_CHECKING:
    import pandas as pd

STANDARD_INDEXES = {
    "flat": IndexSpec(kind="flat"),
    "hnsw": IndexSpec(kind="hnsw"),
    "ivf": IndexSpec(kind="ivf"),
    "ivf-pq, 48 bytes, rescored": IndexSpec(kind="ivfpq"),
    "int8": IndexSpec(kind="int8"),
    "binary, rescored": IndexSpec(kind="binary"),
    "64-dim, rescored": IndexSpec(kind="matryoshka", short_dim=64),
}
TUNED_VALUES = {
    "hnsw": (10, 16, 32, 64, 128, 256),
    "ivf": (1, 2, 4, 8, 16, 32, 64),
    "binary, rescored": (20, 50, 100, 200, 400),
}
PERCENTILES = (50, 95, 99)


def exact_scores(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Search exactly and return the scores float32 (Q, k), best first.

    Args:
        vectors: (N, d), an array or a memory map.
        queries: (Q, d).
        k: documents per query.
    """
    return search(queries, vectors, k)[0]


def latency_ms(index: VectorIndex, queries: np.ndarray, k: int, *, repeats: int = 1) -> np.ndarray:
    """Measure the milliseconds of each query (Q, d) when it is searched alone: float64 (Q,).

    Args:
        index: the index.
        queries: (Q, d); a few of them warm up first.
        k: documents per query.
        repeats: each query's fastest time counts; this compares indexes on a busy machine but hides the tail.
    """
    for query in queries[:5]:
        index.search(query[None], k)
    fastest = np.full(len(queries), np.inf)
    for _ in range(repeats):
        for row, query in enumerate(queries):
            began = time.perf_counter()
            index.search(query[None], k)
            fastest[row] = min(fastest[row], (time.perf_counter() - began) * 1e3)
    return fastest


def measure(
    index: VectorIndex, queries: np.ndarray, exact_scores: np.ndarray, *, build_s: float | None = None
) -> dict[str, float | None]:
    """Measure one index.

    Args:
        index: the index.
        queries: (Q, d).
        exact_scores: (Q, k) of exact search; k is the depth that recall and latency are measured at.
        build_s: seconds that building took, if known.

    Returns:
        recall@k, build_s, megabytes (of the index alone), p50_ms, p95_ms, p99_ms.
    """
    k = exact_scores.shape[1]
    recall = recall_at_k(index.search(queries, k)[1], queries, index.vectors, exact_scores)
    times = np.percentile(latency_ms(index, queries, k), PERCENTILES)
    costs = {"build_s": build_s, "megabytes": index.bytes / 1e6}
    timed = {f"p{share}_ms": float(value) for share, value in zip(PERCENTILES, times, strict=True)}
    return {f"recall@{k}": float(recall.mean()), **costs, **timed}


def compare_indexes(
    specs: Mapping[str, IndexSpec], vectors: np.ndarray, queries: np.ndarray, exact_scores: np.ndarray
) -> tuple[pd.DataFrame, dict[str, VectorIndex]]:
    """Build and measure every index.

    Args:
        specs: name -> index, e.g. `STANDARD_INDEXES`.
        vectors: (N, d).
        queries: (Q, d).
        exact_scores: (Q, k) of exact search.

    Returns:
        One row per index, with its name and the columns of `measure`; and the indexes by name.
    """
    import pandas as pd

    rows, built = [], {}
    for name, spec in progress.track(specs.items(), "indexes", total=len(specs)):
        began = time.perf_counter()
        built[name] = VectorIndex.build(spec, vectors)
        seconds = time.perf_counter() - began
        rows.append({"index": name, **measure(built[name], queries, exact_scores, build_s=seconds)})
    return pd.DataFrame(rows), built


def tuning_curve(
    index: VectorIndex, values: Sequence[int], queries: np.ndarray, exact_scores: np.ndarray
) -> pd.DataFrame:
    """Measure recall and latency while the parameter that trades them varies: ef_search, nprobe or shortlist.

    Args:
        index: the index.
        values: of the parameter.
        queries: (Q, d).
        exact_scores: (Q, k) of exact search.

    Returns:
        Columns parameter, value and those of `measure`, one row per value.

    Raises:
        ParameterError: this kind of index has no such parameter.
    """
    import pandas as pd

    kind = index.spec.kind
    if kind not in TUNED_BY:
        remedy = f"Choose one of {', '.join(TUNED_BY)}"
        raise ParameterError(f"An index of kind {kind!r} has no parameter to tune", remedy=remedy, field="kind")
    name = TUNED_BY[kind]
    measured = [measure(index.with_spec(**{name: value}), queries, exact_scores) for value in values]
    return pd.DataFrame([{"parameter": name, "value": v, **row} for v, row in zip(values, measured, strict=True)])


def tuning_curves(indexes: Mapping[str, VectorIndex], queries: np.ndarray, exact_scores: np.ndarray) -> pd.DataFrame:
    """Measure the tuning curves of three of the `STANDARD_INDEXES`: graph, inverted lists and binary.

    Args:
        indexes: name -> index, from `compare_indexes`.
        queries: (Q, d).
        exact_scores: (Q, k) of exact search.

    Returns:
        The rows of `tuning_curve` with a column index.
    """
    import pandas as pd

    curves = [
        tuning_curve(indexes[name], values, queries, exact_scores).assign(index=name)
        for name, values in TUNED_VALUES.items()
    ]
    return pd.concat(curves, ignore_index=True)
