"""The texts, rows and models of the benchmarks, the same for every arm."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedlab.data.dataset import Dataset
from embedlab.data.load import load_dataset
from embedlab.paths import project_root
from experiments.benchmarks.roofline import Lengths, Shape

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Row = tuple[str, ...]  # query, positive, hard negative

SEED = 0


def short_dataset(size: str) -> Dataset:
    """Load ICD-10-CM of a size: terms of about a dozen tokens, with expert triplets."""
    return load_dataset(f"icd10cm:{size}")


def passage_dataset() -> tuple[str, Dataset]:
    """Load the passages and their name: MedQuAD if it is next to the project, else docstrings."""
    medquad = project_root().parent / "shared" / "datasets" / "medquad"
    if medquad.is_dir():
        return "MedQuAD", load_dataset(f"beir:{medquad}?repair=true")
    return "docstrings", load_dataset("pydocs")


def training_rows(dataset: Dataset, count: int) -> list[Row]:
    """Return `count` shuffled rows of query, positive and hard negative (an expert's, or a random document).

    A dataset without training queries uses those of its test split.
    """
    split = "train" if dataset.qrels.get("train") else "test"
    rng, documents = random.Random(SEED), list(dataset.corpus.values())
    rows = [(dataset.queries[q], dataset.corpus[d], rng.choice(documents)) for q, d in dataset.pairs(split)]
    rows += [tuple(triplet) for triplet in dataset.triplets]
    rng.shuffle(rows)
    return [rows[index % len(rows)] for index in range(count)]


def texts_of(dataset: Dataset, count: int) -> list[str]:
    """Return `count` documents in a fixed random order."""
    texts = list(dataset.corpus.values())
    random.Random(SEED).shuffle(texts)
    return texts[:count]


def stock_model(device: str = "cpu", max_seq_length: int | None = None) -> SentenceTransformer:
    """Load the base model with sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    from embedlab.models.load import BASE_MODEL, model_path

    model = SentenceTransformer(model_path(BASE_MODEL), device=device)
    if max_seq_length:
        model.max_seq_length = max_seq_length
    return model


def our_model(device: str = "cpu", max_seq_length: int | None = None) -> SentenceTransformer:
    """Load the base model with embedlab, which packs batches."""
    from embedlab.models.load import load_model

    return load_model(device=device, max_seq_length=max_seq_length)


def lengths_of(model: SentenceTransformer, texts: Sequence[str]) -> Lengths:
    """Count the tokens of every text after the model's truncation."""
    from embedlab.models.tokens import token_ids

    return [len(ids) for ids in token_ids(model, texts)]


def shape_of(model: SentenceTransformer) -> Shape:
    """Return the sizes of the model's encoder."""
    return Shape.of(model[0].model.config)


def precision_context(device: str, precision: str) -> AbstractContextManager[object]:
    """Autocast to bfloat16 if `precision` is "bf16"; nothing for "fp32"."""
    import torch

    return torch.autocast(device, torch.bfloat16) if precision == "bf16" else nullcontext()


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="benchmark-")


def scratch() -> Path:
    """Return a folder for this process, deleted when it ends."""
    return Path(_scratch().name)


def checksum(vectors: np.ndarray) -> float:
    """Reduce (n, d) vectors to a number that changes with any row: the mean absolute dot product with random ones."""
    directions = np.random.default_rng(SEED).standard_normal(vectors.shape, dtype=np.float32)
    return float(np.abs(np.einsum("nd,nd->n", vectors, directions)).mean())
