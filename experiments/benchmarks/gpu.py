"""Training, encoding and masked-language training on a GPU with models of 110 M and 0.6 B parameters.

The models have random weights in the shape of BERT base and of Qwen3-0.6B. The stock arm runs in float32 with the
defaults. The tuned arm is what a careful user of sentence-transformers and transformers sets: bf16, batches of texts of
similar length where the library has them, and FlashAttention if the package flash-attn is installed, otherwise SDPA.
`gpu.sh` runs all benchmarks that need a GPU.
"""

from __future__ import annotations

from typing import Any

from experiments.benchmarks import encode, mlm, train
from experiments.benchmarks.spec import Arm, Benchmark, Figure

BASE, LARGE = "bert-base", "qwen3-0.6b"
NAMES = {BASE: "110 M parameters (BERT base)", LARGE: "0.6 B parameters (shape of Qwen3-0.6B)"}
FLASH = "flash"  # see `workloads.set_attention`
TOY = {BASE: "bert-toy", LARGE: "qwen3-toy"}  # of the smoke run
FIGURES = (
    Figure("seconds", against="stock"),
    Figure("seconds", against="tuned"),
    Figure("device_peak_bytes", against="stock"),
    Figure("device_peak_bytes", against="tuned"),
)
_STOCK, _TUNED = "the stock library in float32", "the stock library in bf16 with FlashAttention or SDPA"
_BF16 = {"precision": "bf16"}


def _benchmark(
    name: str, title: str, module: Any, size: dict[str, Any], quick: dict[str, Any], **tuned: Any
) -> Benchmark:
    return Benchmark(
        name=name,
        title=title,
        arms={
            "ours": Arm(f"{module.__name__}:ours", "packed batches in bf16", _BF16),
            "stock": Arm(f"{module.__name__}:stock", _STOCK),
            "tuned": Arm(f"{module.__name__}:stock", _TUNED, {**_BF16, "attention": FLASH, **tuned}),
        },
        figures=FIGURES,
        size={"device": "cuda", "data": "full", "max_seq_length": 256, **size},
        quick={"data": "smoke", **quick},
        requires=("cuda",),
    )


def _train(architecture: str, batch_size: int, steps: int) -> Benchmark:
    return _benchmark(
        f"train_{_label(architecture)}_gpu",
        f"train on a GPU, {NAMES[architecture]}, short pairs with a hard negative, batch {batch_size}",
        train,
        {"architecture": architecture, "batch_size": batch_size, "steps": steps},
        {"architecture": TOY[architecture], "batch_size": 8, "steps": 2},
    )


def _encode(architecture: str, texts: int) -> Benchmark:
    return _benchmark(
        f"encode_{_label(architecture)}_gpu",
        f"encode short texts on a GPU, {NAMES[architecture]}",
        encode,
        {"architecture": architecture, "texts": texts},
        {"architecture": TOY[architecture], "texts": 64},
        batch_size=512,
    )


def _label(architecture: str) -> str:
    return {BASE: "110m", LARGE: "600m"}[architecture]


BENCHMARKS = (
    _train(BASE, batch_size=256, steps=20),
    _train(LARGE, batch_size=64, steps=8),
    _encode(BASE, texts=20_000),
    _encode(LARGE, texts=8_000),
    _benchmark(
        "mlm_110m_gpu",
        f"masked-language training on a GPU, {NAMES[BASE]}, short texts, batch 256",
        mlm,
        {"architecture": BASE, "batch_size": 256, "steps": 20},
        {"architecture": TOY[BASE], "batch_size": 16, "steps": 2},
        arguments={"train_sampling_strategy": "group_by_length"},
    ),
)
