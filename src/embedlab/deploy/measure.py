"""What an index costs and what it loses: recall against exact search, bytes, build time, latency."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from embedlab import progress
from embedlab.deploy.indexes import TUNED_BY, IndexSpec, VectorIndex
from embedlab.errors import ParameterError

if TYPE_CHECKING:
    import pandas as pd

TIE = 1e-5  # scores this close are equal: they differ by rounding alone
PERCENTILES = (50, 95, 99)


def recall_at_k(found: np.ndarray, queries: np.ndarray, vectors: np.ndarray, exact_scores: np.ndarray) -> np.ndarray:
    """Share of the k places that hold a document as good as exact search's: float64 (Q,).

    A document counts when it scores at least what the k-th of exact search scores. Documents with the same text tie,
    and an index that returns the other one of two equal documents has lost nothing.

    Args:
        found: int64 (Q, k), rows of `vectors`; -1 where nothing was found.
        queries: (Q, d).
        vectors: (N, d), an array or a memory map.
        exact_scores: (Q, k), best first, of exact search.
    """
    last = exact_scores[:, -1]
    scored = (np.asarray(vectors[rows[rows >= 0]]) @ query for rows, query in zip(found, queries, strict=True))
    hits = [np.count_nonzero(scores >= floor - TIE) for scores, floor in zip(scored, last, strict=True)]
    return np.array(hits, dtype=float) / exact_scores.shape[1]


def latency_ms(index: VectorIndex, queries: np.ndarray, k: int, *, repeats: int = 1) -> np.ndarray:
    """Milliseconds of each query (Q, d) searched alone: float64 (Q,); a few unmeasured ones go first.

    With `repeats` each query's fastest time counts, which compares indexes on a busy machine but hides the tail.
    """
    for query in queries[:5]:
        index.search(query[None], k)
    taken = np.full(len(queries), np.inf)
    for _ in range(repeats):
        for row, query in enumerate(queries):
            began = time.perf_counter()
            index.search(query[None], k)
            taken[row] = min(taken[row], (time.perf_counter() - began) * 1e3)
    return taken


def measure(
    index: VectorIndex, queries: np.ndarray, exact_scores: np.ndarray, *, build_s: float | None = None
) -> dict[str, float | None]:
    """One row of a comparison.

    Args:
        index: what is measured.
        queries: (Q, d).
        exact_scores: (Q, k) of exact search; k is the depth that recall and latency are measured at.
        build_s: seconds that building took, where known.

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
    """Build and measure every index over `vectors` (N, d).

    Returns:
        One row per index: its name and what `measure` says; and the indexes by name.
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
    """Recall and latency while the one parameter that trades them varies: ef_search, nprobe or shortlist.

    Returns:
        Columns parameter, value and what `measure` says, one row per value.

    Raises:
        ParameterError: this kind of index has no such parameter.
    """
    import pandas as pd

    kind = index.spec.kind
    if kind not in TUNED_BY:
        raise ParameterError(f"{kind} has nothing to tune", remedy=f"Choose one of {', '.join(TUNED_BY)}", field="kind")
    name = TUNED_BY[kind]
    measured = [measure(index.with_spec(**{name: value}), queries, exact_scores) for value in values]
    return pd.DataFrame([{"parameter": name, "value": v, **row} for v, row in zip(values, measured, strict=True)])
