"""Encoding a corpus of short texts."""

from __future__ import annotations

from experiments.benchmarks.roofline import batches, roofline
from experiments.benchmarks.spec import Arm, Benchmark, Figure, Workload
from experiments.benchmarks.workloads import (
    checksum,
    lengths_of,
    our_model,
    precision_context,
    set_attention,
    shape_of,
    short_dataset,
    stock_model,
    texts_of,
)

DEFAULT_BATCH = 32
WARM_UP_TEXTS = 256


def ours(
    *,
    data: str,
    texts: int,
    device: str = "cpu",
    precision: str = "fp32",
    architecture: str | None = None,
    max_seq_length: int | None = None,
) -> Workload:
    """`embedlab.models.encode.encode` with its defaults."""
    from embedlab.models.encode import encode

    corpus = texts_of(short_dataset(data), texts)
    model = our_model(device, max_seq_length, architecture)

    def run() -> dict[str, float]:
        with precision_context(device, precision):
            return {"check": checksum(encode(model, corpus))}

    by_characters = sorted(corpus, key=len, reverse=True)  # the order in which sentence-transformers batches
    padded = list(batches(lengths_of(model, by_characters), DEFAULT_BATCH))
    facts = {} if architecture else roofline(padded, shape_of(model))
    return Workload(run, warm_up=lambda: encode(model, corpus[:WARM_UP_TEXTS]), facts=facts)


def stock(
    *,
    data: str,
    texts: int,
    batch_size: int = DEFAULT_BATCH,
    device: str = "cpu",
    precision: str = "fp32",
    architecture: str | None = None,
    max_seq_length: int | None = None,
    attention: str | None = None,
) -> Workload:
    """`SentenceTransformer.encode`; "bf16" converts the weights, as the documentation recommends."""
    corpus = texts_of(short_dataset(data), texts)
    model = stock_model(device, max_seq_length, architecture)
    set_attention(model[0].model, attention)
    if precision == "bf16":
        model.bfloat16()

    def run() -> dict[str, float]:
        vectors = model.encode(corpus, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False)
        return {"check": checksum(vectors)}

    return Workload(run, warm_up=lambda: model.encode(corpus[:WARM_UP_TEXTS], batch_size=batch_size))


OURS, STOCK = f"{__name__}:ours", f"{__name__}:stock"

BENCHMARKS = (
    Benchmark(
        name="encode",
        title="encode short texts",
        arms={
            "ours": Arm(OURS, "packed batches of equal token count"),
            "stock": Arm(STOCK, "encode() with its defaults: batches of 32, ordered by length"),
            "tuned": Arm(STOCK, "encode() with the fastest batch size tried, 16", {"batch_size": 16}),
        },
        figures=(
            Figure("seconds", 1.3, against="stock"),
            Figure("seconds", against="tuned"),
            Figure("peak_bytes", against="stock"),
        ),
        size={"data": "full", "texts": 8_192},
        quick={"data": "smoke", "texts": 64},
        tolerance=1e-5,
    ),
    Benchmark(
        name="encode_gpu",
        title="encode short texts on a GPU",
        arms={
            "ours": Arm(OURS, "packed batches in bf16", {"precision": "bf16"}),
            "stock": Arm(STOCK, "encode() with its defaults, fp32"),
            "tuned": Arm(STOCK, "bf16 weights, batches of 512", {"precision": "bf16", "batch_size": 512}),
        },
        figures=(Figure("seconds", 4.0, against="stock"), Figure("seconds", against="tuned")),
        size={"data": "full", "texts": 46_000, "device": "cuda"},
        quick={"data": "smoke", "texts": 64},
        requires=("cuda",),
    ),
)
