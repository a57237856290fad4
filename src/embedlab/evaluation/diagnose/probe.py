"""What would fine-tuning bring? A linear map over frozen vectors, trained in seconds, as a foretaste.

A fine-tune may change everything about the vectors; the probe may only turn and stretch the space, for queries and
documents alike. What it gains on held-out queries, a fine-tune on the same pairs can nearly always gain as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from embedlab import progress
from embedlab.data.dataset import Qrels
from embedlab.errors import DataError
from embedlab.evaluation.metrics import evaluate
from embedlab.search.vectors import Vectors

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 400
EVERY = 20  # steps between two looks at dev
BATCH = 256
NEGATIVES = 2_048  # random documents that every query of a batch is told apart from
TEMPERATURE = 0.05
LEARNING_RATE = 5e-4
METRIC = "ndcg@10"


@dataclass(frozen=True, eq=False)
class Probe:
    """The best map on dev.

    Attributes:
        matrix: float32 (d, d); the identity where training never helped on dev.
        step: the step it was taken at; 0 is the identity.
        history: dev nDCG@10 by step.
    """

    matrix: np.ndarray
    step: int
    history: dict[int, float]

    def apply(self, vectors: Vectors) -> Vectors:
        """Queries and corpus mapped, rows scaled to unit length again."""
        return replace(
            vectors, queries=_mapped(vectors.queries, self.matrix), corpus=_mapped(vectors.corpus, self.matrix)
        )


def fit_probe(
    train: Vectors,
    pairs: Iterable[tuple[str, str]],
    dev: Vectors,
    qrels: Qrels,
    *,
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
) -> Probe:
    """Train the map with a contrastive loss on training pairs and keep the best of it on dev.

    InfoNCE (van den Oord et al., 2018) over the batch's positives and random documents, each document once, so that no
    query is told apart from its own positive.

    Args:
        train: training queries and the corpus.
        pairs: (query id, document id) of the positives.
        dev: dev queries and the corpus.
        qrels: the dev judgements.
        steps: optimiser steps.
        learning_rate: of Adam.
        seed: of the batches.

    Raises:
        DataError: there is no pair.
    """
    import torch

    torch.manual_seed(seed)
    queries, positives = _pair_rows(train, pairs)
    query_vectors, corpus = torch.tensor(train.queries), torch.tensor(np.asarray(train.corpus))
    matrix = torch.eye(train.dim, requires_grad=True)
    optimiser = torch.optim.Adam([matrix], lr=learning_rate)
    best = _Best(dev, qrels, matrix)
    for step in progress.track(range(1, steps + 1), "probe"):
        batch = torch.randint(len(queries), (min(BATCH, len(queries)),))
        loss = _loss(matrix, query_vectors[queries[batch]], positives[batch], corpus)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % EVERY == 0 or step == steps:
            best.look(step, matrix)
    return best.probe


class _Best:
    """The best map on dev so far; of equals the earliest."""

    def __init__(self, dev: Vectors, qrels: Qrels, start: Tensor) -> None:
        self.dev, self.qrels = dev, qrels
        self.probe = Probe(start.detach().numpy().copy(), 0, {})
        self.history = self.probe.history
        self.look(0, start)

    def look(self, step: int, matrix: Tensor) -> None:
        """Evaluate the map on dev, and keep it if it is the best so far."""
        candidate = Probe(matrix.detach().numpy().copy(), step, self.history)
        ranking = candidate.apply(self.dev).rank(10, stage="probe on dev")
        value = evaluate(ranking, self.qrels, [10]).mean(METRIC)
        if value > max(self.history.values(), default=-1.0):
            self.probe = candidate
        self.history[step] = value


def _loss(matrix: Tensor, queries: Tensor, positives: Tensor, corpus: Tensor) -> Tensor:
    """InfoNCE of queries (B, d) against their positives' rows (B,) and random rows of the corpus (N, d)."""
    import torch
    import torch.nn.functional as F

    drawn = torch.randint(len(corpus), (NEGATIVES,))
    rows, column_of = torch.unique(torch.cat([positives, drawn]), return_inverse=True)
    scores = F.normalize(queries @ matrix, dim=-1) @ F.normalize(corpus[rows] @ matrix, dim=-1).T  # (B, rows)
    return F.cross_entropy(scores / TEMPERATURE, column_of[: len(positives)])


def _pair_rows(vectors: Vectors, pairs: Iterable[tuple[str, str]]) -> tuple[Tensor, Tensor]:
    """Row of the query and row of the document of every pair, both (P,)."""
    import torch

    query_row = {query: row for row, query in enumerate(vectors.query_ids)}
    document_row = {document: row for row, document in enumerate(vectors.corpus_ids)}
    rows = [(query_row[query], document_row[document]) for query, document in pairs]
    if not rows:
        raise DataError("There is no training pair to fit a probe on", remedy="Leave the probe out")
    return torch.tensor([row for row, _ in rows]), torch.tensor([row for _, row in rows])


def _mapped(vectors: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    mapped = np.asarray(vectors, dtype=np.float32) @ matrix
    return mapped / np.maximum(np.linalg.norm(mapped, axis=1, keepdims=True), np.finfo(np.float32).tiny)
