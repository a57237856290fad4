"""Teach the prefixes of finished vectors to rank as the whole vectors do; the encoder stays as it is.

A linear map is fitted so that its first numbers carry as much of the ranking as they can: the unsupervised part of
Yoon et al., Matryoshka-Adaptor, EMNLP 2024, with the ranking distilled as a distribution over documents. No labels are
used. `models.layers.project` appends the map to a model, which stays a plain one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from embedlab import progress
from embedlab.errors import ParameterError


def prefix_loss(queries: Tensor, documents: Tensor, target: Tensor, dims: Sequence[int], temperature: float) -> Tensor:
    """Mean cross-entropy between a ranking and that of every prefix.

    `- sum_j p_j log softmax(cos(q[:d], c_j[:d]) / t)_j`, averaged over queries and dimensions d.

    Args:
        queries: (B, d).
        documents: (C, d).
        target: (B, C), the distribution p over the documents.
        dims: prefixes to score.
        temperature: t.
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
    batch_size: int = 256,
    candidates: int = 4096,
    learning_rate: float = 1e-3,
    temperature: float = 0.05,
    seed: int = 0,
) -> Tensor:
    """A linear map (d, d) after which every prefix in `dims` ranks as much like the whole vector as it can.

    It begins as the identity; documents serve as queries too, for training queries alone are few.

    Args:
        queries: float32 (n, d) of unit rows, training queries only.
        corpus: float32 (N, d) of unit rows.
        dims: prefixes to fit; name the full width too where the whole vector is used after the map.
        steps: of Adam, with a one-cycle learning rate.
        batch_size, candidates: queries and random documents per step.
        learning_rate: peak.
        temperature: of both distributions.
        seed: of the draws.

    Raises:
        ParameterError: a dimension that the vectors do not have.
    """
    if not dims or not 1 <= min(dims) <= max(dims) <= corpus.shape[1]:
        remedy = f"Choose 1 to {corpus.shape[1]}"
        raise ParameterError(f"prefixes of {tuple(dims)} dimensions cannot be fitted", remedy=remedy, field="dims")
    documents = torch.from_numpy(np.require(corpus, np.float32, ["C", "W"]))
    texts = torch.cat([torch.from_numpy(np.asarray(queries, np.float32)), documents])
    draw = torch.Generator().manual_seed(seed)
    linear = torch.eye(corpus.shape[1]).requires_grad_()
    adam = torch.optim.Adam([linear], lr=learning_rate)
    cycle = torch.optim.lr_scheduler.OneCycleLR(adam, learning_rate, total_steps=steps)
    for _ in progress.track(range(steps), "fit prefixes"):
        asked = texts[torch.randint(len(texts), (batch_size,), generator=draw)]
        found = documents[torch.randint(len(documents), (candidates,), generator=draw)]
        target = F.softmax(asked @ found.T / temperature, dim=-1)
        loss = prefix_loss(asked @ linear, found @ linear, target, dims, temperature)
        adam.zero_grad()
        loss.backward()
        adam.step()
        cycle.step()
    return linear.detach()


def map_vectors(vectors: np.ndarray, linear: Tensor) -> np.ndarray:
    """Rows (n, d) through a map from `fit_prefixes`, scaled to unit length: what the projected model would give."""
    return F.normalize(torch.from_numpy(np.asarray(vectors, np.float32)) @ linear, dim=-1).numpy()
