"""Another base model: every way to go on, for an untuned and for a tuned old model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from embedlab.data.dataset import Dataset
from embedlab.data.load import load_dataset
from embedlab.deploy.adapter import fit_ridge
from embedlab.deploy.migration.advice import advice
from embedlab.deploy.migration.advise import TIMED, TUNED
from embedlab.deploy.migration.compare import Settings, compare
from embedlab.deploy.migration.costs import Rate
from embedlab.deploy.migration.options import NEW, OLD, Judged, Spaces
from embedlab.models.adapter import VectorAdapter
from embedlab.models.encode import encode
from embedlab.models.load import load_model
from experiments.benchmarks.environment import describe
from experiments.migrations.tuned import PROBE, Parts, adapted, encode_parts, fewer_training_queries, open_probe, tune

DOCUMENTS = 10_000_000  # of the live index that costs are given for
TRAINING_QUERIES = 1_000  # the larger model encodes them slowly on one core
STEPS = 200
RIDGE = 0.01  # of the map that the warm start begins with
WARM, FRESH = TUNED


def base_change(dataset: str, old: str, new: str) -> dict[str, Any]:
    """Compare all ways from one base model to another.

    Args:
        dataset: judged queries in train, dev and test.
        old, new: names of local models.

    Returns:
        Settings, environment, and the comparisons `untuned` and `tuned`, ready for JSON.
    """
    torch.set_num_threads(1)
    data, probe = fewer_training_queries(load_dataset(dataset), TRAINING_QUERIES), open_probe()
    parts, rates = {}, {}
    for role, name in ((OLD, old), (NEW, new)):
        model = load_model(name)
        parts[role] = encode_parts(model, data, probe)
        rates[role] = Rate(cpu_rate(model, data))
    tuned_old = adapted(parts[OLD], tune(parts[OLD], data, steps=STEPS))
    tuned = {
        WARM: warm_start(parts[NEW], tuned_old, data),
        FRESH: adapted(parts[NEW], tune(parts[NEW], data, steps=STEPS)),
    }
    all_rates = {**rates, **dict.fromkeys(tuned, rates[NEW])}
    settings = Settings(documents=DOCUMENTS)
    return {
        "dataset": data.name,
        "old": old,
        "new": new,
        "corpus": len(data.corpus),
        "training_queries": len(data.qrels["train"]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": describe(1),
        "texts_per_cpu_second": {role: rate.texts_per_second for role, rate in rates.items()},
        "untuned": _compared(data, probe, parts, {}, rates, settings),
        "tuned": _compared(data, probe, {OLD: tuned_old, NEW: parts[NEW]}, tuned, all_rates, settings),
    }


def cpu_rate(model: Any, data: Dataset) -> float:
    """Texts per second of CPU time, with one thread. Other programs change CPU time less than wall-clock time."""
    texts = list(data.corpus.values())
    sample = [texts[row] for row in np.random.default_rng(0).permutation(len(texts))[: 2 * TIMED]]
    encode(model, sample[:TIMED])
    began = time.process_time()
    encode(model, sample[TIMED:])
    return TIMED / (time.process_time() - began)


def warm_start(new: Parts, tuned_old: Parts, data: Dataset) -> dict[str, Any]:
    """Map the new base into the space of the old tuned model, and tune from there.

    The map is a ridge regression between the document vectors of both models.
    """
    ridge_map = fit_ridge(new["train"].corpus, tuned_old["train"].corpus, RIDGE)
    start = adapted(new, VectorAdapter("ridge", ridge_map, ridge_map))
    return adapted(start, tune(start, data, steps=STEPS))


def _compared(
    data: Dataset,
    probe: Dataset,
    parts: Mapping[str, Parts],
    tuned: Mapping[str, Parts],
    rates: Mapping[str, Rate],
    settings: Settings,
) -> dict[str, Any]:
    judged = {
        name: Judged(
            Spaces(parts[OLD][name], parts[NEW][name], {role: vectors[name] for role, vectors in tuned.items()}), qrels
        )
        for name, qrels in (("dev", data.qrels["dev"]), ("test", data.qrels["test"]), (PROBE, probe.qrels["test"]))
    }
    meanings = {role: TUNED[role] for role in tuned}
    comparison = compare(
        judged["dev"], judged["test"], probe=judged[PROBE], tuned=meanings, rates=rates, settings=settings
    )
    return {**comparison.as_json(), "advice": advice(comparison)}
