"""Unsupervised objectives: the texts they are trained on, and rows, loss and collator for the Trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import nn

from embedlab.data.dataset import Dataset
from embedlab.data.splits import seeded_order
from embedlab.data.text_analysis import normalise
from embedlab.errors import ModelError
from embedlab.models.packing import on_device, without_gradients
from embedlab.models.sides import is_routed
from embedlab.models.tokens import to_features, token_ids
from embedlab.params import TEMPERATURE
from embedlab.training.batches import TokenisedCollator
from embedlab.training.fit import FitSettings
from embedlab.training.losses import ContrastiveLoss
from embedlab.training.pretraining.causal import PROBE, NextTokenCollator, NextTokenLoss, is_causal
from embedlab.training.pretraining.mlm import MaskedLanguageLoss, MaskingCollator, NoiseCollator, perplexity
from embedlab.training.pretraining.simcse import simcse_rows
from embedlab.training.pretraining.tsdae import DeletionCollator, DenoisingLoss, unsuitable_dimensions

if TYPE_CHECKING:
    import datasets
    from sentence_transformers import SentenceTransformer

HELD_OUT_SHARE, MAX_HELD_OUT = 0.05, 500

Objective = Literal["mlm", "causal", "tsdae", "simcse", "none"]


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
        objective: "mlm" predicts masked words, "causal" the next token (for decoders), "tsdae" reconstructs a text
            from a part of its words, "simcse" distinguishes a text from other texts, "none" leaves the model unchanged.
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
    check_objective(model, settings.objective)
    make = {"mlm": _mlm, "causal": _causal, "tsdae": _tsdae, "simcse": _simcse}[settings.objective]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.fit.seed)
        task = make(model, texts, settings)
    task.loss.to(model.device)
    return task


def check_objective(model: SentenceTransformer, objective: Objective) -> None:
    """Check that a model can be trained with an objective, before any time is spent.

    Args:
        model: the model to train.
        objective: see `PretrainSettings`.

    Raises:
        ModelError: it cannot; the error names the objectives that the model supports.
    """
    if problem := _problem(model, objective):
        suitable = [name for name in get_args(Objective) if name != objective and not _problem(model, name)]
        remedy = f"Set objective={' or '.join(suitable)}"
        raise ModelError(f"pre-training with {objective} {problem}", remedy=remedy, field="objective")


def _problem(model: SentenceTransformer, objective: Objective) -> str | None:
    """Return why an objective does not suit a model, in words that follow the objective's name."""
    if objective == "none":
        return None
    if is_routed(model):
        return "needs one encoder for all texts, but queries and documents of this model have their own (Router)"
    network = getattr(model[0], "model", None)
    if not hasattr(network, "get_input_embeddings"):
        return f"needs a transformer with token embeddings, got {type(network or model[0]).__name__}"
    reasons = {"mlm": _no_mask, "causal": _sees_ahead, "tsdae": unsuitable_dimensions, "simcse": _no_dropout}
    return reasons[objective](model)


def _no_mask(model: SentenceTransformer) -> str | None:
    return "needs a mask token, and the tokenizer has none" if model.tokenizer.mask_token_id is None else None


def _sees_ahead(model: SentenceTransformer) -> str | None:
    return None if is_causal(model) else "needs causal attention, but every token of this model sees the next one"


def _no_dropout(model: SentenceTransformer) -> str | None:
    """SimCSE's two views of a text differ by dropout alone; most models since 2023 have none."""
    with torch.random.fork_rng(devices=[]), without_gradients(model, training=True):
        features = on_device(to_features(model, list(token_ids(model, [PROBE])) * 2), model.device)
        first, second = model(features)["sentence_embedding"]
    return "needs dropout, and this model has none" if torch.allclose(first, second, atol=1e-5) else None


def _mlm(model: SentenceTransformer, texts: DomainTexts, settings: PretrainSettings) -> Task:
    def collator(subset: Sequence[str], seed: int = 0) -> MaskingCollator:
        return MaskingCollator(
            model, subset, probability=settings.masking_share, whole_words=settings.whole_words, seed=seed
        )

    training = collator(texts.training, settings.fit.seed)
    return Task(_index_rows(texts.training), MaskedLanguageLoss(model), training, collator)


def _causal(model: SentenceTransformer, texts: DomainTexts, settings: PretrainSettings) -> Task:
    def collator(subset: Sequence[str], seed: int = 0) -> NextTokenCollator:
        return NextTokenCollator(model, subset, seed=seed)

    return Task(_index_rows(texts.training), NextTokenLoss(model), collator(texts.training), collator)


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
