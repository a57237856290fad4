"""How good could a model be on unseen ICD-10-CM codes if it had seen their other terms?

    python -m experiments.ceiling

The test queries of `icd10cm:full` are divided in two halves, so that the terms of a code are in both. A static model
with n-grams is trained on the training pairs, then on the training pairs and one half. The other half is the test. Both
models answer the same queries: those whose code has a term in the half that was trained on. The difference is what is
lost because a code is new. What is still missing to 1 is not due to new codes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab import load_dataset, load_model
from embedlab.data.dataset import Dataset
from embedlab.data.splits import seeded_order
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.significance import bootstrap_ci, paired_difference
from embedlab.io import write_atomic
from embedlab.models.cache import EmbeddingCache
from embedlab.paths import results_dir
from embedlab.search.vectors import encode_split
from embedlab.training.contrastive.static_model import train_static_model
from embedlab.training.fit import FitSettings

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

METRIC, DEPTH = "ndcg@10", 10
SHARES = (0.6, 0.7, 0.8)  # of the static model, next to the untouched base model
SETTINGS: dict[str, Any] = {"batch_size": 256, "learning_rate": 3e-3, "weight_decay": 0.0}


def halves(data: Dataset) -> tuple[list[str], list[str]]:
    """Divide the test queries in two, the terms of each code in turns; a query counts for its first code."""
    by_code: dict[str, list[str]] = {}
    for query in seeded_order(data.qrels["test"]):
        by_code.setdefault(min(data.qrels["test"][query]), []).append(query)
    first: list[str] = []
    second: list[str] = []
    for queries in by_code.values():
        smaller, larger = sorted((first, second), key=len)
        smaller += queries[::2]
        larger += queries[1::2]
    return first, second


def with_more_training(data: Dataset, learned: list[str], tested: list[str]) -> Dataset:
    """Move test queries to training; the test split is what is left of `tested` with a code that is learned."""
    test = data.qrels["test"]
    learned_codes = {code for query in learned for code in test[query]}
    train = data.qrels["train"] | {query: test[query] for query in learned}
    testable = {query: test[query] for query in tested if learned_codes & set(test[query])}
    return replace(data, qrels={**data.qrels, "train": train, "test": testable})


def trained(data: Dataset, *, epochs: float, seed: int) -> SentenceTransformer:
    """Train a static model with n-grams on the training pairs."""
    settings = FitSettings(epochs=epochs, seed=seed, **SETTINGS)
    with tempfile.TemporaryDirectory() as scratch:
        return train_static_model(load_model(), data, settings, ngrams=True, output_dir=scratch)[0]


def scores(static: SentenceTransformer, data: Dataset) -> dict[str, np.ndarray]:
    """Test a static model, alone and next to the untouched base model: system -> nDCG@10 of the test queries."""
    base = load_model()
    transformer = encode_split(base, data, "test", encode=EmbeddingCache().encode)
    half = encode_split(base, data, "test", static=static)
    systems = {"static": half} | {f"base+static {share}": transformer.concatenated(half, share) for share in SHARES}
    qrels = data.qrels["test"]
    return {name: evaluate(vectors.rank(DEPTH), qrels, [DEPTH]).of(METRIC) for name, vectors in systems.items()}


def measure(spec: str, *, epochs: float, seed: int) -> dict[str, dict[str, object]]:
    """Measure with and without the other terms of the test codes: system -> means, interval of the gain, queries."""
    data = load_dataset(spec)
    first, second = halves(data)
    folds = [with_more_training(data, first, second), with_more_training(data, second, first)]
    never_seen = trained(data, epochs=epochs, seed=seed)
    unseen = [scores(never_seen, fold) for fold in folds]
    seen = [scores(trained(fold, epochs=epochs, seed=seed), fold) for fold in folds]
    results: dict[str, dict[str, object]] = {}
    for system in seen[0]:
        without, including = (np.concatenate([fold[system] for fold in values]) for values in (unseen, seen))
        means, gain = [bootstrap_ci(without), bootstrap_ci(including)], paired_difference(including, without)
        results[system] = {
            "queries": len(including),
            "unseen codes": [means[0].mean, means[0].low, means[0].high],
            "other terms known": [means[1].mean, means[1].low, means[1].high],
            "gain": [gain.mean, gain.low, gain.high],
        }
        print(system, json.dumps(results[system]), flush=True)
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="icd10cm:full")
    parser.add_argument("--epochs", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    outcome = measure(options.dataset, epochs=options.epochs, seed=options.seed)
    write_atomic(results_dir() / "ceiling.json", json.dumps({"options": vars(options), "results": outcome}, indent=1))
