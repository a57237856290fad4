"""What a model costs to keep and to run: parameters, megabytes on disk, texts per second."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedlab.models.encode import encode
from embedlab.models.static import encode_static

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

STATIC_PASSES = 20


@dataclass(frozen=True)
class Footprint:
    """The price of a model.

    Attributes:
        parameters: all numbers that were or could be trained.
        megabytes: the saved folder, 10^6 bytes.
        texts_per_second: encoding, tokenisation included, on this machine; the median of the repeats.
        slowest, fastest: over the repeats.
    """

    parameters: int
    megabytes: float
    texts_per_second: float
    slowest: float
    fastest: float

    def as_dict(self) -> dict[str, float]:
        """Field name -> value."""
        return asdict(self)


def footprints(
    models: Mapping[str, SentenceTransformer], texts: Sequence[str], *, repeats: int = 3
) -> dict[str, Footprint]:
    """Measure models on the same texts, in turns, so that a machine that slows down slows all of them: name -> price.

    Each is run as it runs best here: transformers by `models.encode.encode`, static ones by `encode_static`. One pass
    of each warms up and is not counted. A static model reads the texts many times over in one pass, which would
    otherwise measure little else than the overhead of a call.

    Args:
        models: any sentence-transformers models.
        texts: what to encode.
        repeats: timed passes of each.
    """
    for model in models.values():
        _run(model, _workload(model, texts))
    turns = [{name: _rate(model, _workload(model, texts)) for name, model in models.items()} for _ in range(repeats)]
    return {name: _footprint(model, np.sort([turn[name] for turn in turns])) for name, model in models.items()}


def _footprint(model: SentenceTransformer, rates: np.ndarray) -> Footprint:
    return Footprint(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        megabytes=_saved_bytes(model) / 1e6,
        texts_per_second=float(np.median(rates)),
        slowest=float(rates[0]),
        fastest=float(rates[-1]),
    )


def _is_static(model: SentenceTransformer) -> bool:
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    return isinstance(model[0], StaticEmbedding)


def _workload(model: SentenceTransformer, texts: Sequence[str]) -> list[str]:
    return list(texts) * (STATIC_PASSES if _is_static(model) else 1)


def _rate(model: SentenceTransformer, texts: list[str]) -> float:
    """Texts per second."""
    began = time.perf_counter()
    _run(model, texts)
    return len(texts) / (time.perf_counter() - began)


def _run(model: SentenceTransformer, texts: list[str]) -> None:
    if _is_static(model):
        encode_static(model, texts)
    else:
        encode(model, texts, stage="speed")


def _saved_bytes(model: SentenceTransformer) -> int:
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, create_model_card=False)
        return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
