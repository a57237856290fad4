"""Train a static model with thousands of random documents as negatives, which cost no transformer forward pass.

The gradient of the token embeddings is dense: thousands of documents touch many rows in every step, and a sparse
gradient was slower (48 ms instead of 40 ms for 4,096 short texts on one core).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from embedlab.models.static import BagCollator, TokenBags
from embedlab.params import TEMPERATURE
from embedlab.search.judged import Judged
from embedlab.training.fit import FitResult, FitSettings, fit
from embedlab.training.losses import false_negative_mask, info_nce

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator

    from embedlab.training.examples import TrainingRows


class RandomNegativesLoss(nn.Module):
    """InfoNCE with in-batch negatives and random documents, which all queries of the batch share.

    Args:
        model: the static model being trained.
        documents: all N documents.
        text_indices: int (N,), the text index of each document as in the rows' labels; -1 if it is in no row.
        count: random documents per step.
        temperature: see `info_nce`.
        dims: Matryoshka dimensions, whose losses are averaged; None trains the full embedding only.
        seed: seed of the random documents.
        judged: all relevant pairs, which never count as negatives; None uses the pairs of the batch only.
    """

    def __init__(
        self,
        model: nn.Module,
        documents: TokenBags,
        text_indices: Tensor,
        *,
        count: int,
        temperature: float = TEMPERATURE,
        dims: Sequence[int] | None = None,
        seed: int = 0,
        judged: Judged | None = None,
    ) -> None:
        super().__init__()
        self.model, self.temperature, self.count, self.judged = model, temperature, count, judged
        self.dims = tuple(dims or (None,))
        self._documents, self._text_indices = documents, text_indices
        self._random = torch.Generator().manual_seed(seed)

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor) -> Tensor:
        """Compute the loss of one batch, a scalar.

        Args:
            sentence_features: features of the columns query, positive, hard negatives.
            labels: int (B, 2 + n) text indices, see `false_negative_mask`.
        """
        sample = torch.randint(len(self._documents), (self.count,), generator=self._random)
        queries, candidates = self._embed(list(sentence_features), labels, sample)
        mask = self._mask(labels, self._text_indices[sample])
        losses = [info_nce(queries[:, :dim], candidates[:, :dim], self.temperature, mask) for dim in self.dims]
        return torch.stack(losses).mean()

    def _embed(self, columns: list[dict[str, Any]], labels: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Return the queries (B, d), and the documents of the batch and of the sample (C + count, d)."""
        queries, *documents = [self.model(column)["sentence_embedding"] for column in columns]
        documents.append(self.model(self._documents.features(sample))["sentence_embedding"])
        return queries, torch.cat(documents)

    def _mask(self, labels: Tensor, sample: Tensor) -> Tensor:
        """Find the candidates of the batch and the random documents that are judged relevant: bool (B, C + count)."""
        judged, queries = self.judged or Judged(labels[:, 0], labels[:, 1]), labels[:, 0]
        sample_mask = judged.mask(queries, sample) | (queries[:, None] == sample[None, :])
        return torch.cat([false_negative_mask(labels, judged), sample_mask], dim=1)

    def training_state(self, batches: int) -> dict[str, Any]:
        """Return the state of the random draws after the batches used so far, for a checkpoint."""
        return {"random": self._random.get_state()}

    def restore_training_state(self, state: dict[str, Any]) -> None:
        """Continue the random draws of `training_state`."""
        self._random.set_state(state["random"])

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings that the model card shows."""
        return {"temperature": self.temperature, "random_negatives": self.count, "dims": list(self.dims)}


def train_static(
    model: SentenceTransformer,
    rows: TrainingRows,
    documents: Sequence[str],
    settings: FitSettings,
    *,
    random_negatives: int = 4096,
    dims: Sequence[int] | None = None,
    evaluator: BaseEvaluator | None = None,
    output_dir: str,
) -> FitResult:
    """Train a static model in place with a contrastive loss and random documents as negatives.

    Args:
        model: from `models.static.static_student`, best after distillation.
        rows: from `training.examples.number_rows`.
        documents: texts from which random negatives are drawn, usually the whole corpus.
        settings: training settings. Set weight_decay=0: decay would shrink the embeddings of all tokens that a batch
            does not contain.
        random_negatives: random documents per step.
        dims: Matryoshka dimensions; larger ones than the model has count as its full dimension. None trains the full
            embedding only.
        evaluator: computes the dev value (larger is better); its `primary_metric` chooses the weights.
        output_dir: scratch folder of the Trainer.

    Returns:
        History, best dev value and its step.
    """
    width = model.get_embedding_dimension()
    loss = RandomNegativesLoss(
        model,
        TokenBags.tokenise(model, documents),
        text_indices(rows.texts, documents),
        count=random_negatives,
        dims=[*dict.fromkeys(min(dim, width) for dim in dims or (width,))],
        seed=settings.seed,
        judged=rows.judged,
    )
    collator = BagCollator(TokenBags.tokenise(model, rows.texts), rows.columns)
    return fit(
        model,
        rows.dataset,
        loss,
        settings,
        collator=collator,
        evaluator=evaluator,
        output_dir=output_dir,
        stage="train static",
    )


def text_indices(texts: Sequence[str], documents: Sequence[str]) -> Tensor:
    """Return the index of each document in `texts`, int (N,); -1 for documents that are not among them."""
    index: Mapping[str, int] = {text: i for i, text in enumerate(texts)}
    return torch.tensor([index.get(document, -1) for document in documents])
