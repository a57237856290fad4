"""Train a static query encoder into the space of a frozen document encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from embedlab.errors import DataError
from embedlab.models.static import BagCollator, TokenBags
from embedlab.search.exact import Ranking
from embedlab.search.vectors import encode_split
from embedlab.training.contrastive.static import RandomNegativesLoss, text_indices
from embedlab.training.fit import FitResult, FitSettings, fit

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator

    from embedlab.data.dataset import Dataset
    from embedlab.training.examples import TrainingRows


class FrozenDocumentsLoss(RandomNegativesLoss):
    """`RandomNegativesLoss` whose documents have fixed vectors: only the queries are encoded and trained.

    Args:
        model: the static query encoder.
        vectors: (N, d) unit vectors of all documents.
        text_rows: int (T,), the document of each text index, see `text_indices`; -1 for texts that are none.
        **options: of `RandomNegativesLoss`.
    """

    def __init__(
        self, model: SentenceTransformer, vectors: Tensor, text_rows: Tensor, documents: TokenBags, **options: Any
    ) -> None:
        super().__init__(model, documents, **options)
        self._vectors, self._text_rows = vectors, text_rows

    def _embed(self, columns: list[dict[str, Any]], labels: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        queries: Tensor = self.model(columns[0])["sentence_embedding"]
        batch = self._text_rows[labels[:, 1:].T.reshape(-1)]
        return queries, self._vectors[torch.cat([batch, sample])]


def train_query_encoder(
    static: SentenceTransformer,
    rows: TrainingRows,
    documents: Sequence[str],
    document_vectors: np.ndarray,
    settings: FitSettings,
    *,
    random_negatives: int = 4096,
    evaluator: BaseEvaluator | None = None,
    output_dir: str,
) -> FitResult:
    """Train a static query encoder in place on labelled pairs, against documents whose vectors do not change.

    Args:
        static: a static model in the space of the documents, from `distil_static` with their encoder as teacher.
        rows: (query, positive) rows from `training.examples.number_rows`; every positive is one of `documents`.
        documents: N texts, usually the whole corpus.
        document_vectors: (N, d) their unit vectors.
        settings: how to train; weight decay must be 0.
        random_negatives: documents drawn per step.
        evaluator: dev evaluation of queries against the same documents; it chooses the weights.
        output_dir: scratch folder of the Trainer.

    Raises:
        DataError: the shapes do not match, or a positive is not among the documents.
    """
    expected = (len(documents), static.get_embedding_dimension())
    if document_vectors.shape != expected:
        problem = f"expected document vectors of shape {expected}, got {document_vectors.shape}"
        raise DataError(problem, remedy="Encode exactly these documents with the frozen encoder")
    text_rows = text_indices(documents, rows.texts)
    if missing := int((text_rows.numpy()[rows.labels[:, 1:]] < 0).sum()):
        problem = f"{missing} positives or negatives of the rows are not among the documents"
        raise DataError(problem, remedy="Leave out expert triplets, or add their texts to the documents")
    loss = FrozenDocumentsLoss(
        static,
        torch.from_numpy(np.array(document_vectors, dtype=np.float32)),
        text_rows,
        TokenBags.tokenise(static, documents),
        text_indices=text_indices(rows.texts, documents),
        count=random_negatives,
        seed=settings.seed,
        judged=rows.judged,
    )
    collator = BagCollator(TokenBags.tokenise(static, rows.texts), rows.columns)
    return fit(
        static,
        rows.dataset,
        loss,
        settings,
        collator=collator,
        evaluator=evaluator,
        output_dir=output_dir,
        stage="train query encoder",
    )


def rank_frozen(document_vectors: np.ndarray) -> Callable[[SentenceTransformer, Dataset, str, int], Ranking]:
    """Return a function that ranks a split with a query encoder, for `DevEvaluator(rank=…)`.

    Args:
        document_vectors: (N, d) vectors of the dataset's corpus, in its order; they stay as they are.
    """

    def rank(model: SentenceTransformer, dataset: Dataset, split: str, k: int) -> Ranking:
        return encode_split(model, dataset, split, corpus_vectors=document_vectors).rank(k)

    return rank
