"""Measure every scheme: difference in nDCG@10, cosine, speed on one core, bytes, and what the batch changes."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embedlab.data.dataset import Dataset
from embedlab.data.load import load_dataset
from embedlab.data.splits import evenly_spread
from embedlab.deploy.export import export_model
from embedlab.deploy.onnx_folder import CARD, GRAPH, TOKENIZER, ExportCard, ExportedEncoder, card_json
from embedlab.deploy.parity import METRIC, Comparison, cosine_of_rows
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.significance import paired_difference
from embedlab.io import sha256_of
from embedlab.models.encode import encode
from embedlab.models.layers import layers_of
from embedlab.models.load import load_model
from embedlab.models.onnx_graph import write_graph
from embedlab.search.vectors import Vectors, encode_split
from experiments.benchmarks.environment import describe
from experiments.benchmarks.stats import abba, median_of, median_ratio
from experiments.export.schemes import Prepare, Scheme, schemes

STOCK, PACKED, ALL = "stock", "packed", "all"
ALONE = 32  # texts that are encoded alone and in a batch


def study(dataset: str, model_name: str, *, texts: int, repeats: int, only: Sequence[str] = ()) -> dict[str, Any]:
    """Export a model with every scheme, and measure each against the model.

    Args:
        dataset: judged queries; those of all splits are used, since the model was not trained on them.
        model_name: a BERT.
        texts: documents that are timed.
        repeats: of every timing.
        only: names of schemes; all if empty.

    Returns:
        Settings, environment and one row per scheme, ready for JSON.
    """
    torch.set_num_threads(1)
    model, data = load_model(model_name, packed=False), with_all_queries(load_dataset(dataset, training=False))
    chosen = [scheme for scheme in schemes(len(layers_of(model))) if not only or scheme.name in only]
    ours = encode_split(model, data, ALL)
    with tempfile.TemporaryDirectory() as temporary:
        encoders = _export_all(model, chosen, Path(temporary))
        rows = {}
        for name, encoder in encoders.items():
            rows[name] = quality(encoder, data, ours)
            print(name, rows[name], flush=True)
        packed, timed = load_model(model_name), evenly_spread(data.corpus.values(), texts)
        arms: dict[str, Callable[[], Any]] = {
            STOCK: lambda: model.encode(timed, batch_size=32, normalize_embeddings=True, show_progress_bar=False),
            PACKED: lambda: encode(packed, timed),
        }
        arms |= {name: _encoding(encoder, timed) for name, encoder in encoders.items()}
        seconds = time_in_turns(arms, repeats)
    return {
        "dataset": data.name,
        "model": model_name,
        "queries": len(ours.query_ids),
        "documents": len(ours.corpus_ids),
        "timed_texts": len(timed),
        "repeats": repeats,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": describe(1) | {"onnxruntime": metadata.version("onnxruntime"), "onnx": metadata.version("onnx")},
        "speeds": {name: _speed(name, seconds, len(timed)) for name in arms},
        "schemes": rows,
    }


def quality(encoder: ExportedEncoder, data: Dataset, ours: Vectors) -> dict[str, Any]:
    """Compare an export with the model on the split `ALL`.

    Args:
        encoder: the export.
        data: queries, corpus and judgements.
        ours: vectors of the model.

    Returns:
        Bytes of the graph, cosines, the paired difference in nDCG@10, and the lowest cosine of a text alone and in a
        batch.
    """
    queries = [data.queries[name] for name in ours.query_ids]
    corpus = [data.corpus[name] for name in ours.corpus_ids]
    theirs = replace(ours, queries=encoder.encode_queries(queries), corpus=encoder.encode_documents(corpus))
    pairs = ((ours.queries, theirs.queries), (ours.corpus, theirs.corpus))
    cosines = np.concatenate([cosine_of_rows(*pair) for pair in pairs])
    values = [evaluate(vectors.rank(10), data.qrels[ALL], [10]).of(METRIC) for vectors in (theirs, ours)]
    alone = np.concatenate([encoder.encode_documents([text]) for text in corpus[:ALONE]])
    return {
        "bytes": (encoder.folder / GRAPH).stat().st_size,
        "cosine_mean": float(cosines.mean()),
        "cosine_min": float(cosines.min()),
        "difference": asdict(paired_difference(*values)),
        "cosine_alone": float(cosine_of_rows(alone, theirs.corpus[:ALONE]).min()),
    }


def with_all_queries(data: Dataset) -> Dataset:
    """Return the dataset with one more split that holds the judged queries of all."""
    return replace(
        data, qrels={**data.qrels, ALL: {q: grades for split in data.qrels.values() for q, grades in split.items()}}
    )


def _export_all(model: Any, chosen: Sequence[Scheme], folder: Path) -> dict[str, ExportedEncoder]:
    """Export the model once per way to prepare it, then convert each file."""
    export_model(model, folder / "plain", comparison=Comparison(threads=1))
    card = ExportCard.read(folder / "plain")
    prepared: dict[Prepare | None, Path] = {None: folder / "plain" / GRAPH}
    encoders = {}
    for number, scheme in enumerate(chosen):
        if scheme.prepare not in prepared:
            prepared[scheme.prepare] = folder / f"prepared{len(prepared)}.onnx"
            write_graph(model, prepared[scheme.prepare], prepare=scheme.prepare)
        new = folder / str(number)
        new.mkdir()
        shutil.copy(folder / "plain" / TOKENIZER, new)
        (scheme.convert or shutil.copy)(prepared[scheme.prepare], new / GRAPH)
        files = card.files | {GRAPH: sha256_of(new / GRAPH)}
        (new / CARD).write_text(card_json(card.model_copy(update={"files": files})), encoding="utf-8")
        encoders[scheme.name] = ExportedEncoder(new, threads=1)
    return encoders


def _encoding(encoder: ExportedEncoder, texts: Sequence[str]) -> Callable[[], Any]:
    return lambda: encoder.encode_documents(texts)


def time_in_turns(arms: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """CPU seconds of every arm, one thread each: other programs on the machine count little."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for run in arms.values():
        run()
    for name in abba(list(arms), repeats):
        start = time.process_time()
        arms[name]()
        seconds[name].append(time.process_time() - start)
    return seconds


def _speed(name: str, seconds: dict[str, list[float]], texts: int) -> dict[str, Any]:
    rate = median_of([texts / value for value in seconds[name]])
    ratios = {f"times_{base}": median_ratio(seconds[base], seconds[name]) for base in (STOCK, PACKED)}
    return {"texts_per_second": rate._asdict()} | {key: ratio._asdict() for key, ratio in ratios.items()}
