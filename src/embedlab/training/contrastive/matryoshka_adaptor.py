"""Matryoshka-Adaptor: a linear map that makes existing embeddings truncatable, without training the encoder.

The map is fitted so that truncated embeddings rank like the full ones: the unsupervised part of Yoon et al.,
Matryoshka-Adaptor, EMNLP 2024, with the ranking distilled as a distribution over documents. No labels are used.
`models.layers.project` appends the map to a model as a Dense layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from embedlab import progress
from embedlab.errors import ParameterError
from embedlab.params import TEMPERATURE

BATCH, CANDIDATES = 256, 4096  # queries and random documents per step
LEARNING_RATE = 1e-3  # peak


def prefix_loss(queries: Tensor, documents: Tensor, target: Tensor, dims: Sequence[int], temperature: float) -> Tensor:
    """Compute the mean cross-entropy between a target ranking and the rankings with truncated embeddings.

    `- sum_j p_j log softmax(cos(q[:d], c_j[:d]) / t)_j`, averaged over queries and dimensions d.

    Args:
        queries: (B, d).
        documents: (C, d).
        target: (B, C), the distribution p over the documents.
        dims: dimensions to truncate to.
        temperature: t.

    Returns:
        A scalar.
    """
    losses = []
    for dim in dims:
        cosines = F.normalize(queries[:, :dim], dim=-1) @ F.normalize(documents[:, :dim], dim=-1).T
        losses.append(-(target * F.log_softmax(cosines / temperature, dim=-1)).sum(-1).mean())
    return torch.stack(losses).mean()


def fit_prefixes(
    queries: np.ndarray,
    corpus: np.ndarray,
    dims: Sequence[int],
    *,
    steps: int = 300,
    seed: int = 0,
) -> Tensor:
    """Fit a linear map after which embeddings truncated to `dims` rank like the full embeddings.

    The map starts as the identity. Documents also serve as queries, because there are few training queries.

    Args:
        queries: float32 (n, d), unit rows, training queries only.
        corpus: float32 (N, d), unit rows.
        dims: dimensions to fit; include d if you also use the full embedding after the map.
        steps: steps of Adam, with a one-cycle learning rate.
        seed: seed of the random batches.

    Returns:
        float32 (d, d).

    Raises:
        ParameterError: `dims` is empty or contains a value outside 1 to d.
    """
    if not dims or not 1 <= min(dims) <= max(dims) <= corpus.shape[1]:
        problem = f"dims must be between 1 and {corpus.shape[1]}, got {tuple(dims)}"
        raise ParameterError(problem, remedy="Change dims", field="dims")
    documents = torch.from_numpy(np.require(corpus, np.float32, ["C", "W"]))
    texts = torch.cat([torch.from_numpy(np.asarray(queries, np.float32)), documents])
    draw = torch.Generator().manual_seed(seed)
    linear = torch.eye(corpus.shape[1]).requires_grad_()
    adam = torch.optim.Adam([linear], lr=LEARNING_RATE)
    cycle = torch.optim.lr_scheduler.OneCycleLR(adam, LEARNING_RATE, total_steps=steps)
    for _ in progress.track(range(steps), "fit prefixes"):
        query_batch = texts[torch.randint(len(texts), (BATCH,), generator=draw)]
        document_batch = documents[torch.randint(len(documents), (CANDIDATES,), generator=draw)]
        target = F.softmax(query_batch @ document_batch.T / TEMPERATURE, dim=-1)
        loss = prefix_loss(query_batch @ linear, document_batch @ linear, target, dims, TEMPERATURE)
        adam.zero_grad()
        loss.backward()
        adam.step()
        cycle.step()
    return linear.detach()


def map_vectors(vectors: np.ndarray, linear: Tensor) -> np.ndarray:
    """Apply a map (d, d) from `fit_prefixes` to vectors (n, d) and scale the rows to unit length: float32 (n, d)."""
    return F.normalize(torch.from_numpy(np.asarray(vectors, np.float32)) @ linear, dim=-1).numpy()
