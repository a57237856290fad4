"""Linear probe: a linear map on frozen embeddings, trained in seconds, as a cheap proxy for fine-tuning.

A fine-tune can change embeddings in any way, the probe only by one linear map for queries and documents. What the probe
gains on held-out queries, a fine-tune on the same pairs can almost always gain too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from embedlab import progress
from embedlab.data.dataset import Qrels
from embedlab.errors import DataError
from embedlab.evaluation.metrics import evaluate
from embedlab.params import TEMPERATURE
from embedlab.search.exact import own_rows
from embedlab.search.vectors import Vectors

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 400
EVERY = 20  # steps between dev evaluations
BATCH = 256
NEGATIVES = 2_048  # random documents per step, shared by all queries of the batch
LEARNING_RATE = 5e-4
METRIC = "ndcg@10"


@dataclass(frozen=True, eq=False)
class Probe:
    """The linear map that was best on dev.

    Attributes:
        matrix: float32 (d, d); the identity if no step was better on dev.
        step: the step of this map; 0 is the identity.
        history: dev nDCG@10 by step.
    """

    matrix: np.ndarray
    step: int
    history: dict[int, float]

    def apply(self, vectors: Vectors) -> Vectors:
        """Apply the map to queries and corpus and scale the rows to unit length."""
        return vectors.mapped(self.matrix)

    def blended(self, share: float) -> np.ndarray:
        """Return a map between the identity (0) and this map (1), float32 (d, d): the start of a fine-tune.

        The whole map leaves a fine-tune little to learn, because it fits the training pairs already.

        Args:
            share: 0 to 1.
        """
        return share * self.matrix + (1 - share) * np.eye(len(self.matrix), dtype=np.float32)


def fit_probe(
    train: Vectors,
    pairs: Iterable[tuple[str, str]],
    dev: Vectors,
    qrels: Qrels,
    *,
    steps: int = STEPS,
    seed: int = 0,
) -> Probe:
    """Train the map with InfoNCE (van den Oord et al., 2018) on training pairs and keep the best map on dev.

    The candidates are the positives of the batch and random documents, each document once. No document that is relevant
    to a query counts as its negative.

    Args:
        train: training queries and the corpus.
        pairs: (query id, document id) of the positives.
        dev: dev queries and the corpus.
        qrels: relevance judgements of dev.
        steps: optimiser steps.
        seed: seed of the batches.

    Raises:
        DataError: there are no pairs.
    """
    import torch

    from embedlab.search.judged import Judged

    torch.manual_seed(seed)
    queries, positives = _pair_rows(train, pairs)
    own_documents = torch.tensor(own_rows(train.query_ids, train.corpus_ids, train.own_documents))
    has_own = (own_documents >= 0).nonzero().squeeze(1)
    judged = Judged(torch.cat([queries, has_own]), torch.cat([positives, own_documents[has_own]]))
    query_vectors, corpus = torch.tensor(train.queries), torch.tensor(np.asarray(train.corpus))
    matrix = torch.eye(train.dim, requires_grad=True)
    optimiser = torch.optim.Adam([matrix], lr=LEARNING_RATE)
    best = _Best(dev, qrels, matrix)
    for step in progress.track(range(1, steps + 1), "probe"):
        batch = torch.randint(len(queries), (min(BATCH, len(queries)),))
        relevant = partial(judged.mask, queries[batch])
        loss = _loss(matrix, query_vectors[queries[batch]], positives[batch], corpus, relevant)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % EVERY == 0 or step == steps:
            best.evaluate(step, matrix)
    return best.probe


class _Best:
    """The best map on dev so far; the earliest if several are equal."""

    def __init__(self, dev: Vectors, qrels: Qrels, start: Tensor) -> None:
        self.dev, self.qrels = dev, qrels
        self.probe = Probe(start.detach().numpy().copy(), 0, {})
        self.history = self.probe.history
        self.evaluate(0, start)

    def evaluate(self, step: int, matrix: Tensor) -> None:
        """Evaluate the map on dev and keep it if it is the best so far."""
        candidate = Probe(matrix.detach().numpy().copy(), step, self.history)
        ranking = candidate.apply(self.dev).rank(10, stage="probe on dev")
        value = evaluate(ranking, self.qrels, [10]).mean(METRIC)
        if value > max(self.history.values(), default=-1.0):
            self.probe = candidate
        self.history[step] = value


def _loss(
    matrix: Tensor, queries: Tensor, positives: Tensor, corpus: Tensor, relevant: Callable[[Tensor], Tensor]
) -> Tensor:
    """Compute InfoNCE of queries (B, d) against their positives (B,) and random rows of the corpus (N, d).

    `relevant` tells which documents (n,) are relevant to the queries, or are the queries, bool (B, n): they do not
    count as negatives.
    """
    import torch
    import torch.nn.functional as F

    negatives = torch.randint(len(corpus), (NEGATIVES,))
    rows, column_of = torch.unique(torch.cat([positives, negatives]), return_inverse=True)
    scores = F.normalize(queries @ matrix, dim=-1) @ F.normalize(corpus[rows] @ matrix, dim=-1).T  # (B, rows)
    targets, mask = column_of[: len(positives)], relevant(rows)
    mask[torch.arange(len(queries)), targets] = False
    return F.cross_entropy((scores / TEMPERATURE).masked_fill(mask, float("-inf")), targets)


def _pair_rows(vectors: Vectors, pairs: Iterable[tuple[str, str]]) -> tuple[Tensor, Tensor]:
    """Return the query rows and the document rows of all pairs, int (P,) each."""
    import torch

    query_row = {query: row for row, query in enumerate(vectors.query_ids)}
    document_row = {document: row for row, document in enumerate(vectors.corpus_ids)}
    rows = [(query_row[query], document_row[document]) for query, document in pairs]
    if not rows:
        raise DataError("The probe needs training pairs, got none", remedy="Add training pairs or skip the probe")
    return torch.tensor([row for row, _ in rows]), torch.tensor([row for _, row in rows])
