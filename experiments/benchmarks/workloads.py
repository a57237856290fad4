"""The texts, rows and models of the benchmarks, the same for every arm."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


# Random models of the base model's size (6 layers, 384 dimensions, 12 heads), in the words of each configuration.
_USUAL_SHAPE = {"num_hidden_layers": 6, "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
_SHAPES: dict[str, dict[str, Any]] = {
    "bert-base": _USUAL_SHAPE | {"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072},
    "mpnet": _USUAL_SHAPE,
    "modernbert": _USUAL_SHAPE,
    "nomic_bert": _USUAL_SHAPE,
    "deberta-v2": _USUAL_SHAPE,
    "t5": {"num_layers": 6, "d_model": 384, "num_heads": 12, "d_kv": 32, "d_ff": 1536},
    "gemma3_text": _USUAL_SHAPE
    | {"use_bidirectional_attention": True, "head_dim": 32, "num_key_value_heads": 4, "sliding_window": 512},
    "qwen3": _USUAL_SHAPE | {"head_dim": 32, "num_key_value_heads": 4},
    "llama": _USUAL_SHAPE | {"num_key_value_heads": 4},
}
ARCHITECTURES = tuple(_SHAPES)
_TOY_SHAPE = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128}
_SHAPES |= {
    "bert-toy": _TOY_SHAPE,
    "qwen3-toy": _TOY_SHAPE | {"head_dim": 32, "num_key_value_heads": 1},
    "qwen3-0.6b": {
        "num_hidden_layers": 28,
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
        "vocab_size": 151_936,
        "tie_word_embeddings": True,
    },
}
_DECODERS = ("qwen3", "llama")


@cache
def random_model_folder(architecture: str) -> str:
    """Save a random model of an architecture with the base model's tokenizer, and return its folder."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import AutoConfig, AutoModel, AutoTokenizer, T5EncoderModel

    from embedlab.models.load import BASE_MODEL, model_path

    folder = scratch() / architecture
    tokenizer = AutoTokenizer.from_pretrained(model_path(BASE_MODEL))
    model_type = architecture if architecture == "deberta-v2" else architecture.partition("-")[0]
    tokenizer.padding_side = "left" if model_type in _DECODERS else "right"
    shape = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id} | _SHAPES[architecture]
    config = AutoConfig.for_model(model_type, **shape)
    torch.manual_seed(SEED)
    network = T5EncoderModel(config) if architecture == "t5" else AutoModel.from_config(config)
    network.save_pretrained(folder / "transformer")
    tokenizer.save_pretrained(folder / "transformer")
    transformer = Transformer(str(folder / "transformer"), max_seq_length=256)
    dim = transformer.get_embedding_dimension()
    pooling = Pooling(dim, pooling_mode="lasttoken" if model_type in _DECODERS else "mean")
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save_pretrained(str(folder / "model"))
    return str(folder / "model")


def stock_model(
    device: str = "cpu", max_seq_length: int | None = None, architecture: str | None = None
) -> SentenceTransformer:
    """Load the base model, or a random model of another architecture, with sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    from embedlab.models.load import BASE_MODEL, model_path

    path = random_model_folder(architecture) if architecture else model_path(BASE_MODEL)
    model = SentenceTransformer(path, device=device)
    if max_seq_length:
        model.max_seq_length = max_seq_length
    return model


def our_model(
    device: str = "cpu", max_seq_length: int | None = None, architecture: str | None = None
) -> SentenceTransformer:
    """Load the base model, or a random model of another architecture, with embedlab, which packs batches."""
    from embedlab.models.load import BASE_MODEL, load_model

    name = random_model_folder(architecture) if architecture else BASE_MODEL
    return load_model(name, device=device, max_seq_length=max_seq_length)


def lengths_of(model: SentenceTransformer, texts: Sequence[str]) -> Lengths:
    """Count the tokens of every text after the model's truncation."""
    from embedlab.models.tokens import token_ids

    return [len(ids) for ids in token_ids(model, texts)]


def shape_of(model: SentenceTransformer) -> Shape:
    """Return the sizes of the model's encoder."""
    return Shape.of(model[0].model.config)


def set_attention(network: Any, attention: str | None) -> None:
    """Set the attention implementation: "flash" is FlashAttention 2 if its package is installed, otherwise SDPA."""
    if attention == "flash":
        attention = "flash_attention_2" if find_spec("flash_attn") and network.device.type == "cuda" else "sdpa"
    if attention:
        network.set_attn_implementation(attention)


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
