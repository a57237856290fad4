"""Masked-language training: one epoch from texts to trained weights, including tokenisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.benchmarks.roofline import batches, roofline
from experiments.benchmarks.spec import Arm, Benchmark, Figure, Workload
from experiments.benchmarks.workloads import (
    lengths_of,
    our_model,
    random_model_folder,
    scratch,
    set_attention,
    shape_of,
    short_dataset,
    texts_of,
)

PROBABILITY = 0.15
LEARNING_RATE = 5e-5


def ours(
    *,
    data: str,
    batch_size: int,
    steps: int,
    device: str = "cpu",
    precision: str = "fp32",
    architecture: str | None = None,
    max_seq_length: int | None = None,
) -> Workload:
    """`MaskedLanguageLoss` on packed batches; word pieces are masked one by one, as the stock collator does."""
    from datasets import Dataset

    from embedlab.engine import EngineParams
    from embedlab.training.fit import FitSettings, fit
    from embedlab.training.pretraining.mlm import MaskedLanguageLoss, MaskingCollator

    texts = texts_of(short_dataset(data), steps * batch_size)
    model = our_model(device, max_seq_length, architecture)

    def train(part: Sequence[str]) -> None:
        engine = EngineParams(precision=precision)
        settings = FitSettings(epochs=1, batch_size=batch_size, learning_rate=LEARNING_RATE, engine=engine)
        collator = MaskingCollator(model, part, probability=PROBABILITY, whole_words=False)
        rows = Dataset.from_dict({"label": list(range(len(part)))})
        fit(model, rows, MaskedLanguageLoss(model), settings, collator=collator, output_dir=str(scratch()))

    padded = list(batches(lengths_of(model, texts), batch_size))
    facts = roofline(padded, shape_of(model), head_share=PROBABILITY)
    return Workload(lambda: train(texts), warm_up=lambda: train(texts[:batch_size]), facts=facts)


def stock(
    *,
    data: str,
    batch_size: int,
    steps: int,
    device: str = "cpu",
    precision: str = "fp32",
    architecture: str | None = None,
    max_seq_length: int | None = None,
    attention: str | None = None,
    block: int | None = None,
    arguments: dict[str, Any] | None = None,
) -> Workload:
    """`AutoModelForMaskedLM`, `DataCollatorForLanguageModeling` and the Trainer of transformers.

    Args:
        data, batch_size, steps, device, precision, architecture, max_seq_length: as for `ours`.
        attention: the attention implementation; None leaves the choice to the library.
        block: join all texts and split them into blocks of this many tokens. That avoids padding, but texts attend to
            their neighbours. None trains on one text per row.
        arguments: additional training arguments.
    """
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    from embedlab.models.load import BASE_MODEL, model_path

    texts = texts_of(short_dataset(data), steps * batch_size)
    path = f"{random_model_folder(architecture)}" if architecture else model_path(BASE_MODEL)
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(path).to(device), AutoTokenizer.from_pretrained(path)
    if max_seq_length:
        tokenizer.model_max_length = max_seq_length
    set_attention(model, attention)
    options = {"bf16": precision == "bf16", "use_cpu": device == "cpu", **(arguments or {})}

    def train(part: Sequence[str]) -> None:
        _stock_train(model, tokenizer, part, batch_size, block, options)

    return Workload(lambda: train(texts), warm_up=lambda: train(texts[:batch_size]))


def _stock_train(
    model: Any, tokenizer: Any, texts: Sequence[str], batch_size: int, block: int | None, arguments: dict[str, Any]
) -> None:
    from datasets import Dataset
    from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

    rows = Dataset.from_dict({"text": list(texts)}).map(
        lambda batch: tokenizer(batch["text"], truncation=True, return_special_tokens_mask=True),
        batched=True,
        remove_columns=["text"],
    )
    if block:
        rows = rows.map(lambda batch: _in_blocks(batch, block), batched=True)
        batch_size = max(1, batch_size * len(rows) // len(texts))  # the same number of steps on the same tokens
    settings = TrainingArguments(
        output_dir=str(scratch()),
        num_train_epochs=1,
        per_device_train_batch_size=batch_size,
        learning_rate=LEARNING_RATE,
        save_strategy="no",  # ours saves nothing either
        disable_tqdm=True,
        **arguments,
    )
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=PROBABILITY)
    Trainer(model=model, args=settings, train_dataset=rows, data_collator=collator).train()


def _in_blocks(batch: dict[str, list[list[int]]], block: int) -> dict[str, list[list[int]]]:
    """Join all rows and split them into blocks of equal length, as the example script of transformers does."""
    joined = {key: [number for row in rows for number in row] for key, rows in batch.items()}
    usable = len(joined["input_ids"]) // block * block
    return {
        key: [numbers[start : start + block] for start in range(0, usable, block)] for key, numbers in joined.items()
    }


BENCHMARKS = (
    Benchmark(
        name="mlm",
        title="masked-language training, short texts",
        arms={
            "ours": Arm(f"{__name__}:ours", "packed batches, vocabulary scores only at masked positions"),
            "stock": Arm(f"{__name__}:stock", "AutoModelForMaskedLM and Trainer, defaults, one text per row"),
            "tuned": Arm(
                f"{__name__}:stock",
                'train_sampling_strategy="group_by_length": batches of equally long texts',
                {"arguments": {"train_sampling_strategy": "group_by_length"}},
            ),
            "blocks": Arm(
                f"{__name__}:stock",
                "texts joined into blocks of 128 tokens: no padding, but texts attend to their neighbours",
                {"block": 128},
            ),
        },
        figures=(
            Figure("seconds", 2.2, against="stock"),
            Figure("seconds", against="tuned"),
            Figure("seconds", against="blocks"),
            Figure("peak_bytes", against="stock"),
        ),
        size={"data": "full", "batch_size": 64, "steps": 8},
        quick={"data": "smoke", "batch_size": 16, "steps": 2},
    ),
)
