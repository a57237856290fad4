"""Contrastive training for each architecture: random models of equal size, short and long texts."""

from __future__ import annotations

from experiments.benchmarks.spec import Benchmark, Figure
from experiments.benchmarks.train import OURS, STOCK
from experiments.benchmarks.workloads import ARCHITECTURES

TARGETS = {"bert-base": 2.5, "qwen3": 1.5, "llama": 1.5, "deberta-v2": None}  # others: ENCODER_TARGET
ENCODER_TARGET = 2.0
_ABOUT = "6 layers, 384 dimensions, random weights"
_BASE_ABOUT = "12 layers, 768 dimensions, random weights"


def _benchmark(architecture: str, texts: str) -> Benchmark:
    about = _BASE_ABOUT if architecture == "bert-base" else _ABOUT
    short = texts == "short"
    size = (
        {"data": "full", "batch_size": 64, "steps": 3} if short else {"data": "passages", "batch_size": 16, "steps": 3}
    )
    if short and architecture == "bert-base":  # as `train_short`, whose target it has
        size |= {"batch_size": 128}
    return Benchmark(
        name=f"train_{texts}_{architecture.replace('-', '_')}",
        title=f"train {architecture} ({about}), {'short pairs' if short else 'passages of up to 256 tokens'}",
        arms={"ours": OURS, "stock": STOCK},
        figures=(
            Figure("seconds", TARGETS.get(architecture, ENCODER_TARGET) if short else None, against="stock"),
            Figure("peak_bytes", against="stock"),
        ),
        size=size | {"architecture": architecture, "max_seq_length": 256},
        quick={"data": "smoke", "batch_size": 8, "steps": 1} if short else {"batch_size": 4, "steps": 1},
    )


BENCHMARKS = tuple(_benchmark(name, texts) for name in ARCHITECTURES for texts in ("short", "long"))
