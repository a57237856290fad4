"""Fit the maps between an old and a new space. They see texts of documents only; dev chooses their strength."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from embedlab.deploy.adapter import fit_ridge
from embedlab.deploy.migration.options import Judged, Maps, documents_adapted, ndcg, query_adapted
from embedlab.models.vector_map import VectorMap
from embedlab.search.vectors import Vectors

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # see `fit_ridge`


class FittedMaps(NamedTuple):
    """Maps, and the ridge strength that dev chose for each.

    Attributes:
        maps: between the spaces.
        query_ridge, document_ridge: the chosen strengths.
        sample: documents that the maps were fitted on.
    """

    maps: Maps
    query_ridge: float
    document_ridge: float
    sample: int


def fit_maps(dev: Judged, *, sample: int, seed: int = 0) -> FittedMaps:
    """Fit a ridge regression in both directions.

    Args:
        dev: chooses the strength by nDCG@10; its queries are not fitted on.
        sample: number of documents, drawn at random; all if there are fewer.
        seed: of the draw.
    """
    old, new = dev.spaces.old.corpus, dev.spaces.new.corpus
    count = min(sample, len(old))
    rows = np.sort(np.random.default_rng(seed).permutation(len(old))[:count])
    old, new = np.asarray(old[rows]), np.asarray(new[rows])
    query_map, query_ridge = _best(dev, new, old, lambda candidate: query_adapted(dev.spaces, candidate))
    document_map, document_ridge = _best(dev, old, new, lambda candidate: documents_adapted(dev.spaces, candidate))
    return FittedMaps(Maps(query_map, document_map), query_ridge, document_ridge, count)


def _best(
    dev: Judged, source: np.ndarray, target: np.ndarray, vectors: Callable[[VectorMap], Vectors]
) -> tuple[VectorMap, float]:
    """Return the map with the highest nDCG@10 on dev, and its strength; the weakest of equal ones."""
    candidates = [(fit_ridge(source, target, ridge), ridge) for ridge in RIDGES]
    return max(candidates, key=lambda pair: float(np.nanmean(ndcg(vectors(pair[0]), dev.qrels))))
