"""Unsupervised objectives: the texts they are trained on, and rows, loss and collator for the Trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from embedlab.data.dataset import Dataset
from embedlab.data.splits import seeded_order
from embedlab.data.text_analysis import normalise
from embedlab.errors import ModelError
from embedlab.params import TEMPERATURE
from embedlab.training.batches import TokenisedCollator
from embedlab.training.fit import FitSettings
from embedlab.training.losses import ContrastiveLoss
from embedlab.training.pretraining.mlm import MaskedLanguageLoss, MaskingCollator, NoiseCollator, perplexity
from embedlab.training.pretraining.simcse import simcse_rows
from embedlab.training.pretraining.tsdae import DeletionCollator, DenoisingLoss

if TYPE_CHECKING:
    import datasets
    from sentence_transformers import SentenceTransformer

HELD_OUT_SHARE, MAX_HELD_OUT = 0.05, 500

Objective = Literal["mlm", "tsdae", "simcse", "none"]


@dataclass(frozen=True)
class DomainTexts:
    """Unlabelled texts of a domain.

    Attributes:
        training: distinct texts to train on.
        held_out: other texts of the same kind, for measuring.
        removed: documents that were excluded because they equal a dev or test query.
    """

    training: list[str]
    held_out: list[str]
    removed: list[str]


def domain_texts(dataset: Dataset) -> DomainTexts:
    """Collect all documents and training queries as unlabelled texts.

    Documents that answer test queries are included, because in practice the corpus is available from the start. Dev
    and test queries are not included, and neither are documents that equal one (apart from case and punctuation). The
    choice of the held-out texts depends on the texts only.
    """
    excluded = {normalise(text) for split in ("dev", "test") for text in dataset.split_queries(split).values()}
    texts = dict.fromkeys([*dataset.corpus.values(), *dataset.split_queries("train").values()])
    allowed = seeded_order(text for text in texts if normalise(text) not in excluded)
    count = min(MAX_HELD_OUT, math.ceil(HELD_OUT_SHARE * len(allowed)))
    return DomainTexts(allowed[count:], allowed[:count], [text for text in texts if normalise(text) in excluded])


@dataclass(frozen=True)
class PretrainSettings:
    """Settings of pre-training.

    Attributes:
        objective: "mlm" predicts masked words, "tsdae" reconstructs a text from a part of its words, "simcse"
            distinguishes a text from other texts, "none" leaves the model unchanged.
        fit: epochs, batch size, learning rate and other settings of the training loop.
        masking_share: share of words that mlm masks.
        deletion_share: share of words that tsdae deletes.
        whole_words: mask or delete all pieces of a word or none.
        head_learning_rate: learning rate of new parameters (prediction head, decoder), which start untrained.
    """

    objective: Objective
    fit: FitSettings = field(default_factory=FitSettings)
    masking_share: float = 0.15
    deletion_share: float = 0.6
    whole_words: bool = True
    head_learning_rate: float = 1e-3


@dataclass(frozen=True)
class Task:
    """An objective as rows, loss and collator for the Trainer.

    Attributes:
        rows: training rows for the collator.
        loss: the objective, with the model inside.
        collator: turns rows into a batch.
        held_out: creates a collator over other texts, for `perplexity`; None if no words are predicted.
    """

    rows: datasets.Dataset
    loss: nn.Module
    collator: Callable[[list[dict[str, Any]]], dict[str, Any]]
    held_out: Callable[[Sequence[str]], NoiseCollator] | None = None

    def perplexity(self, texts: Sequence[str]) -> float | None:
        """Compute the perplexity on `texts` with the objective's own noise; None if no words are predicted."""
        return perplexity(self.loss, texts, collator=self.held_out(texts)) if self.held_out and texts else None

    @property
    def has_head(self) -> bool:
        """Whether the loss has parameters of its own."""
        return any(not name.startswith("model.") for name, _ in self.loss.named_parameters())


def make_task(model: SentenceTransformer, texts: DomainTexts, settings: PretrainSettings) -> Task:
    """Create rows, loss and collator for the objective of `settings`.

    Args:
        model: the model to train.
        texts: from `domain_texts`.
        settings: the objective; its seed initialises new parameters.

    Raises:
        ModelError: the model does not support the objective.
    """
    _check(model, settings.objective)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.fit.seed)
        task = {"mlm": _mlm, "tsdae": _tsdae, "simcse": _simcse}[settings.objective](model, texts, settings)
    task.loss.to(model.device)
    return task


def _check(model: SentenceTransformer, objective: Objective) -> None:
    remedy = 'Set objective="none", or use a BERT-like model'
    if not hasattr(model[0], "model"):
        problem = f"pre-training needs a transformer, got {type(model[0]).__name__}"
        raise ModelError(problem, remedy=remedy, field="model_name")
    if objective == "mlm" and model.tokenizer.mask_token_id is None:
        raise ModelError("the tokenizer has no mask token, which mlm needs", remedy=remedy, field="model_name")


def _mlm(model: SentenceTransformer, texts: DomainTexts, settings: PretrainSettings) -> Task:
    def collator(subset: Sequence[str], seed: int = 0) -> MaskingCollator:
        return MaskingCollator(
            model, subset, probability=settings.masking_share, whole_words=settings.whole_words, seed=seed
        )

    training = collator(texts.training, settings.fit.seed)
    return Task(_index_rows(texts.training), MaskedLanguageLoss(model), training, collator)


def _tsdae(model: SentenceTransformer, texts: DomainTexts, settings: PretrainSettings) -> Task:
    def collator(subset: Sequence[str], seed: int = 0) -> DeletionCollator:
        return DeletionCollator(
            model, subset, share=settings.deletion_share, whole_words=settings.whole_words, seed=seed
        )

    training, all_texts = collator(texts.training, settings.fit.seed), collator(texts.training + texts.held_out)
    return Task(_index_rows(texts.training), DenoisingLoss(model, all_texts.vocabulary()), training, collator)


def _simcse(model: SentenceTransformer, texts: DomainTexts, settings: PretrainSettings) -> Task:
    rows = simcse_rows(texts.training)
    loss = ContrastiveLoss(model, TEMPERATURE, judged=rows.judged)
    return Task(rows.dataset, loss, TokenisedCollator(model, rows.texts, rows.columns))


def _index_rows(texts: Sequence[str]) -> datasets.Dataset:
    from datasets import Dataset as HFDataset

    return HFDataset.from_dict({"label": list(range(len(texts)))})
