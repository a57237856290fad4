"""Contrastive losses with in-batch negatives, false-negative masks and Matryoshka dimensions.

Compared with the losses of sentence-transformers:

- `ContrastiveLoss` is MultipleNegativesRankingLoss inside MatryoshkaLoss, plus a mask for false negatives;
- `SymmetricLoss` is the same with `directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"`;
- `GuidedLoss` is GISTEmbedLoss with guide embeddings computed once;
- `CachedLoss` is CachedMultipleNegativesRankingLoss (GradCache) around any of them;
- `TripletLoss` calls TripletLoss with cosine distance.

All columns of a batch are encoded in one forward pass (`EmbeddingLoss`), whatever the number of dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from sentence_transformers.base.losses.gradcache import CachedLossMixin
from torch import Tensor, nn

from embedlab.models.packing import embed_columns
from embedlab.params import TEMPERATURE
from embedlab.search.judged import Judged

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

TRIPLET_MARGIN = 0.1  # difference of two cosines
ROWS_PER_FORWARD = 128  # rows of one column per forward pass with GradCache
TOKENS_PER_FORWARD = 1_024  # the same in tokens: about 0.2 GB of activations for a model with 22 M parameters


def false_negative_mask(labels: Tensor, judged: Judged | None = None) -> Tensor:
    """Find the candidates of a batch that must not count as negatives.

    A candidate is masked for a query if it is judged relevant to the query, in this batch or elsewhere in the training
    data, or if it is the query's own text.

    Args:
        labels: int (B, 2 + n), per row the text index of the query, the positive and the n hard negatives.
        judged: text indices of all relevant pairs, see `TrainingRows.judged`; None uses the pairs of the batch only.

    Returns:
        bool (B, B * (1 + n)). The columns are all positives, then all first hard negatives, and so on. A row's own
        positive is never masked.
    """
    queries, candidates = labels[:, 0], labels[:, 1:].T.reshape(-1)
    rows = torch.arange(len(queries), device=labels.device)
    judged = judged or Judged(queries, labels[:, 1])
    mask = judged.mask(queries, candidates) | (queries[:, None] == candidates[None, :])
    mask[rows, rows] = False
    return mask


def guide_mask(queries: Tensor, candidates: Tensor) -> Tensor:
    """Find the candidates that a guide model ranks above the row's own positive.

    `cos(q_i, c_j) > cos(q_i, c_i)` with the guide's embeddings (GISTEmbed, Solatorio 2024).

    Args:
        queries: (B, e) unit vectors of the guide.
        candidates: (B * (1 + n), e) unit vectors of the guide, the positives first.

    Returns:
        bool (B, B * (1 + n)). A row's own positive is never masked.
    """
    scores = queries @ candidates.T
    return scores > scores.diagonal()[:, None]


def info_nce(queries: Tensor, candidates: Tensor, temperature: float, mask: Tensor | None = None) -> Tensor:
    """Compute InfoNCE, which sentence-transformers calls MultipleNegativesRankingLoss.

    The mean over i of `-log exp(cos(q_i, c_i) / t) / sum_j exp(cos(q_i, c_j) / t)`, the sum over all candidates that
    are not masked (van den Oord et al. 2018; Henderson et al. 2017).

    Args:
        queries: (B, d).
        candidates: (B * (1 + n), d), the positives first, in the order of the queries.
        temperature: t > 0; sentence-transformers' `scale` is 1 / t.
        mask: bool (B, B * (1 + n)), True where a candidate does not count as a negative.

    Returns:
        A scalar.
    """
    scores = F.normalize(queries, dim=-1) @ F.normalize(candidates, dim=-1).T / temperature
    if mask is not None:
        scores = scores.masked_fill(mask, float("-inf"))
    return F.cross_entropy(scores, torch.arange(len(queries), device=scores.device))


class EmbeddingLoss(nn.Module):
    """Base class: the mean of a loss over all Matryoshka dimensions, from one encoding of the batch.

    Subclasses define `at_width`, the loss at one dimension. The mean over truncated embeddings is Matryoshka
    representation learning (Kusupati et al. 2022; MatryoshkaLoss in sentence-transformers).

    Args:
        model: the model being trained.
        dims: dimensions to train; None trains the full embedding only.
    """

    def __init__(self, model: SentenceTransformer, dims: Sequence[int] | None = None) -> None:
        super().__init__()
        self.model = model
        self.dims = tuple(dims or (model.get_embedding_dimension(),))

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Encode the columns and compute the loss.

        Args:
            sentence_features: features of each column.
            labels: int (B, columns) text indices, as the subclass needs them.

        Returns:
            A scalar.
        """
        return self.of_embeddings(embed_columns(self.model, list(sentence_features)), labels)

    def of_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Compute the loss from the embeddings (B, d) of each column."""
        targets = self.targets(labels)
        losses = [self.at_width([column[:, :dim] for column in embeddings], targets) for dim in self.dims]
        return torch.stack(losses).mean()

    def targets(self, labels: Tensor | None) -> Tensor | None:
        """Prepare once per batch what `at_width` needs besides the embeddings; here the labels (B, columns)."""
        return labels

    def at_width(self, embeddings: Sequence[Tensor], targets: Tensor | None) -> Tensor:
        """Compute the loss at one dimension from columns truncated to it, (B, dim) each; a scalar."""
        raise NotImplementedError

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings that the model card shows."""
        return {"dims": list(self.dims)}


class ContrastiveLoss(EmbeddingLoss):
    """InfoNCE (MultipleNegativesRankingLoss) with in-batch and hard negatives and masked false negatives.

    The columns are query, positive, hard negatives. Labels are as in `false_negative_mask`; None masks nothing.

    Args:
        model: the model being trained.
        temperature: see `info_nce`.
        dims: dimensions to train; None trains the full embedding only.
        judged: all relevant pairs, see `false_negative_mask`.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        temperature: float = TEMPERATURE,
        dims: Sequence[int] | None = None,
        *,
        judged: Judged | None = None,
    ) -> None:
        super().__init__(model, dims)
        self.temperature, self.judged = temperature, judged

    def targets(self, labels: Tensor | None) -> Tensor | None:
        """Compute the mask of false negatives, bool (B, B * (1 + n)); None without labels."""
        return None if labels is None else false_negative_mask(labels, self.judged)

    def at_width(self, embeddings: Sequence[Tensor], targets: Tensor | None) -> Tensor:
        """Compute InfoNCE from query to documents at one dimension; see `EmbeddingLoss.at_width`."""
        queries, *documents = embeddings
        return info_nce(queries, torch.cat(documents), self.temperature, targets)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings that the model card shows."""
        return {"temperature": self.temperature, **super().get_config_dict()}


class SymmetricLoss(ContrastiveLoss):
    """The mean of InfoNCE in both directions, query to documents and positive to queries (CLIP, Radford et al. 2021).

    Hard negatives are used in the first direction only. False negatives are masked in both.
    """

    def at_width(self, embeddings: Sequence[Tensor], targets: Tensor | None) -> Tensor:
        """Compute the mean of both directions at one dimension; see `EmbeddingLoss.at_width`."""
        queries, positives, *_ = embeddings
        backward = None if targets is None else targets[:, : len(queries)].T
        return (super().at_width(embeddings, targets) + info_nce(positives, queries, self.temperature, backward)) / 2


class GuidedLoss(ContrastiveLoss):
    """InfoNCE that also masks the candidates that a guide model ranks above the positive; see `guide_mask`.

    GISTEmbedLoss of sentence-transformers encodes every batch with the guide. Here the guide has encoded every text
    once. Only query-document pairs are contrasted (`contrast_anchors=False, contrast_positives=False`).

    Args:
        model: the model being trained.
        queries: (N, e) the guide's unit vectors of all texts as queries, by text index.
        documents: (N, e) the guide's unit vectors of all texts as documents.
        temperature: see `info_nce`.
        dims: dimensions to train; None trains the full embedding only.
        judged: all relevant pairs, see `false_negative_mask`.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        queries: np.ndarray,
        documents: np.ndarray,
        temperature: float = TEMPERATURE,
        dims: Sequence[int] | None = None,
        *,
        judged: Judged | None = None,
    ) -> None:
        super().__init__(model, temperature, dims, judged=judged)
        self._queries, self._documents = torch.from_numpy(queries), torch.from_numpy(documents)

    def targets(self, labels: Tensor | None) -> Tensor:
        """Compute the mask of false negatives, from the labels (B, 2 + n) and from the guide: bool (B, B * (1 + n))."""
        assert labels is not None  # the guide's vectors are looked up by text index
        texts = labels.cpu()
        guided = guide_mask(self._queries[texts[:, 0]], self._documents[texts[:, 1:].T.reshape(-1)])
        return false_negative_mask(labels, self.judged) | guided.to(labels.device)


class TripletLoss(EmbeddingLoss):
    """`max(0, cos(q, n) - cos(q, p) + m)` with m = `TRIPLET_MARGIN`, the mean over rows and hard negatives.

    The triplet loss of Hermans et al. 2017, computed by sentence-transformers. Documents of other rows are not used.
    The columns are query, positive and at least one hard negative. Labels are not used.

    Args:
        model: the model being trained.
        dims: dimensions to train; None trains the full embedding only.
    """

    def __init__(self, model: SentenceTransformer, dims: Sequence[int] | None = None) -> None:
        from sentence_transformers.sentence_transformer import losses

        super().__init__(model, dims)
        self._loss = losses.TripletLoss(model, losses.TripletDistanceMetric.COSINE, TRIPLET_MARGIN)

    def at_width(self, embeddings: Sequence[Tensor], targets: Tensor | None) -> Tensor:
        """Compute the mean over the row's hard negatives at one dimension; see `EmbeddingLoss.at_width`."""
        query, positive, *negatives = embeddings
        triplets = ([query, positive, negative] for negative in negatives)
        return torch.stack([self._loss.compute_loss_from_embeddings(triplet, targets) for triplet in triplets]).mean()

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings that the model card shows."""
        return {"margin": TRIPLET_MARGIN, **super().get_config_dict()}


class CachedLoss(CachedLossMixin, nn.Module):
    """GradCache: any `EmbeddingLoss` on a large batch with the memory of a small one (Gao et al. 2021).

    The batch is encoded twice, some rows of a column at a time: first without gradients to get the
    gradient of the loss at every embedding, then with the same dropout to propagate it to the weights. Loss and
    gradient are those of the wrapped loss.

    Args:
        loss: the loss over the whole batch.
        mini_batch_size: rows of one column per forward pass.
        mini_batch_num_tokens: tokens of one column per forward pass instead, which bounds the memory whatever the
            length of the texts; a longer text gets a pass of its own. Static models have no such bound.
    """

    def __init__(
        self, loss: EmbeddingLoss, mini_batch_size: int = ROWS_PER_FORWARD, mini_batch_num_tokens: int | None = None
    ) -> None:
        super().__init__()
        self.model, self.loss = loss.model, loss
        self.mini_batch_size, self.mini_batch_num_tokens = mini_batch_size, mini_batch_num_tokens

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> Tensor:
        """Compute the loss of one batch; arguments as for `EmbeddingLoss.forward`."""
        return self.forward_cached(sentence_features, labels)  # type: ignore[operator] # of the mixin

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """Compute the loss from cached embeddings; `CachedLossMixin` calls this.

        Args:
            reps: per column its mini-batches of embeddings, (rows, d) each.
            labels: as the wrapped loss needs them.
            with_backward: also compute the gradients at the embeddings.
        """
        loss = self.loss.of_embeddings([torch.cat(column) for column in reps], labels)
        if with_backward:
            loss.backward()
        return loss.detach() if with_backward else loss

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings that the model card shows."""
        return {"mini_batch_size": self.mini_batch_size, **self.loss.get_config_dict()}
