"""Tuned models that cost seconds: a linear map on the vectors of an untouched model, trained on the labelled pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from embedlab.data.dataset import Dataset
from embedlab.data.load import load_dataset
from embedlab.data.splits import seeded_order
from embedlab.deploy.migration.options import ndcg
from embedlab.evaluation.probes import DEFAULT_PROBES, shrunk
from embedlab.models.adapter import VectorAdapter
from embedlab.models.cache import EmbeddingCache
from embedlab.search.vectors import Vectors, encode_split
from embedlab.training.adapters.params import AdapterSettings
from embedlab.training.adapters.train import Pair, train_adapter

SPLITS = ("train", "dev", "test")
PROBE = "probe"  # name of its vectors among the splits
PROBE_QUERIES = 100
PROBE_CHARACTERS = 160  # of a document: long documents would cost more than the whole code book

Parts = Mapping[str, Vectors]  # split, or `PROBE` -> vectors


def open_probe() -> Dataset:
    """Return the default probe with fewer queries and with the beginnings of its documents."""
    probe = shrunk(load_dataset(DEFAULT_PROBES[0], training=False), PROBE_QUERIES)
    return replace(probe, corpus={name: text[:PROBE_CHARACTERS] for name, text in probe.corpus.items()})


def fewer_training_queries(data: Dataset, count: int) -> Dataset:
    """Return the dataset with at most so many training queries, drawn at random."""
    judged = data.qrels["train"]
    return replace(
        data, qrels={**data.qrels, "train": {query: judged[query] for query in seeded_order(judged)[:count]}}
    )


def encode_parts(model: Any, data: Dataset, probe: Dataset) -> dict[str, Vectors]:
    """Encode all splits of a dataset, and the test queries of the probe; the corpus once."""
    encode, vectors = EmbeddingCache().encode, {}
    corpus = None
    for split in SPLITS:
        vectors[split] = encode_split(model, data, split, encode=encode, corpus_vectors=corpus)
        corpus = vectors[split].corpus
    return {**vectors, PROBE: encode_split(model, probe, "test", encode=encode)}


def tune(parts: Parts, data: Dataset, pairs: Sequence[Pair] | None = None, *, steps: int = 400) -> VectorAdapter:
    """Train a linear map of queries and documents; dev chooses the step.

    Args:
        parts: vectors of the splits train and dev.
        data: judgements.
        pairs: (query id, document id) to train on; all training pairs if None.
        steps: at most so many.
    """
    torch.set_num_threads(1)
    fitted = train_adapter(
        "linear",
        parts["train"],
        data.pairs("train") if pairs is None else pairs,
        lambda adapter: float(np.nanmean(ndcg(parts["dev"].adapted(adapter), data.qrels["dev"]))),
        AdapterSettings(steps=steps),
    )
    return fitted.adapter


def adapted(parts: Parts, adapter: VectorAdapter) -> dict[str, Vectors]:
    """Apply an adapter to all parts."""
    return {name: vectors.adapted(adapter) for name, vectors in parts.items()}
