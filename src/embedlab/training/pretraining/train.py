"""Unsupervised training on the texts of a domain, before any pair is seen.

A sweep over the size of the fine-tune behind it needs the same pre-trained model again and again. The result is
therefore kept under everything it depends on, and made once.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field

import embedlab
from embedlab.io import atomic_path, locked
from embedlab.models.fingerprint import model_fingerprint
from embedlab.params import CountOrNone, PositiveFloat, Share, TrainingParams
from embedlab.paths import cache_dir
from embedlab.training.fit import FitResult, FitSettings
from embedlab.training.pretraining.checkpoints import fit_resumable
from embedlab.training.pretraining.objectives import DomainTexts, Objective, PretrainSettings, make_task

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DONE = "done.pt"

# What turns texts into weights: a change in one of these files makes a kept result stale.
CODE = (
    "models/packing",
    "models/tokens",
    "training/batches",
    "training/examples",
    "training/fit",
    "training/losses",
    "training/pretraining/mlm",
    "training/pretraining/checkpoints",
    "training/pretraining/objectives",
    "training/pretraining/simcse",
    "training/pretraining/tsdae",
)


class PretrainingParams(TrainingParams):
    """Parameters of pre-training and the fine-tune behind it; a notebook may leave out those it does not teach."""

    objective: Objective
    pretrain_epochs: PositiveFloat
    pretrain_learning_rate: PositiveFloat
    masking_share: Share = 0.15
    deletion_share: Share = 0.6
    whole_words: bool = True
    pretrain_batch_size: Annotated[int, Field(ge=2)] = 64  # a batch of one has no negatives
    head_learning_rate: PositiveFloat = 1e-3
    checkpoint_steps: CountOrNone = 500
    fine_tune_pairs: CountOrNone
    fine_tune_epochs: PositiveFloat
    fine_tune_learning_rate: PositiveFloat
    fine_tune_batch_size: Annotated[int, Field(ge=2)] = 64  # a batch of one has no negatives

    def pretrain_settings(self) -> PretrainSettings:
        """How to pre-train."""
        common = {name: getattr(self, name) for name in ("objective", "masking_share", "deletion_share", "whole_words")}
        fit = self._fit(self.pretrain_epochs, self.pretrain_batch_size, self.pretrain_learning_rate)
        return PretrainSettings(
            fit=fit, head_learning_rate=self.head_learning_rate, checkpoint_steps=self.checkpoint_steps, **common
        )

    def fine_tune_settings(self) -> FitSettings:
        """How to fine-tune."""
        return self._fit(self.fine_tune_epochs, self.fine_tune_batch_size, self.fine_tune_learning_rate)

    def _fit(self, epochs: float, batch_size: int, learning_rate: float) -> FitSettings:
        return FitSettings(
            epochs=epochs,
            max_steps=self.max_steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=self.seed,
        )


@dataclass(frozen=True)
class PretrainResult:
    """What pre-training leaves beside the weights.

    Attributes:
        fit: its course; None for objective "none".
        before, after: perplexity on the held-out texts; None where the objective predicts no words. Values of
            different objectives do not compare.
    """

    fit: FitResult | None = None
    before: float | None = None
    after: float | None = None

    @property
    def history(self) -> list[dict[str, float]]:
        """Rows of step, seconds, loss and learning_rate."""
        return self.fit.history if self.fit else []

    @property
    def seconds(self) -> float:
        """What the training took when it was made; reading it back takes none."""
        return self.fit.seconds if self.fit else 0.0


def pretrain(
    model: SentenceTransformer,
    texts: DomainTexts,
    settings: PretrainSettings,
    *,
    cache: Path | None = None,
    stage: str = "pretrain",
) -> PretrainResult:
    """Train `model` in place on unlabelled text.

    What was trained before, from the same model on the same texts with the same settings, code and packages, is read
    back; what was killed goes on from its last checkpoint; of several processes that want the same, one trains.

    Args:
        model: the model to train; its pooling stays as it is.
        texts: from `domain_texts`.
        settings: what and how.
        cache: where results and checkpoints lie; `paths.cache_dir()/pretrained` when not given.
        stage: what progress reports call this.
    """
    if settings.objective == "none":
        return PretrainResult()
    folder = (cache or cache_dir() / "pretrained") / _identity(model, texts, settings)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        if not (folder / DONE).exists():
            _save(_pretrain(model, texts, settings, folder, stage), model, folder / DONE)
        return _load(model, folder / DONE)


def _pretrain(
    model: SentenceTransformer, texts: DomainTexts, settings: PretrainSettings, folder: Path, stage: str
) -> PretrainResult:
    task = make_task(model, texts, settings)
    before = task.perplexity(texts.held_out)
    result = fit_resumable(
        model,
        task,
        settings.fit,
        head_learning_rate=settings.head_learning_rate,
        checkpoint_steps=settings.checkpoint_steps,
        folder=folder,
        stage=stage,
    )
    return PretrainResult(result, before, task.perplexity(texts.held_out))


def _save(result: PretrainResult, model: SentenceTransformer, path: Path) -> None:
    with atomic_path(path) as temporary:
        torch.save({"weights": model.state_dict(), **asdict(result)}, temporary)


def _load(model: SentenceTransformer, path: Path) -> PretrainResult:
    saved = torch.load(path, map_location=model.device, weights_only=True)
    model.load_state_dict(saved["weights"], strict=True)
    return PretrainResult(FitResult(**saved["fit"]), saved["before"], saved["after"])


def _identity(model: SentenceTransformer, texts: DomainTexts, settings: PretrainSettings) -> str:
    """16 hex digits over all that the weights depend on; how often they are saved on the way is not part of it."""
    content = {
        "model": model_fingerprint(model),
        "texts": [texts.training, texts.held_out],
        "settings": asdict(replace(settings, checkpoint_steps=0)),
        "code": [(Path(embedlab.__file__).parent / f"{name}.py").read_text(encoding="utf-8") for name in CODE],
        "packages": [metadata.version(name) for name in ("torch", "transformers", "sentence-transformers")],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
