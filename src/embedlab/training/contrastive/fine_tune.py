"""A contrastive fine-tune from its parameters: mine hard negatives, build rows, train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from embedlab.data.dataset import Dataset
from embedlab.data.icd10cm import code_similarity
from embedlab.models.cache import EmbeddingCache
from embedlab.search.vectors import Vectors, encode_split
from embedlab.training.contrastive.ance import with_texts
from embedlab.training.contrastive.graded import by_text, graded_rows, is_graded, train_graded
from embedlab.training.contrastive.mining import MiningReport, Negatives
from embedlab.training.contrastive.negative_sources import Rankers, mine_sources
from embedlab.training.contrastive.train import ContrastiveParams, as_guide, train_contrastive
from embedlab.training.examples import Row, TrainingRows, contrastive_rows, number_rows, own_texts
from embedlab.training.fit import FitResult

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator


def mine_negatives(
    dataset: Dataset, params: ContrastiveParams, base: Vectors, current: Vectors | None = None
) -> tuple[Negatives, dict[str, MiningReport]]:
    """Mine hard negatives from the sources that `params.negatives` lists.

    Args:
        dataset: its training pairs are used.
        params: sources, hard negatives per pair, margins and ranks.
        base: training queries and corpus under the base model.
        current: training queries and corpus under the model being trained, for the source `self`.

    Returns:
        (query id, positive id) -> hard negative ids, and source -> report.
    """
    return mine_sources(dataset, params.negatives, Rankers.of(dataset, base, current), **params.mining())


def build_rows(dataset: Dataset, params: ContrastiveParams, negatives: Negatives | None = None) -> list[Row]:
    """Build (query, positive, hard negatives) rows of text from the training pairs and expert triplets.

    Args:
        dataset: its training pairs and triplets are used.
        params: hard negatives per row, whether to use triplets, and the seed.
        negatives: from `mine_negatives`.
    """
    return contrastive_rows(
        dataset,
        negatives,
        hard_negatives=params.hard_negatives,
        use_triplets=params.use_triplets,
        seed=params.seed,
    )


def pair_rows(dataset: Dataset) -> TrainingRows:
    """Build (query, positive) rows from the training pairs, for training with in-batch negatives only."""
    rows = contrastive_rows(dataset, hard_negatives=0, use_triplets=False)
    return number_rows(rows, own_texts(dataset))


def fine_tune(
    model: SentenceTransformer,
    dataset: Dataset,
    params: ContrastiveParams,
    rows: Sequence[Row],
    *,
    base: Vectors,
    evaluator: BaseEvaluator | None = None,
    output_dir: str,
) -> FitResult:
    """Fine-tune `model` in place with the loss and the settings of `params`; see `train_contrastive`.

    With the source `self`, hard negatives are mined again before every epoch. With the loss `gist`, the model before
    training is the guide. Losses on graded pairs turn the rows into graded pairs; on ICD-10-CM the grade of a negative
    is its similarity to the positive in the code tree.

    Args:
        model: the model to train, with an adapter if you want to train one.
        dataset: the dataset of the rows.
        params: loss, temperature, dimensions and training settings.
        rows: from `build_rows`.
        base: training queries and corpus under the base model.
        evaluator: computes the dev value (larger is better); its `primary_metric` chooses the weights.
        output_dir: scratch folder of the Trainer.

    Returns:
        History, best dev value and its step.
    """
    options: dict[str, Any] = {
        "temperature": params.temperature,
        "dims": params.dims(model),
        "evaluator": evaluator,
        "output_dir": output_dir,
    }
    if is_graded(params.loss):
        similarity = by_text(dataset.corpus, code_similarity) if params.dataset.startswith("icd10cm") else None
        graded = graded_rows(dataset, rows, similarity)
        return train_graded(model, graded, params.fit_settings(), loss=params.loss, **options)

    def renewed_rows() -> list[Row]:
        negatives, _ = mine_negatives(dataset, params, base, current=encode_split(model, dataset, "train"))
        return build_rows(dataset, params, negatives)

    numbered, renews = number_rows(rows, own_texts(dataset)), "self" in params.negatives
    if renews:
        numbered = with_texts(numbered, dataset.corpus.values())
    guide = as_guide(model, numbered.texts, EmbeddingCache().encode) if params.loss == "gist" else None
    renew = renewed_rows if renews else None
    return train_contrastive(
        model, numbered, params.fit_settings(), loss=params.loss, guide=guide, renew=renew, **options
    )
