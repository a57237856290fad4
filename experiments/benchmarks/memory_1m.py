"""Memory while one million and five million documents are encoded and searched, in RAM and through a memory map.

The model is a static one: a transformer would take hours, and the memory of its batches does not grow with the corpus.
Encoding, files and search are those of embedlab.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
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
TEXTS_PER_DRAW = 100_000
QUERIES = 100
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
    from embedlab.models.vector_array import encode_to_file

    return encode_to_file(model, texts, path)


def interrupted(*, documents: int) -> Workload:
    """`encode_to_file` from an iterator, stopped half-way and called again, then `search` over the memory map."""
    return Workload(
        partial(_interrupted, lookup_model(), own_bytes(), documents),
        warm_up=lambda: None,
        facts={"documents": documents, "vector_bytes": HIDDEN * np.dtype(np.float32).itemsize},
    )


def _interrupted(model: SentenceTransformer, loaded: int, documents: int) -> dict[str, float]:
    from embedlab.models.vector_array import encode_to_file
    from embedlab.search.exact import search

    meter = _Meter(stop_after=documents // 2)
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir()) as folder, own_peak() as peak:
        path = Path(folder) / "corpus.npy"
        try:
            encode_to_file(model, stream_texts(documents), path, encode=meter.encode)
        except _Stopped:
            meter.stop_after = None
        start = time.perf_counter()
        corpus = encode_to_file(model, stream_texts(documents), path, encode=meter.encode)
        resumed_s = time.perf_counter() - start
        queries = np.random.default_rng(SEED).standard_normal((QUERIES, HIDDEN), dtype=np.float32)
        start = time.perf_counter()
        search(queries, corpus, DEPTH)
        search_s = time.perf_counter() - start
    return {
        "own_bytes": peak.highest - loaded,
        "encoded_twice": meter.encoded - documents,
        "documents_per_second": (documents - meter.encoded_before) / resumed_s,
        "exact_ms": 1000 * search_s / QUERIES,
    }


class _Stopped(Exception):
    """The interruption."""


class _Meter:
    """Counts encoded texts, and interrupts once."""

    def __init__(self, stop_after: int | None) -> None:
        self.stop_after, self.encoded, self.encoded_before = stop_after, 0, 0

    def encode(self, model: SentenceTransformer, texts: Sequence[str], **options: object) -> np.ndarray:
        """Call `encode`; raise `_Stopped` when enough texts were encoded."""
        from embedlab.models.encode import encode

        if self.stop_after is not None and self.encoded >= self.stop_after:
            self.encoded_before = self.encoded
            raise _Stopped
        self.encoded += len(texts)
        return encode(model, texts)


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
    return list(stream_texts(count))


def stream_texts(count: int) -> Iterator[str]:
    """Yield the texts of `make_texts`, a part of them in memory at a time."""
    words = [f"{first}{second}" for first in "bdgklmnprst" for second in ("an", "el", "in", "or", "us")]
    random = np.random.default_rng(SEED)
    for start in range(0, count, TEXTS_PER_DRAW):
        picks = random.integers(len(words), size=(min(TEXTS_PER_DRAW, count - start), 8))
        yield from (f"{' '.join(words[pick] for pick in row)} {start + n}" for n, row in enumerate(picks))


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
    Benchmark(
        name="memmap_5m",
        title="encode 5,000,000 documents to a memory map (static model), interrupted half-way, and search them",
        arms={"ours": Arm(f"{__name__}:interrupted", "encode_to_file from an iterator, called twice, then search")},
        figures=(
            Figure("own_bytes", unit="bytes"),
            Figure("encoded_twice", 0, unit="documents"),
            Figure("documents_per_second", unit="documents/s"),
            Figure("exact_ms", unit="ms per query"),
        ),
        size={"documents": 5_000_000},
        quick={"documents": 40_000},
        requires=("disk",),
    ),
)
