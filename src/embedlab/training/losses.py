"""Losses on one encoding per step, at every Matryoshka dimension at once.

A loss here is what it makes of the embeddings of a batch's columns; `EmbeddingLoss` gives it those, all columns encoded
in one forward. What sentence-transformers has, it computes: `TripletLoss` and GradCache are its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sentence_transformers.base.losses.gradcache import CachedLossMixin
from torch import Tensor, nn

from embedlab.models.packing import embed_columns

TRIPLET_MARGIN = 0.1  # in cosine
ROWS_PER_FORWARD = 128  # of one column, under GradCache


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


def guide_mask(queries: Tensor, candidates: Tensor, margin: float = 0.0) -> Tensor:
    """Which candidates a guide model takes for better answers than the row's own positive.

    `cos(q_i, c_j) > cos(q_i, c_i) - margin`, all by the guide: GISTEmbed, Solatorio 2024.

    Args:
        queries: (B, e) unit vectors of the guide.
        candidates: (B * (1 + n), e) unit vectors of the guide, the positives first.
        margin: masks those that come this close below the positive, too.

    Returns:
        bool (B, B * (1 + n)); a row's own positive is never masked.
    """
    scores = queries @ candidates.T
    mask = scores > scores.diagonal()[:, None] - margin
    mask.fill_diagonal_(False)
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


class EmbeddingLoss(nn.Module):
    """A loss on the embeddings of a batch's columns: the mean over Matryoshka dimensions of what `at_width` says.

    The mean over truncations is Matryoshka representation learning (Kusupati et al. 2022): every prefix of the
    embedding is trained on its own. All columns are encoded in one forward and every dimension is cut from it.

    Args:
        model: the model being trained.
        dims: dimensions to train; None trains the full embedding only.
    """

    def __init__(self, model: nn.Module, dims: Sequence[int] | None = None) -> None:
        super().__init__()
        self.model = model
        self.dims = tuple(dims or (model.get_embedding_dimension(),))

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Loss of one batch of columns; what `labels` must be, the subclass says."""
        return self.of_embeddings(embed_columns(self.model, list(sentence_features)), labels)

    def of_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Loss of columns that are encoded already, (B, d) each."""
        targets = self.targets(labels)
        losses = [self.at_width([column[:, :dim] for column in embeddings], targets) for dim in self.dims]
        return torch.stack(losses).mean()

    def targets(self, labels: Tensor | None) -> Tensor | None:
        """What `at_width` needs beside the embeddings, made once a batch."""
        return labels

    def at_width(self, embeddings: Sequence[Tensor], targets: Tensor | None) -> Tensor:
        """Loss of columns cut to one dimension."""
        raise NotImplementedError

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of the loss."""
        return {"dims": list(self.dims)}


class ContrastiveLoss(EmbeddingLoss):
    """InfoNCE with in-batch and hard negatives, false negatives masked.

    The columns are query, positive, hard negatives; labels as in `false_negative_mask`, None masks nothing.

    Args:
        model: the model being trained.
        temperature: see `info_nce`.
        dims: dimensions to train; None trains the full embedding only.
    """

    def __init__(self, model: nn.Module, temperature: float = 0.05, dims: Sequence[int] | None = None) -> None:
        super().__init__(model, dims)
        self.temperature = temperature

    def targets(self, labels: Tensor | None) -> Tensor | None:
        """The mask of false negatives."""
        return None if labels is None else false_negative_mask(labels)

    def at_width(self, embeddings: Sequence[Tensor], targets: Tensor | None) -> Tensor:
        """InfoNCE from query to documents."""
        queries, *documents = embeddings
        return info_nce(queries, torch.cat(documents), self.temperature, targets)

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of the loss."""
        return {"temperature": self.temperature, **super().get_config_dict()}


class SymmetricLoss(ContrastiveLoss):
    """Both directions: a query picks its document, and a positive picks its query among the queries of the batch.

    The mean of the two; hard negatives take part in the first alone (CLIP, Radford et al. 2021). Two queries of one
    document, and two rows of one query, are masked in both.
    """

    def at_width(self, embeddings: Sequence[Tensor], targets: Tensor | None) -> Tensor:
        """Mean of InfoNCE from query to documents and from positive to queries."""
        queries, positives, *_ = embeddings
        backward = None if targets is None else targets[:, : len(queries)].T
        return (super().at_width(embeddings, targets) + info_nce(positives, queries, self.temperature, backward)) / 2


class GuidedLoss(ContrastiveLoss):
    """InfoNCE in which a guide model, too, says who is no negative: see `guide_mask`.

    sentence-transformers' `GISTEmbedLoss` encodes every batch with the guide; here the guide has encoded every text
    once, and only positives and hard negatives are contrasted (its `contrast_anchors` and `contrast_positives` off).

    Args:
        model: the model being trained.
        queries: (N, e) the guide's unit vector of every text as a query, by the text numbers in the labels.
        documents: (N, e) the same as documents; the same array where the guide has no prompts.
        temperature, dims: as for `ContrastiveLoss`.
        margin: see `guide_mask`.
    """

    def __init__(
        self,
        model: nn.Module,
        queries: np.ndarray,
        documents: np.ndarray,
        temperature: float = 0.05,
        dims: Sequence[int] | None = None,
        *,
        margin: float = 0.0,
    ) -> None:
        super().__init__(model, temperature, dims)
        self.margin = margin
        self._queries, self._documents = torch.from_numpy(queries), torch.from_numpy(documents)

    def targets(self, labels: Tensor) -> Tensor:
        """False negatives by the labels or by the guide."""
        numbers = labels.cpu()
        guided = guide_mask(self._queries[numbers[:, 0]], self._documents[numbers[:, 1:].T.reshape(-1)], self.margin)
        return super().targets(labels) | guided.to(labels.device)

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of the loss."""
        return {"guide_margin": self.margin, **super().get_config_dict()}


class TripletLoss(EmbeddingLoss):
    """`max(0, cos(q, n) - cos(q, p) + margin)`, the mean over rows and their hard negatives; no other row takes part.

    Hermans et al. 2017, computed by sentence-transformers. The columns are query, positive and at least one hard
    negative; labels are not used.

    Args:
        model: the model being trained.
        margin: how much nearer the positive should be, in cosine.
        dims: dimensions to train; None trains the full embedding only.
    """

    def __init__(self, model: nn.Module, margin: float = TRIPLET_MARGIN, dims: Sequence[int] | None = None) -> None:
        from sentence_transformers.sentence_transformer import losses

        super().__init__(model, dims)
        self._loss = losses.TripletLoss(model, losses.TripletDistanceMetric.COSINE, margin)

    def at_width(self, embeddings: Sequence[Tensor], targets: Tensor | None) -> Tensor:
        """Mean over the row's negatives."""
        query, positive, *negatives = embeddings
        triplets = ([query, positive, negative] for negative in negatives)
        return torch.stack([self._loss.compute_loss_from_embeddings(triplet, targets) for triplet in triplets]).mean()

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of the loss."""
        return {"margin": self._loss.triplet_margin, **super().get_config_dict()}


class CachedLoss(CachedLossMixin, nn.Module):
    """Any `EmbeddingLoss` on a large batch in the memory of a small one: GradCache, Gao et al. 2021.

    The batch is encoded twice, `mini_batch_size` rows of a column at a time: first without gradients, to get the loss's
    gradient at every embedding, then with the same dropout to take it on to the weights. Same loss, same gradient.

    Args:
        loss: what to compute over the whole batch.
        mini_batch_size: rows of one column per forward.
    """

    def __init__(self, loss: EmbeddingLoss, mini_batch_size: int = ROWS_PER_FORWARD) -> None:
        super().__init__()
        self.model, self.loss, self.mini_batch_size = loss.model, loss, mini_batch_size

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Loss of one batch; labels as the wrapped loss takes them."""
        return self.forward_cached(sentence_features, labels)

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """Loss of the embeddings (mini-batches by column), with its gradient left on them where asked for."""
        loss = self.loss.of_embeddings([torch.cat(column) for column in reps], labels)
        if with_backward:
            loss.backward()
        return loss.detach() if with_backward else loss

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of the loss."""
        return {"mini_batch_size": self.mini_batch_size, **self.loss.get_config_dict()}
