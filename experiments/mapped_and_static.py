"""Does a linear map on the transformer's vectors help next to a static model?

    python -m experiments.mapped_and_static DATASET STATIC [-m MODEL] [--seed 0] [-o NAME]

Scores a transformer, its vectors after a linear map, a static model, and both concatenations with the static model.
The map is trained on the training pairs; its step and the share of the static model are chosen on dev. Nothing is
projected, so a concatenation has the dimensions of both parts. Results go to results/mapped_and_static.json.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

from embedlab import load_dataset, load_model
from embedlab.data.dataset import Dataset
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.significance import bootstrap_ci, paired_difference
from embedlab.evaluation.static_share import SHARES, best_share, score_static_shares
from embedlab.io import write_atomic
from embedlab.models.cache import EmbeddingCache
from embedlab.models.load import BASE_MODEL
from embedlab.paths import results_dir
from embedlab.search.vectors import Vectors, encode_split
from experiments.recipes import linear_map

METRIC, DEPTH = "ndcg@10", 10
Splits = dict[str, Vectors]  # dev and test of one system


def of_test(vectors: Splits, data: Dataset) -> np.ndarray:
    """Return nDCG@10 of every test query."""
    return evaluate(vectors["test"].rank(DEPTH), data.qrels["test"], [DEPTH]).of(METRIC)


def joined(vectors: Splits, static: Splits, data: Dataset) -> tuple[Splits, float]:
    """Concatenate with the static model at the share that `best_share` chooses on dev."""
    on_dev = score_static_shares(vectors["dev"], static["dev"], data.qrels["dev"], shares=(0.0, *SHARES, 1.0))
    share = best_share(on_dev)
    return {split: vectors[split].concatenated(static[split], share) for split in vectors}, share


def measure(spec: str, model_name: str, static_name: str, seed: int) -> dict[str, Any]:
    """Score all five systems: system -> mean and interval, and the differences between them."""
    data, model, static = load_dataset(spec), load_model(model_name), load_model(static_name)
    encode = EmbeddingCache().encode
    train = encode_split(model, data, "train", encode=encode)
    splits = ("dev", "test")
    base = {split: encode_split(model, data, split, corpus_vectors=train.corpus, encode=encode) for split in splits}
    halves = {split: encode_split(static, data, split) for split in splits}
    probe = linear_map(data, train, model, seed)
    mapped = {split: probe.apply(vectors) for split, vectors in base.items()}
    systems, shares = {"base": base, "mapped": mapped, "static": halves}, {}
    for name, vectors in (("base", base), ("mapped", mapped)):
        systems[f"{name}+static"], shares[f"{name}+static"] = joined(vectors, halves, data)
    values = {name: of_test(vectors, data) for name, vectors in systems.items()}
    means = {name: bootstrap_ci(found) for name, found in values.items()}
    pairs = [
        ("mapped", "base"),
        ("base+static", "static"),
        ("mapped+static", "static"),
        ("mapped+static", "base+static"),
    ]
    gains = {pair: paired_difference(values[pair[0]], values[pair[1]]) for pair in pairs}
    return {
        "dataset": spec,
        "model": model_name,
        "seed": seed,
        "map": f"best at step {probe.step}",
        "shares": shares,
        "dimensions": {name: vectors["test"].dim for name, vectors in systems.items()},
        METRIC: {name: [found.mean, found.low, found.high] for name, found in means.items()},
        "differences": {" - ".join(pair): [gain.mean, gain.low, gain.high] for pair, gain in gains.items()},
    }


def main() -> None:
    """Measure one model, keep it and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("static", help="folder of the static model")
    parser.add_argument("-m", "--model", default=BASE_MODEL)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--name", help="name of the result; the model and the seed if none is given")
    options = parser.parse_args()
    file = results_dir() / "mapped_and_static.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    outcome = measure(options.dataset, options.model, options.static, options.seed)
    results[options.name or f"{options.model}, seed {options.seed}"] = outcome
    write_atomic(file, json.dumps(results, indent=1) + "\n")
    print(json.dumps(outcome, indent=1))


if __name__ == "__main__":
    main()
