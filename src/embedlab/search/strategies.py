"""Ready-made ways to search one corpus: funnels over its dimensions, and vectors stored in fewer bits."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from embedlab.search.funnel import Funnel
from embedlab.search.quantised import BinaryVectors, QuantisedVectors
from embedlab.search.rescore import Searcher, rescored
from embedlab.search.scaling import exact

FIRST_DIMS = (64, 32, 16)  # first dimensions of the two-stage funnels
STEPS = (32, 64, 128)  # dimensions of the funnel with many stages, below the full width
FORTY_EIGHT_BYTES = (("float32", 12), ("int8", 48), ("int4", 96), ("bit", 384))  # 1/32 of 384 float dimensions


class StoredSearch(NamedTuple):
    """A way to store and search vectors.

    Attributes:
        searcher: queries and k -> scores and indices.
        bytes_in_memory: per document.
        bytes_on_disk: per document, besides; 0 without rescoring from disk.
    """

    searcher: Searcher
    bytes_in_memory: int
    bytes_on_disk: int


def at_width(corpus: np.ndarray, dim: int) -> Funnel:
    """Build full search with the first `dim` dimensions of `corpus` (N, d)."""
    return Funnel(corpus, (dim,))


def funnels(corpus: np.ndarray, shortlist: int) -> dict[str, Funnel]:
    """Build full search and funnels that rescore a shortlist: "full", "64 → 384", "32 → 64 → 128 → 384", ...

    Args:
        corpus: float32 (N, d), unit rows.
        shortlist: documents that the stage before the last passes on; earlier stages pass on two and four times as
            many.
    """
    full = corpus.shape[1]
    plans: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {"full": ((full,), ())}
    plans |= {f"{dim} → {full}": ((dim, full), (shortlist,)) for dim in FIRST_DIMS if dim < full}
    dims = (*(dim for dim in STEPS if dim < full), full)
    plans[" → ".join(map(str, dims))] = (dims, (4 * shortlist, 2 * shortlist, shortlist)[4 - len(dims) :])
    return {name: Funnel(corpus, *plan) for name, plan in plans.items()}


def stored_searches(corpus: np.ndarray, shortlist: int, path: Path) -> dict[str, StoredSearch]:
    """Store a corpus at several precisions, alone and with int8 vectors on disk that rescore a shortlist.

    "signs" are compared as bits on both sides; the other forms score a float query against decoded vectors.

    Args:
        corpus: float32 (N, d), unit rows.
        shortlist: the bits pass on 4 times as many documents to rescoring, the other forms 2 times as many.
        path: file for the int8 vectors on disk.

    Returns:
        Name, such as "int8 48, alone" or "signs 384, rescored", -> search.
    """
    full = corpus.shape[1]
    signs, int8 = BinaryVectors(corpus), QuantisedVectors.encode(corpus, "int8")
    stores: dict[str, QuantisedVectors | BinaryVectors] = {
        f"float32 {full}": QuantisedVectors.encode(corpus, "float32"),
        f"int8 {full}": int8,
    }
    for precision, dim in FORTY_EIGHT_BYTES:
        if dim <= full:
            stores[f"{precision} {dim}"] = QuantisedVectors.encode(corpus, precision, dim)
    stores[f"signs {full}"] = signs
    searches = {f"{name}, alone": StoredSearch(store, store.bytes_per_document, 0) for name, store in stores.items()}
    same_bits = rescored(signs, signs, 4 * shortlist)
    searches[f"signs {full}, then a float query, alone"] = StoredSearch(same_bits, signs.bytes_per_document, 0)
    int8.save(path)
    on_disk = QuantisedVectors.from_file(path)
    for name, store in stores.items():
        if store.bytes_per_document <= signs.bytes_per_document:
            searcher = rescored(store, on_disk, 2 * shortlist)
            sizes = (store.bytes_per_document, on_disk.bytes_per_document)
            searches[f"{name}, rescored"] = StoredSearch(searcher, *sizes)
    return searches


def precision_grid(corpus: np.ndarray, dims: list[int]) -> dict[tuple[str, int], QuantisedVectors]:
    """Store a corpus at every combination of precision and dimension: (precision, dim) -> vectors."""
    return {
        (precision, dim): QuantisedVectors.encode(corpus, precision, dim)
        for precision in ("float32", "int8", "int4", "bit")
        for dim in dims
    }


def scaled_searches(corpus: np.ndarray, shortlist: int) -> dict[str, Searcher]:
    """Build the searches to time on a large corpus: the funnels, faiss's exact search, and bits with rescoring.

    Args:
        corpus: float32 (N, d), unit rows.
        shortlist: as in `funnels`.
    """
    binary = rescored(BinaryVectors(corpus), corpus, 2 * shortlist)
    return {**funnels(corpus, shortlist), "full, faiss": exact(corpus), f"signs → {corpus.shape[1]}": binary}
