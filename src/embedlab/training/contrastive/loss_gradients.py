"""Gradients of the losses on a toy example: one query, its positive and one negative."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from embedlab.params import TEMPERATURE
from embedlab.training.contrastive.graded import GradedLoss, GradedLossName, is_graded
from embedlab.training.contrastive.train import Guide, RankingLossName, ranking_loss
from embedlab.training.losses import EmbeddingLoss

if TYPE_CHECKING:
    import pandas as pd


def loss_gradients(
    names: Iterable[RankingLossName | GradedLossName],
    positive: float,
    negatives: Sequence[float],
    temperature: float = TEMPERATURE,
) -> pd.DataFrame:
    """Compute each loss and its derivatives with respect to the two cosines.

    Query, positive and negative are unit vectors in the plane, with the query between the other two, so both cosines
    can be chosen freely. The guide of `gist` has the same cosines. Graded losses get the pairs (query, positive, 1)
    and (query, negative, 0).

    Args:
        names: names of losses, except `angle` (its similarity is not a function of the cosine) and `cached` (equal to
            `infonce`).
        positive: cosine of query and positive, strictly between -1 and 1.
        negatives: cosines of query and negative, strictly between -1 and 1.
        temperature: temperature of the losses that have one.

    Returns:
        Columns loss, positive, negative, value, gradient_positive and gradient_negative. Training increases a cosine
        with a negative gradient and decreases one with a positive gradient.
    """
    import pandas as pd

    rows = []
    for name in names:
        for negative in negatives:
            cosines = torch.tensor([positive, negative], dtype=torch.float32, requires_grad=True)
            value = _value(name, cosines, temperature)
            of_positive, of_negative = torch.autograd.grad(value, cosines)[0].tolist()
            gradients = {"gradient_positive": of_positive, "gradient_negative": of_negative}
            rows.append({"loss": name, "positive": positive, "negative": negative, "value": value.item(), **gradients})
    return pd.DataFrame(rows)


def _value(name: RankingLossName | GradedLossName, cosines: Tensor, temperature: float) -> Tensor:
    heights = (1 - cosines**2).sqrt() * torch.tensor([1.0, -1.0])
    query, documents = torch.tensor([[1.0, 0.0]]), torch.stack([cosines, heights], dim=1)
    if is_graded(name):
        graded_loss = GradedLoss(nn.Identity(), torch.tensor([1.0, 0.0]), name, temperature, dims=[2])
        return graded_loss.of_embeddings([query.expand(2, 2), documents], torch.tensor([[0, 1, 0], [0, 2, 1]]))
    guide_vectors = torch.cat([query, documents.detach()]).numpy()
    loss = ranking_loss(name, nn.Identity(), temperature, [2], Guide(guide_vectors, guide_vectors))
    assert isinstance(loss, EmbeddingLoss)  # unlike `cached`
    return loss.of_embeddings([query, documents[:1], documents[1:]], torch.tensor([[0, 1, 2]]))
