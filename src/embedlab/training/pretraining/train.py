"""Pre-training on unlabelled texts of a domain, before the fine-tune on pairs.

A sweep over the number of pairs needs the same pre-trained model many times. The result is therefore cached under a
hash of everything it depends on, and computed once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field

import embedlab
from embedlab.io import atomic_path, locked, sha256_of_json
from embedlab.models.fingerprint import model_fingerprint
from embedlab.params import CountOrNone, PositiveFloat, Share, TrainingParams
from embedlab.paths import cache_dir
from embedlab.training.engine import prepare
from embedlab.training.fit import FitResult, FitSettings, fit
from embedlab.training.pretraining.objectives import DomainTexts, Objective, PretrainSettings, make_task

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DONE = "done.pt"
HEAD = r"^(?!model\.)"  # parameters of the loss that are not parameters of the model

# Files that determine the weights: a change in one of them invalidates a cached result.
CODE = (
    "models/packed_attention",
    "models/packed_layers",
    "models/packing",
    "models/tokens",
    "engine",
    "training/batches",
    "training/checkpoints",
    "training/engine",
    "training/examples",
    "training/fit",
    "training/group",
    "training/losses",
    "training/pretraining/causal",
    "training/pretraining/mlm",
    "training/pretraining/objectives",
    "training/pretraining/simcse",
    "training/pretraining/tsdae",
    "training/trainer",
)


class PretrainingParams(TrainingParams):
    """Parameters of pre-training and of the fine-tune after it. A notebook can omit those with a default.

    Attributes:
        objective: see `PretrainSettings`.
        pretrain_epochs: passes over the texts.
        pretrain_learning_rate: peak learning rate of pre-training.
        masking_share: see `PretrainSettings`.
        deletion_share: see `PretrainSettings`.
        whole_words: see `PretrainSettings`.
        pretrain_batch_size: texts per step.
        head_learning_rate: see `PretrainSettings`.
        fine_tune_pairs: training queries whose pairs are used; 0 uses all.
        fine_tune_epochs: passes over the pairs.
        fine_tune_learning_rate: peak learning rate of the fine-tune.
        fine_tune_batch_size: pairs per step.
    """

    objective: Objective
    pretrain_epochs: PositiveFloat
    pretrain_learning_rate: PositiveFloat
    masking_share: Share = 0.15
    deletion_share: Share = 0.6
    whole_words: bool = True
    pretrain_batch_size: Annotated[int, Field(ge=2)] = 64  # a batch of one has no negatives
    head_learning_rate: PositiveFloat = 1e-3
    fine_tune_pairs: CountOrNone
    fine_tune_epochs: PositiveFloat
    fine_tune_learning_rate: PositiveFloat
    fine_tune_batch_size: Annotated[int, Field(ge=2)] = 64  # a batch of one has no negatives

    def pretrain_settings(self) -> PretrainSettings:
        """Return the settings of pre-training."""
        common = {name: getattr(self, name) for name in ("objective", "masking_share", "deletion_share", "whole_words")}
        fit = self._fit(self.pretrain_epochs, self.pretrain_batch_size, self.pretrain_learning_rate)
        return PretrainSettings(fit=fit, head_learning_rate=self.head_learning_rate, **common)

    def fine_tune_settings(self) -> FitSettings:
        """Return the settings of the fine-tune."""
        return self._fit(self.fine_tune_epochs, self.fine_tune_batch_size, self.fine_tune_learning_rate)

    def _fit(self, epochs: float, batch_size: int, learning_rate: float) -> FitSettings:
        return FitSettings(
            epochs=epochs,
            max_steps=self.max_steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=self.seed,
            engine=self.engine,
        )


@dataclass(frozen=True)
class PretrainResult:
    """Result of pre-training, apart from the weights.

    Attributes:
        fit: history, steps and seconds; None for the objective "none".
        before: perplexity on the held-out texts before training; None if the objective predicts no words. Values of
            different objectives are not comparable.
        after: perplexity on the held-out texts after training.
    """

    fit: FitResult | None = None
    before: float | None = None
    after: float | None = None

    @property
    def history(self) -> list[dict[str, float | None]]:
        """Training history: rows of step, seconds, loss and learning_rate."""
        return self.fit.history if self.fit else []

    @property
    def seconds(self) -> float:
        """Seconds that the training took, also when the result comes from the cache."""
        return self.fit.seconds if self.fit else 0.0


def pretrain(
    model: SentenceTransformer,
    texts: DomainTexts,
    settings: PretrainSettings,
    *,
    cache: Path | None = None,
) -> PretrainResult:
    """Train `model` in place on unlabelled texts.

    A result for the same model, texts, settings, code and packages is read from the cache. A killed training continues
    from its last checkpoint. If several processes need the same result, one of them trains.

    Args:
        model: the model to train; its pooling does not change.
        texts: from `domain_texts`.
        settings: objective and training settings.
        cache: folder of results; None uses `paths.cache_dir()/pretrained`.

    Returns:
        History, and the perplexity before and after.

    Raises:
        ModelError: the model does not support the objective.
    """
    if settings.objective == "none":
        return PretrainResult()
    prepare(model, settings.fit.engine)
    folder = (cache or cache_dir() / "pretrained") / _identity(model, texts, settings)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        if not (folder / DONE).exists():
            _save(_pretrain(model, texts, settings, folder), model, folder / DONE)
        return _load(model, folder / DONE)


def _pretrain(
    model: SentenceTransformer, texts: DomainTexts, settings: PretrainSettings, folder: Path
) -> PretrainResult:
    task = make_task(model, texts, settings)
    before = task.perplexity(texts.held_out)
    result = fit(
        model,
        task.rows,
        task.loss,
        settings.fit,
        collator=task.collator,
        rates={HEAD: settings.head_learning_rate} if task.has_head else {},
        output_dir=str(folder),
        stage="pretrain",
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
    """Hash everything that the weights depend on to 16 hex digits; how often checkpoints are written does not count."""
    content = {
        "model": model_fingerprint(model),
        "texts": [texts.training, texts.held_out],
        "settings": {**asdict(settings), "fit": settings.fit.deciding()},
        "code": [(Path(embedlab.__file__).parent / f"{name}.py").read_text(encoding="utf-8") for name in CODE],
        "packages": [metadata.version(name) for name in ("torch", "transformers", "sentence-transformers")],
    }
    return sha256_of_json(content)[:16]
