"""What a loss does, on a toy: one query, its positive and one negative, and how hard it pushes at their cosines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor, nn

from embedlab.training.contrastive.graded import GradedLoss, GradedLossName
from embedlab.training.contrastive.train import Guide, RankingLossName, ranking_loss

if TYPE_CHECKING:
    import pandas as pd


def loss_forces(
    names: Iterable[RankingLossName | GradedLossName],
    positive: float,
    negatives: Sequence[float],
    temperature: float = 0.05,
) -> pd.DataFrame:
    """The loss and `dL/dcos` at the positive (negative: it is pulled) and at the negative (positive: it is pushed).

    The three are unit vectors of the plane, the query between the others, so that the cosines are free. The guide of
    `gist` sees the very same cosines; graded losses see the pairs (query, positive, 1) and (query, negative, 0).

    Args:
        names: of losses; `angle`, whose similarity is not a function of the cosine, and `cached`, the same as
            `infonce`, are not for this toy.
        positive: cosine of query and positive, strictly between -1 and 1.
        negatives: cosines of query and negative, likewise.
        temperature: of the losses that have one.

    Returns:
        Columns loss, positive, negative, value, on_positive, on_negative.
    """
    import pandas as pd

    rows = []
    for name in names:
        for negative in negatives:
            cosines = torch.tensor([positive, negative], dtype=torch.float32, requires_grad=True)
            value = _value(name, cosines, temperature)
            pull, push = torch.autograd.grad(value, cosines)[0].tolist()
            numbers = {"value": value.item(), "on_positive": pull, "on_negative": push}
            rows.append({"loss": name, "positive": positive, "negative": negative, **numbers})
    return pd.DataFrame(rows)


def _value(name: str, cosines: Tensor, temperature: float) -> Tensor:
    heights = (1 - cosines**2).sqrt() * torch.tensor([1.0, -1.0])
    query, documents = torch.tensor([[1.0, 0.0]]), torch.stack([cosines, heights], dim=1)
    if name in get_args(GradedLossName):
        loss = GradedLoss(nn.Identity(), torch.tensor([1.0, 0.0]), name, temperature, dims=[2])
        return loss.of_embeddings([query.expand(2, 2), documents], torch.tensor([[0, 1, 0], [0, 2, 1]]))
    seen = torch.cat([query, documents.detach()]).numpy()
    loss = ranking_loss(name, nn.Identity(), temperature, [2], Guide(seen, seen))
    return loss.of_embeddings([query, documents[:1], documents[1:]], torch.tensor([[0, 1, 2]]))
