"""Memory while a million documents are encoded and searched, in RAM and through a memory map.

The model is a static one: a transformer would take hours, and the memory of its batches does not grow with the corpus.
Encoding, files and search are those of embedlab.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedlab.paths import cache_dir
from experiments.benchmarks.memory import own_bytes, own_peak
from experiments.benchmarks.spec import Arm, Benchmark, Figure, Workload
from experiments.benchmarks.workloads import SEED

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

HIDDEN = 384
DEPTH = 100
BLOCK = 4096  # texts encoded and written together
QUERIES = 128
SMALLER = 4  # the whole corpus is compared with a quarter of it

Encoder = Callable[["SentenceTransformer", Sequence[str], Path], np.ndarray]
Grow = Callable[[Sequence[str], Encoder], int]


def in_ram(*, documents: int) -> Workload:
    """`encode` to an array, then `search`: growth per document."""

    def run(grow: Grow, texts: Sequence[str]) -> dict[str, float]:
        return {"bytes_per_document": grow(texts, _to_array) / len(texts)}

    return _workload(run, documents)


def memory_map(*, documents: int) -> Workload:
    """`encode` in blocks to a memory map, then `search` over it: growth relative to a quarter of the corpus."""

    def run(grow: Grow, texts: Sequence[str]) -> dict[str, float]:
        part = texts[: len(texts) // SMALLER]
        smaller, whole = grow(part, _to_file), grow(texts, _to_file)
        return {"growth_ratio": whole / smaller, "growth_bytes": whole, "growth_bytes_quarter": smaller}

    return _workload(run, documents)


def _workload(run: Callable[[Grow, Sequence[str]], dict[str, float]], documents: int) -> Workload:
    texts = make_texts(documents)
    grow = partial(_growth, lookup_model(), own_bytes())
    return Workload(
        lambda: run(grow, texts),
        warm_up=lambda: run(grow, texts[: max(SMALLER, documents // 100)]),
        facts={"documents": documents, "vector_bytes": HIDDEN * np.dtype(np.float32).itemsize},
    )


def _growth(model: SentenceTransformer, loaded: int, texts: Sequence[str], encoder: Encoder) -> int:
    """Return the peak of `own_bytes` above `loaded` while `texts` are encoded and searched."""
    from embedlab.search.exact import search

    cache_dir().mkdir(parents=True, exist_ok=True)
    # In the cache folder, because the system's temporary folder may be in memory.
    with tempfile.TemporaryDirectory(dir=cache_dir()) as folder, own_peak() as peak:
        corpus = encoder(model, texts, Path(folder) / "corpus.npy")
        queries = np.random.default_rng(SEED).standard_normal((QUERIES, HIDDEN), dtype=np.float32)
        search(queries, corpus, DEPTH)
    return peak.highest - loaded


def _to_array(model: SentenceTransformer, texts: Sequence[str], path: Path) -> np.ndarray:
    from embedlab.models.encode import encode

    return encode(model, texts)


def _to_file(model: SentenceTransformer, texts: Sequence[str], path: Path) -> np.ndarray:
    from embedlab.models.encode import encode

    vectors = np.lib.format.open_memmap(path, "w+", dtype=np.float32, shape=(len(texts), HIDDEN))
    for start in range(0, len(texts), BLOCK):
        vectors[start : start + BLOCK] = encode(model, texts[start : start + BLOCK])
        vectors.flush()
    return np.load(path, mmap_mode="r")


def lookup_model() -> SentenceTransformer:
    """Make a static model with random embeddings, the same one every time."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from transformers import AutoTokenizer

    from embedlab.models.load import BASE_MODEL, model_path

    tokenizer = AutoTokenizer.from_pretrained(model_path(BASE_MODEL))
    weights = np.random.default_rng(SEED).standard_normal((len(tokenizer), HIDDEN), dtype=np.float32)
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)], device="cpu")


def make_texts(count: int) -> list[str]:
    """Make distinct texts of eight words each."""
    words = [f"{first}{second}" for first in "bdgklmnprst" for second in ("an", "el", "in", "or", "us")]
    picks = np.random.default_rng(SEED).integers(len(words), size=(count, 8))
    return [f"{' '.join(words[pick] for pick in row)} {number}" for number, row in enumerate(picks)]


BENCHMARKS = (
    Benchmark(
        name="memory_1m",
        title="encode and search 1,000,000 documents",
        arms={
            "ours": Arm(f"{__name__}:in_ram", "vectors in an array"),
            "memmap": Arm(
                f"{__name__}:memory_map",
                "vectors in a memory-mapped file; memory for all documents divided by memory for a quarter of them",
            ),
        },
        figures=(
            Figure("bytes_per_document", 1_600, unit="bytes"),
            Figure("growth_ratio", 1.25, arm="memmap", unit="× that of a quarter of them"),
        ),
        size={"documents": 1_000_000},
        quick={"documents": 20_000},
        requires=("disk",),
    ),
)
