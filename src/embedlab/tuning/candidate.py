"""A model that a tuning run has built, with its scores on dev."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedlab.evaluation.metrics import Evaluation
from embedlab.search.vectors import Vectors

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

METRIC = "ndcg@10"
BYTES_PER_DIMENSION = 4  # float32


@dataclass(frozen=True, eq=False)
class Candidate:
    """One model that could win.

    Attributes:
        name: unique within the run.
        system: name in the record, see `embedlab.runs.systems`.
        detail: its settings in words.
        vectors: of the dev queries and the documents that are searched on dev.
        dev: evaluation of the dev queries.
        build: returns the model; called only if the model is needed.
        parts: names of the simpler candidates that it must beat.
        seconds: time that it took to make.
    """

    name: str
    system: str
    detail: str
    vectors: Vectors
    dev: Evaluation
    build: Callable[[], SentenceTransformer]
    parts: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def values(self) -> np.ndarray:
        """nDCG@10 of every dev query (Q,)."""
        return self.dev.of(METRIC)

    @property
    def score(self) -> float:
        """Mean nDCG@10 on dev."""
        return self.dev.mean(METRIC)

    @property
    def bytes(self) -> int:
        """Bytes of a document vector in float32."""
        return BYTES_PER_DIMENSION * self.vectors.dim
