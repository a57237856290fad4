"""What there is to learn from text alone: which texts, and the objectives made ready for the Trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from embedlab.data.dataset import Dataset
from embedlab.data.overlap import normalise
from embedlab.data.splits import seeded_order
from embedlab.errors import ModelError
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
    """Unlabelled text.

    Attributes:
        training: texts to train on, each once.
        held_out: other texts of the same kind, to measure on.
        removed: documents left out because they read like a dev or test query.
    """

    training: list[str]
    held_out: list[str]
    removed: list[str]


def domain_texts(dataset: Dataset) -> DomainTexts:
    """All documents and the training queries, without who answers whom.

    The documents that answer test queries are among them, as they would be at work; the test queries are not, and
    neither is a document that reads like one (equal but for case and punctuation). Which texts are held out depends
    on the texts alone.
    """
    secret = {normalise(text) for split in ("dev", "test") for text in dataset.split_queries(split).values()}
    texts = dict.fromkeys([*dataset.corpus.values(), *dataset.split_queries("train").values()])
    allowed = seeded_order(text for text in texts if normalise(text) not in secret)
    count = min(MAX_HELD_OUT, math.ceil(HELD_OUT_SHARE * len(allowed)))
    return DomainTexts(allowed[count:], allowed[:count], [text for text in texts if normalise(text) in secret])


@dataclass(frozen=True)
class PretrainSettings:
    """What to pre-train on and how.

    Attributes:
        objective: "mlm" predicts hidden words, "tsdae" rebuilds a text from what is left of it, "simcse" tells a text
            from others, "none" leaves the model as it is.
        fit: epochs, batch size, learning rate and the rest.
        masking_share: of the words that mlm hides.
        deletion_share: of the words that tsdae deletes.
        whole_words: all pieces of a word share its fate.
        head_learning_rate: of what is new beside the model, which starts from nothing and must catch up.
        temperature: of simcse.
        checkpoint_steps: steps between checkpoints; 0 keeps none.
    """

    objective: Objective
    fit: FitSettings = field(default_factory=FitSettings)
    masking_share: float = 0.15
    deletion_share: float = 0.6
    whole_words: bool = True
    head_learning_rate: float = 1e-3
    temperature: float = 0.05
    checkpoint_steps: int = 0


@dataclass(frozen=True)
class Task:
    """An objective made ready for the Trainer.

    Attributes:
        rows: what the collator takes.
        loss: the objective, with the model inside.
        collator: rows to a batch.
        held_out: gives a fresh collator over other texts, for `perplexity`; None where no words are predicted.
    """

    rows: datasets.Dataset
    loss: nn.Module
    collator: Callable[[list[dict[str, Any]]], dict[str, Any]]
    held_out: Callable[[Sequence[str]], NoiseCollator] | None = None

    def perplexity(self, texts: Sequence[str]) -> float | None:
        """On held-out texts, with the objective's own noise; None where no words are predicted."""
        return perplexity(self.loss, texts, collator=self.held_out(texts)) if self.held_out and texts else None

    def head(self) -> dict[str, torch.Tensor]:
        """What the loss learns beside the model."""
        return {name: value for name, value in self.loss.state_dict().items() if not name.startswith("model.")}


def make_task(model: SentenceTransformer, texts: DomainTexts, settings: PretrainSettings) -> Task:
    """The objective of `settings` on `texts`; new weights are drawn from the seed.

    Raises:
        ModelError: the model cannot be trained this way.
    """
    _check(model, settings.objective)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.fit.seed)
        task = {"mlm": _mlm, "tsdae": _tsdae, "simcse": _simcse}[settings.objective](model, texts, settings)
    task.loss.to(model.device)
    return task


def _check(model: SentenceTransformer, objective: Objective) -> None:
    remedy = 'Choose objective "none", or a BERT-like model'
    if not hasattr(model[0], "model"):
        raise ModelError(f"{type(model[0]).__name__} is no transformer to pre-train", remedy=remedy, field="model_name")
    if objective == "mlm" and model.tokenizer.mask_token_id is None:
        raise ModelError("the tokenizer has no mask to hide words with", remedy=remedy, field="model_name")


def _mlm(model: SentenceTransformer, texts: DomainTexts, settings: PretrainSettings) -> Task:
    def collator(part: Sequence[str], seed: int = 0) -> MaskingCollator:
        return MaskingCollator(
            model, part, probability=settings.masking_share, whole_words=settings.whole_words, seed=seed
        )

    training = collator(texts.training, settings.fit.seed)
    return Task(_numbers(texts.training), MaskedLanguageLoss(model), training, collator)


def _tsdae(model: SentenceTransformer, texts: DomainTexts, settings: PretrainSettings) -> Task:
    def collator(part: Sequence[str], seed: int = 0) -> DeletionCollator:
        return DeletionCollator(model, part, share=settings.deletion_share, whole_words=settings.whole_words, seed=seed)

    training, everything = collator(texts.training, settings.fit.seed), collator(texts.training + texts.held_out)
    return Task(_numbers(texts.training), DenoisingLoss(model, everything.vocabulary()), training, collator)


def _simcse(model: SentenceTransformer, texts: DomainTexts, settings: PretrainSettings) -> Task:
    rows = simcse_rows(texts.training)
    loss = ContrastiveLoss(model, settings.temperature)
    return Task(rows.dataset, loss, TokenisedCollator(model, rows.texts, rows.columns))


def _numbers(texts: Sequence[str]) -> datasets.Dataset:
    from datasets import Dataset as HFDataset

    return HFDataset.from_dict({"label": list(range(len(texts)))})
