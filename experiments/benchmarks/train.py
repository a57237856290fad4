"""Contrastive training: one epoch from texts to trained weights, including tokenisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from experiments.benchmarks.roofline import Lengths, batches, roofline
from experiments.benchmarks.spec import Arm, Benchmark, Figure, Workload
from experiments.benchmarks.workloads import (
    Row,
    lengths_of,
    our_model,
    passage_dataset,
    scratch,
    set_attention,
    shape_of,
    short_dataset,
    stock_model,
    training_rows,
)

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DIMS = (384, 256, 128, 64, 32)
LEARNING_RATE = 5e-5
BERT_LIKE = (None, "bert-base", "mpnet")  # whose FLOPs `Shape` counts; None is the base model


def _rows(data: str, count: int) -> tuple[str, list[Row]]:
    if data == "passages":
        name, dataset = passage_dataset()
        return name, training_rows(dataset, count)
    return "ICD-10-CM", training_rows(short_dataset(data), count)


def ours(
    *,
    data: str,
    batch_size: int,
    steps: int,
    max_seq_length: int | None = None,
    device: str = "cpu",
    precision: str = "fp32",
    architecture: str | None = None,
    loss: str = "infonce",
) -> Workload:
    """`train_contrastive` on packed batches."""
    from embedlab.engine import EngineParams
    from embedlab.training.contrastive.train import train_contrastive
    from embedlab.training.examples import number_rows
    from embedlab.training.fit import FitSettings

    name, rows = _rows(data, steps * batch_size)
    model = our_model(device, max_seq_length, architecture)
    dims = _dims_of(model)
    facts: dict[str, Any] = {"data": name}
    if architecture in BERT_LIKE:
        facts |= _padding(model, rows, batch_size)

    def train(part: Sequence[Row]) -> None:
        engine = EngineParams(precision=precision)
        settings = FitSettings(epochs=1, batch_size=batch_size, learning_rate=LEARNING_RATE, engine=engine)
        train_contrastive(model, number_rows(part), settings, loss=loss, dims=dims, output_dir=str(scratch()))

    return Workload(lambda: train(rows), warm_up=lambda: train(rows[:batch_size]), facts=facts)


def stock(
    *,
    data: str,
    batch_size: int,
    steps: int,
    max_seq_length: int | None = None,
    device: str = "cpu",
    precision: str = "fp32",
    mini_batch_size: int | None = None,
    attention: str | None = None,
    architecture: str | None = None,
    arguments: dict[str, Any] | None = None,
) -> Workload:
    """The Trainer of sentence-transformers with its Matryoshka and multiple-negatives losses.

    Args:
        data, batch_size, steps, max_seq_length, device, precision, architecture: as for `ours`.
        mini_batch_size: use the cached loss with mini-batches of this size.
        attention: the attention implementation; None leaves the choice to the library.
        arguments: additional training arguments.
    """
    _, rows = _rows(data, steps * batch_size)
    model = stock_model(device, max_seq_length, architecture)
    set_attention(model[0].model, attention)

    def train(part: Sequence[Row]) -> None:
        _stock_train(model, part, batch_size, device, precision, mini_batch_size, arguments or {})

    return Workload(lambda: train(rows), warm_up=lambda: train(rows[:batch_size]))


def _stock_train(
    model: SentenceTransformer,
    rows: Sequence[Row],
    batch_size: int,
    device: str,
    precision: str,
    mini_batch_size: int | None,
    arguments: dict[str, Any],
) -> None:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments, losses

    columns = dict(zip(("anchor", "positive", "negative"), map(list, zip(*rows, strict=True)), strict=True))
    if mini_batch_size:
        inner = losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=mini_batch_size)
    else:
        inner = losses.MultipleNegativesRankingLoss(model)
    settings = SentenceTransformerTrainingArguments(
        output_dir=str(scratch()),
        num_train_epochs=1,
        per_device_train_batch_size=batch_size,
        learning_rate=LEARNING_RATE,
        bf16=precision == "bf16",
        use_cpu=device == "cpu",
        save_strategy="no",  # ours saves nothing either
        disable_tqdm=True,
        **arguments,
    )
    loss = losses.MatryoshkaLoss(model, inner, _dims_of(model))
    SentenceTransformerTrainer(model=model, args=settings, train_dataset=Dataset.from_dict(columns), loss=loss).train()


def _dims_of(model: SentenceTransformer) -> list[int]:
    """Return the dimensions of the Matryoshka loss; a model with fewer has fewer."""
    return [dim for dim in DIMS if dim <= (model.get_embedding_dimension() or 0)]


def _padding(model: SentenceTransformer, rows: Sequence[Row], batch_size: int) -> dict[str, float]:
    """Compute the roofline of the stock epoch."""
    queries, *documents = (lengths_of(model, column) for column in zip(*rows, strict=True))
    return roofline(_stock_batches(queries, documents, batch_size), shape_of(model))


def _stock_batches(queries: Lengths, documents: Sequence[Lengths], batch_size: int) -> list[Lengths]:
    """Group lengths of texts that are padded together: queries; positives with hard negatives."""
    together = zip(*(batches(column, batch_size) for column in documents), strict=True)
    return [*batches(queries, batch_size), *([n for column in columns for n in column] for columns in together)]


OURS = Arm(f"{__name__}:ours", "packed batches, tokenised once, one forward pass for all columns and dimensions")
STOCK = Arm(f"{__name__}:stock", "MatryoshkaLoss(MultipleNegativesRankingLoss), defaults")

OURS_CACHED = Arm(
    f"{__name__}:ours",
    'loss="cached": gradient caching on packed batches of 1,024 tokens, two forward passes like tuned',
    {"loss": "cached"},
)

OURS_BF16 = Arm(f"{__name__}:ours", "the same with autocast to bfloat16", {"precision": "bf16"})
STOCK_BF16 = Arm(f"{__name__}:stock", "the stock losses with bf16=True", {"precision": "bf16"})
# Of the documented options for fp32 on a CPU, this one pads least. Processor time relative to the defaults:
# mini-batches of 32, 16 and 8 take 1.05, 1.0 and 1.1 times as much, torch_compile=True 1.1 times. A dataloader worker
# costs more than it saves (tokenisation is below 1 %). This Trainer ignores train_sampling_strategy="group_by_length".
CACHED = Arm(
    f"{__name__}:stock",
    "CachedMultipleNegativesRankingLoss(mini_batch_size=16): least padding and memory, but two forward passes",
    {"mini_batch_size": 16},
)

_CPU_FIGURES = (
    Figure("peak_bytes", against="stock"),
    Figure("seconds", against="tuned"),
    Figure("peak_bytes", against="tuned"),
)
_CPU_ARMS = {"ours": OURS, "stock": STOCK, "tuned": CACHED}
_BF16_ARMS = {"ours": OURS_BF16, "stock": STOCK, "tuned": STOCK_BF16}
_GPU_FIGURES = (Figure("seconds", 5.0, against="stock"), Figure("seconds", 2.0, against="tuned"))
_QUICK = {"data": "smoke", "batch_size": 8, "steps": 2}

BENCHMARKS = (
    Benchmark(
        name="train_short",
        title="train, short pairs with a hard negative, batch 128",
        arms=_CPU_ARMS,
        figures=(Figure("seconds", 2.5, against="stock"), *_CPU_FIGURES),
        size={"data": "full", "batch_size": 128, "steps": 6},
        quick=_QUICK,
    ),
    Benchmark(
        name="train_short_256",
        title="train, short pairs with a hard negative, batch 256",
        arms=_CPU_ARMS,
        figures=(Figure("seconds", 2.5, against="stock"), *_CPU_FIGURES),
        size={"data": "full", "batch_size": 256, "steps": 3},
        quick=_QUICK,
    ),
    Benchmark(
        name="train_short_cached",
        title="train with gradient caching, short pairs with a hard negative, batch 128",
        arms={"ours": OURS_CACHED, "tuned": CACHED},
        figures=(Figure("seconds", 1.0, against="tuned"), Figure("peak_bytes", 1.2, against="tuned")),
        size={"data": "full", "batch_size": 128, "steps": 3},
        quick=_QUICK,
    ),
    Benchmark(
        name="train_short_bf16",
        title="train in bf16 on a CPU with bf16 matrix units, short pairs, batch 128",
        arms=_BF16_ARMS,
        figures=(Figure("seconds", against="stock"), Figure("seconds", against="tuned")),
        size={"data": "full", "batch_size": 128, "steps": 6},
        quick=_QUICK,
        requires=("amx_bf16",),
    ),
    Benchmark(
        name="train_passages",
        title="train, passages of up to 256 tokens with a hard negative, batch 32",
        arms=_CPU_ARMS,
        figures=(Figure("seconds", 1.4, against="stock"), *_CPU_FIGURES),
        size={"data": "passages", "batch_size": 32, "steps": 4, "max_seq_length": 256},
        quick={"batch_size": 4, "steps": 1},
    ),
    Benchmark(
        name="train_short_gpu",
        title="train on a GPU, short pairs with a hard negative, batch 256",
        arms=_BF16_ARMS,
        figures=_GPU_FIGURES,
        size={"data": "full", "batch_size": 256, "steps": 40, "device": "cuda"},
        quick=_QUICK,
        requires=("cuda",),
    ),
    Benchmark(
        name="train_passages_gpu",
        title="train on a GPU, passages of up to 256 tokens with a hard negative, batch 128",
        arms=_BF16_ARMS,
        figures=_GPU_FIGURES,
        size={"data": "passages", "batch_size": 128, "steps": 20, "max_seq_length": 256, "device": "cuda"},
        quick=_QUICK,
        requires=("cuda",),
    ),
)
