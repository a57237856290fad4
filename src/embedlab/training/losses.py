"""Contrastive losses on one encoding per step, at every Matryoshka dimension at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedlab.models.packing import embed_columns


def false_negative_mask(labels: Tensor) -> Tensor:
    """Which candidates of a batch must not count as negatives.

    A candidate is masked for a query when it is the query's own positive in another row (two queries of one
    document in the same batch), or the positive of another row with the very same query.

    Args:
        labels: (B, 2 + n) integers per row: query, positive, then its n hard negatives.

    Returns:
        bool (B, B * (1 + n)); columns are all positives first, then the first hard negatives, and so on.
        A row's own positive is never masked.
    """
    queries, candidates = labels[:, 0], labels[:, 1:].T.reshape(-1)
    rows = len(queries)
    mask = labels[:, 1, None] == candidates[None, :]
    mask[:, :rows] |= queries[:, None] == queries[None, :]
    mask[torch.arange(rows), torch.arange(rows)] = False
    return mask


def info_nce(queries: Tensor, candidates: Tensor, temperature: float, mask: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of picking candidate i for query i: InfoNCE, or multiple negatives ranking.

    `-log exp(cos(q_i, c_i) / t) / sum_j exp(cos(q_i, c_j) / t)`, the sum over all candidates not masked
    (van den Oord et al. 2018; Henderson et al. 2017).

    Args:
        queries: (B, d).
        candidates: (B * (1 + n), d), the positives first, in the order of the queries.
        temperature: t > 0; sentence-transformers' `scale` is 1 / t.
        mask: bool (B, B * (1 + n)), True where a candidate is no negative.
    """
    scores = F.normalize(queries, dim=-1) @ F.normalize(candidates, dim=-1).T / temperature
    if mask is not None:
        scores = scores.masked_fill(mask, float("-inf"))
    return F.cross_entropy(scores, torch.arange(len(queries), device=scores.device))


class ContrastiveLoss(nn.Module):
    """InfoNCE with in-batch and hard negatives, false negatives masked, summed over Matryoshka dimensions.

    The sum over truncations is Matryoshka representation learning (Kusupati et al. 2022): every prefix of the
    embedding is trained to rank on its own. All columns are encoded in one forward and every dimension is cut from it.

    Args:
        model: the model being trained.
        temperature: see `info_nce`.
        dims: dimensions to train; None trains the full embedding only.
    """

    def __init__(self, model: nn.Module, temperature: float = 0.05, dims: Sequence[int] | None = None) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.dims = tuple(dims or (model.get_embedding_dimension(),))

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Loss of one batch: the columns are query, positive, hard negatives; labels as in `false_negative_mask`."""
        queries, *documents = embed_columns(self.model, list(sentence_features))
        candidates = torch.cat(documents)
        mask = None if labels is None else false_negative_mask(labels)
        losses = [info_nce(queries[:, :dim], candidates[:, :dim], self.temperature, mask) for dim in self.dims]
        return torch.stack(losses).mean()

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of the loss."""
        return {"temperature": self.temperature, "dims": list(self.dims)}
