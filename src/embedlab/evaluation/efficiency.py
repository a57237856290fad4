"""Measure what a model costs: parameters, megabytes on disk, texts per second."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedlab.models.encode import encode
from embedlab.models.sides import is_static, sides_of
from embedlab.models.static import encode_static

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

REPEATS = 3  # timed passes of each model
WARM_UP = 32  # texts that each model encodes before them
STATIC_PASSES = 20  # a static model encodes the texts this often per pass; once would time little but the call


@dataclass(frozen=True)
class Footprint:
    """The cost of a model.

    Attributes:
        parameters: number of parameters.
        megabytes: size of the saved folder, 10^6 bytes.
        texts_per_second: encoding with tokenisation on this machine; median of the passes.
        slowest, fastest: texts per second of the slowest and the fastest pass.
    """

    parameters: int
    megabytes: float
    texts_per_second: float
    slowest: float
    fastest: float

    def as_dict(self) -> dict[str, float]:
        """Return field name -> value."""
        return asdict(self)


def measure_footprints(models: Mapping[str, SentenceTransformer], texts: Sequence[str]) -> dict[str, Footprint]:
    """Measure models on the same texts, in turns: if the machine slows down, it slows down for all of them.

    Each model runs as fast as this package can run it: transformers with `models.encode.encode`, static models with
    `encode_static`. A few texts warm each model up and are not counted.

    Args:
        models: name -> any sentence-transformers model.
        texts: what to encode.

    Returns:
        Name -> footprint.
    """
    for model in models.values():
        _encode(model, _workload(model, texts[:WARM_UP]))
    passes = [{name: _rate(model, _workload(model, texts)) for name, model in models.items()} for _ in range(REPEATS)]
    return {name: _footprint(model, np.sort([rates[name] for rates in passes])) for name, model in models.items()}


def _footprint(model: SentenceTransformer, rates: np.ndarray) -> Footprint:
    return Footprint(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        megabytes=_saved_bytes(model) / 1e6,
        texts_per_second=float(np.median(rates)),
        slowest=float(rates[0]),
        fastest=float(rates[-1]),
    )


def _workload(model: SentenceTransformer, texts: Sequence[str]) -> list[str]:
    return list(texts) * (STATIC_PASSES if is_static(model) else 1)


def _rate(model: SentenceTransformer, texts: list[str]) -> float:
    """Return texts per second of one pass."""
    start = time.perf_counter()
    _encode(model, texts)
    return len(texts) / (time.perf_counter() - start)


def _encode(model: SentenceTransformer, texts: list[str]) -> None:
    if is_static(model):
        encode_static(model, texts)
    else:
        encode(sides_of(model).document.model, texts, stage="speed")


def _saved_bytes(model: SentenceTransformer) -> int:
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, create_model_card=False)
        return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
