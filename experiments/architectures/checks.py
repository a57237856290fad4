"""How far each technique is from what it must equal, on one tiny model."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from embedlab.models.concatenation import concat_static, concatenate, static_part
from embedlab.models.encode import encode
from embedlab.models.layers import keep_layers
from embedlab.models.load import load_model
from embedlab.models.lora import add_lora, merge_lora
from embedlab.models.merging import merge
from embedlab.models.prompts import prompts_of
from embedlab.models.save import save_model
from embedlab.models.sides import sides_of
from embedlab.models.static import static_student
from embedlab.models.tokens import to_features, token_ids
from embedlab.params import TEMPERATURE
from embedlab.training.batches import TokenisedCollator
from embedlab.training.contrastive import train_contrastive
from embedlab.training.contrastive.matryoshka_2d import embed_layers
from embedlab.training.examples import number_rows
from embedlab.training.fit import FitSettings
from embedlab.training.losses import ContrastiveLoss
from embedlab.training.pretraining.objectives import DomainTexts, Objective, PretrainSettings, make_task
from experiments.architectures.models import LAYERS, TEXTS, folder

QUESTIONS = [*TEXTS, "", "word " * 40]  # the last one is longer than the limit
PAIRS = [(text, text[:12]) for text in TEXTS]
DOMAIN = DomainTexts([*TEXTS], [*TEXTS[:3]], [])


@dataclass(frozen=True)
class Technique:
    """A technique, and what shows that it is exact.

    Attributes:
        name: column of the table.
        equals: what is compared, in words.
        tolerance: largest difference that counts as exact.
        difference: measures the difference on the model of a family. Raises an EmbedlabError if it is refused.
    """

    name: str
    equals: str
    tolerance: float
    difference: Callable[[str], float]


def load(family: str, *, packed: bool = True) -> SentenceTransformer:
    """Load the tiny model of a family with embedlab."""
    return load_model(folder(family), device="cpu", packed=packed)


def vectors(model: SentenceTransformer) -> np.ndarray:
    """Encode the texts as queries, then as documents, with embedlab."""
    return np.concatenate([encode(side.model, QUESTIONS, prompt=side.prompt) for side in sides_of(model)])


def stock_vectors(path: str | Path) -> np.ndarray:
    """Encode the texts as queries, then as documents, with sentence-transformers."""
    stock = SentenceTransformer(str(path), device="cpu", trust_remote_code=True)  # our own module, if any
    return np.concatenate(
        [f(QUESTIONS, normalize_embeddings=True) for f in (stock.encode_query, stock.encode_document)]
    )


def apart(first: Any, second: Any) -> float:
    """Return the largest absolute difference; infinite if a value is not finite."""
    difference = float(np.abs(np.asarray(first) - np.asarray(second)).max())
    return difference if np.isfinite(difference) else float("inf")


def encoding(family: str) -> float:
    """Compare vectors with those of `encode_query` and `encode_document`."""
    return apart(vectors(load(family)), stock_vectors(folder(family)))


def contrastive_gradient(family: str) -> float:
    """Compare the gradient of a batch with that of MultipleNegativesRankingLoss on padded batches."""
    model, stock = (without_dropout(m) for m in (load(family), SentenceTransformer(folder(family), device="cpu")))
    rows, prompts = number_rows(PAIRS), prompts_of(model)
    collator = TokenisedCollator(model, rows.texts, rows.columns, *prompts)
    features, labels = columns(collator([rows.dataset[i] for i in range(len(rows))]))
    ContrastiveLoss(model, TEMPERATURE, judged=rows.judged)(features, labels).backward()
    sides = zip(map(list, zip(*PAIRS, strict=True)), prompts, ("query", "document"), strict=True)
    batch = [{**stock.preprocess(texts, prompt=prompt or "", task=task), "task": task} for texts, prompt, task in sides]
    MultipleNegativesRankingLoss(stock, scale=1 / TEMPERATURE)(batch, None).backward()
    return relative(gradient(model), gradient(stock))


def training(family: str) -> float:
    """Train, save and load again, here and with sentence-transformers."""
    model = load(family)
    before = vectors(model)
    with tempfile.TemporaryDirectory() as scratch:
        settings = FitSettings(steps=2, batch_size=4)
        train_contrastive(model, number_rows(PAIRS), settings, output_dir=f"{scratch}/fit")
        if not apart(vectors(model), before) > 1e-3:  # also NaN
            return float("inf")
        return _reloaded(model, Path(scratch))


def _reloaded(model: SentenceTransformer, scratch: Path) -> float:
    expected = vectors(model)
    save_model(model, scratch / "model")
    again = vectors(load_model(str(scratch / "model"), device="cpu"))
    return max(apart(again, expected), apart(stock_vectors(scratch / "model"), expected))


def fewer_layers(family: str) -> float:
    """Keep the first and the last layer, save and load again."""
    with tempfile.TemporaryDirectory() as scratch:
        return _reloaded(keep_layers(load(family), [0, LAYERS - 1]), Path(scratch))


def matryoshka_2d(family: str) -> float:
    """Compare what is trained at a depth with the vectors of the model cut to that depth."""
    model = load(family).eval()
    features, differences = to_features(model, token_ids(model, TEXTS)), []
    with torch.no_grad():
        for depth, outputs in zip((4, 2, 1), embed_layers(model, [dict(features)], (4, 2, 1)), strict=True):
            cut = keep_layers(model, range(depth)).eval()(dict(features))["sentence_embedding"]
            differences.append(apart(outputs[0], cut))
    return max(differences)


def lora(family: str) -> float:
    """Compare the vectors before and after an adapter is merged into the weights."""
    model = load(family).eval()
    add_lora(model, 2)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    adapted = vectors(model)
    return apart(vectors(merge_lora(model)), adapted)


def merging(family: str) -> float:
    """Compare the average of a model with itself with the model."""
    model = load(family)
    return apart(vectors(merge([model, copy.deepcopy(model)], [0.5, 0.5])), vectors(model))


def student(family: str) -> float:
    """Compare a static student with the same student saved and loaded."""
    with tempfile.TemporaryDirectory() as scratch:
        return _reloaded(static_student(load(family), TEXTS), Path(scratch))


def concatenation(family: str) -> float:
    """Compare the saved concatenation with the concatenated vectors, which are what is evaluated."""
    model = load(family)
    static = static_student(model, TEXTS)
    halves = [
        (encode(model, QUESTIONS, prompt=prompt), static_part(static)(model, QUESTIONS, prompt=prompt))
        for prompt in prompts_of(model)
    ]
    expected = np.concatenate([concatenate(*pair, 0.3) for pair in halves])
    with tempfile.TemporaryDirectory() as scratch:
        save_model(concat_static(model, static, 0.3), Path(scratch) / "model")
        ours = vectors(load_model(str(Path(scratch) / "model"), device="cpu"))
        return max(apart(ours, expected), apart(stock_vectors(Path(scratch) / "model"), expected))


def objective(name: Objective, family: str) -> float:
    """Compare the gradient of a batch with that on padded batches."""
    gradients = []
    for packed in (True, False):
        task = make_task(load(family, packed=packed), DOMAIN, PretrainSettings(name))
        without_dropout(task.loss).train()
        features, labels = columns(task.collator([task.rows[i] for i in range(len(task.rows))]))
        task.loss(features, labels).backward()
        gradients.append(gradient(task.loss))
    return relative(*gradients)


def columns(batch: dict[str, Any]) -> tuple[list[dict[str, Any]], torch.Tensor]:
    """Split a batch into the features of each column and the labels, as the Trainer does."""
    names = [key.removesuffix("_input_ids") for key in batch if key.endswith("_input_ids")]
    features = [
        {key.removeprefix(f"{name}_"): value for key, value in batch.items() if key.startswith(f"{name}_")}
        for name in names
    ]
    return features, batch["label"]


def without_dropout(model: Any) -> Any:
    """Set every dropout probability to 0, in place."""
    for module in model.modules():
        for name in ("p", "dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model


def gradient(model: torch.nn.Module) -> torch.Tensor:
    """Return the gradients of all weights in one row; zeros where there is none."""
    return torch.cat([(w.grad if w.grad is not None else torch.zeros_like(w)).flatten() for w in model.parameters()])


def relative(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the relative difference of two gradients; infinite if there is none to compare."""
    difference = float((first - second).norm() / second.norm())
    return difference if np.isfinite(difference) else float("inf")


_GRADIENT = "gradient of a batch, against padded batches"
TECHNIQUES: Sequence[Technique] = (
    Technique("encode", "vectors, against `encode_query` and `encode_document`", 1e-5, encoding),
    Technique("contrastive", "gradient of a batch, against MultipleNegativesRankingLoss", 1e-5, contrastive_gradient),
    Technique(
        "train, save, load", "vectors of the trained model, against the saved one in both libraries", 1e-6, training
    ),
    Technique("`mlm`", _GRADIENT, 1e-5, partial(objective, "mlm")),
    Technique("`causal`", _GRADIENT, 1e-5, partial(objective, "causal")),
    Technique("`tsdae`", _GRADIENT, 1e-5, partial(objective, "tsdae")),
    Technique("`simcse`", _GRADIENT, 1e-5, partial(objective, "simcse")),
    Technique("LoRA", "vectors before and after the adapter is merged", 1e-5, lora),
    Technique("merge", "average of a model with itself, against the model", 1e-6, merging),
    Technique("fewer layers", "student, against the saved one in both libraries", 1e-6, fewer_layers),
    Technique("2D Matryoshka", "trained vectors at a depth, against the model cut to it", 1e-5, matryoshka_2d),
    Technique("static student", "student, against the saved one in both libraries", 1e-6, student),
    Technique("concatenation", "saved model, against the vectors that are evaluated", 1e-6, concatenation),
)
