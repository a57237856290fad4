"""Compare the ways from one model to another for two model names and a dataset."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embedlab.data.dataset import Dataset
from embedlab.data.load import load_dataset
from embedlab.deploy.migration.compare import Comparison, Settings, compare
from embedlab.deploy.migration.costs import Rate
from embedlab.deploy.migration.options import NEW, OLD, Judged, Spaces
from embedlab.errors import ParameterError
from embedlab.evaluation.probes import DEFAULT_PROBES, shrunk
from embedlab.models.api import ApiModel
from embedlab.models.cache import EmbeddingCache
from embedlab.models.encode import encode
from embedlab.models.fingerprint import model_fingerprint
from embedlab.models.load import open_model
from embedlab.models.sides import sides_of
from embedlab.models.spending import estimated_tokens
from embedlab.redaction import redacted
from embedlab.search.encoded import judged_queries
from embedlab.search.vectors import Encode, Vectors, encode_split

TUNED = {
    "re-tuned, warm": "re-embed with the model that was tuned again from the old fine-tuned one",
    "re-tuned, new base": "re-embed with the model that was tuned from the new base",
}
SPLITS = ("dev", "test")
PROBE, PROBE_QUERIES = DEFAULT_PROBES[0], 100
TIMED = 64  # documents whose encoding is timed


def advise(
    old: str,
    new: str,
    dataset: str,
    *,
    tuned: Mapping[str, str] | None = None,
    probe: str = PROBE,
    probe_queries: int = PROBE_QUERIES,
    texts_per_second: float | None = None,
    settings: Settings | None = None,
) -> Comparison:
    """Encode with every model, and compare the options.

    Args:
        old, new: any names that `open_model` takes.
        dataset: spec of a dataset with queries in dev and test.
        tuned: name of an option in `TUNED` -> name of the tuned model.
        probe: spec of a dataset of another domain, to measure forgetting; "" for none.
        probe_queries: at most so many of its queries.
        texts_per_second: of re-embedding; measured here if None, except for models behind an API.
        settings: the assumptions.

    Raises:
        ParameterError: a split has no queries, or both names mean the same model.
        EmbedlabError: a model or a dataset cannot be loaded.
    """
    data = load_dataset(dataset, training=False)
    for split in SPLITS:
        judged_queries(data, split)
    other = shrunk(load_dataset(probe, training=False), probe_queries) if probe else None
    names = {OLD: old, NEW: new, **(tuned or {})}
    models = {role: open_model(name) for role, name in names.items()}  # all of them, before hours of encoding
    if model_fingerprint(models[NEW]) == model_fingerprint(models[OLD]):
        problem = f"{redacted(old)!r} and {redacted(new)!r} are the same model"
        raise ParameterError(problem, remedy="Name two different models", field="--new")
    encoded = {role: _encode(model, data, other) for role, model in models.items()}
    rates = {role: rate_of(model, list(data.corpus.values()), texts_per_second) for role, model in models.items()}
    parts = [Spaces(vectors[OLD], vectors[NEW], vectors) for vectors in _by_part(encoded)]
    qrels = [data.qrels[split] for split in SPLITS] + ([other.qrels["test"]] if other else [])
    dev, test, *probes = (Judged(spaces, judgements) for spaces, judgements in zip(parts, qrels, strict=True))
    meanings = {role: TUNED.get(role, role) for role in tuned or {}}
    probe_part = probes[0] if probes else None
    return compare(dev, test, probe=probe_part, tuned=meanings, rates=rates, settings=settings)


def rate_of(model: Any, texts: Sequence[str], texts_per_second: float | None = None) -> Rate:
    """Measure how fast a local model encodes documents, or compute what an API charges for one.

    Args:
        model: what `open_model` returned.
        texts: documents; a sample of them is encoded, past the cache.
        texts_per_second: stands in for the measurement. An API is never timed: that would cost money.
    """
    sample = [texts[row] for row in np.random.default_rng(0).permutation(len(texts))[:TIMED]]
    prompt = sides_of(model).document.prompt or ""
    if isinstance(model, ApiModel):
        tokens = estimated_tokens(prompt + text for text in sample)
        cost = model.endpoint.price.cost(tokens)
        return Rate(texts_per_second, None if cost is None else cost / len(sample))
    if texts_per_second is None:
        began = time.perf_counter()
        encode(sides_of(model).document.model, sample, stage="time a sample", prompt=prompt or None)
        texts_per_second = len(sample) / (time.perf_counter() - began)
    return Rate(texts_per_second)


def _encode(model: Any, data: Dataset, probe: Dataset | None) -> list[Vectors]:
    """Encode dev, test and the probe; the corpus of the dataset once."""
    cached: Encode = EmbeddingCache().encode
    dev = encode_split(model, data, SPLITS[0], encode=cached)
    vectors = [dev, encode_split(model, data, SPLITS[1], encode=cached, corpus_vectors=dev.corpus)]
    return [*vectors, encode_split(model, probe, "test", encode=cached)] if probe else vectors


def _by_part(encoded: Mapping[str, Sequence[Vectors]]) -> list[dict[str, Vectors]]:
    """Turn role -> vectors of dev, test and probe into one mapping role -> vectors for each of them."""
    return [dict(zip(encoded, part, strict=True)) for part in zip(*encoded.values(), strict=True)]
