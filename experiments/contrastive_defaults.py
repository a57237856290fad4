"""Which defaults of contrastive fine-tuning suit data of different kinds?

    python -m experiments.contrastive_defaults [NAME ...] [--settings SETTING ...]
    python -m experiments.contrastive_defaults --tables

Each setting changes one or more values of `CENTRE`. Training does not use dev: the weights of the last step are scored.
Dev chooses between the settings. The test scores are reported too, with the difference from the recipe `stock-mined` of
`experiments/arena/recipes`. Results that are in results/contrastive_defaults.json are not computed again.
`python -m experiments.arena.datasets SOURCES` makes the files of pairs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from embedlab.arena import exchange, recipe
from embedlab.data.load import load_dataset
from embedlab.evaluation.retrieval import evaluate_retrieval
from embedlab.evaluation.significance import paired_difference
from embedlab.io import write_atomic
from embedlab.models.cache import EmbeddingCache
from embedlab.models.fingerprint import model_fingerprint
from embedlab.models.layers import project
from embedlab.models.load import BASE_MODEL, load_model, model_path
from embedlab.paths import cache_dir, results_dir
from embedlab.search.vectors import encode_split
from embedlab.training.contrastive.train import ContrastiveParams
from experiments.pages import markdown_table
from experiments.recipes import contrastive, linear_map

DATASETS = {
    "icd10cm": "icd10cm:mini",
    "icd10multi": "icd10multi:de-en:mini",
    "banking77": "pairs:data/arena/banking77.jsonl?split_by=query&repair=true",
    "clinc150": "pairs:data/arena/clinc150.jsonl?split_by=query&repair=true",
    "faq": "pairs:data/arena/faq.jsonl?repair=true",
}
CENTRE: dict[str, Any] = {
    "epochs": 3.0,
    "min_steps": 0,
    "batch_size": 64,
    "learning_rate": 1e-4,
    "matryoshka_dims": [],
    "negatives": ["base", "expert"],
    "hard_negatives": 1,
    "linear_start": 0.0,
}
WIDTHS = [384, 256, 128, 64, 32]
LINEAR = "linear map alone"
SETTINGS: dict[str, dict[str, Any]] = {
    "centre": {},
    "rate 2e-4, batch 128, widths": {"learning_rate": 2e-4, "batch_size": 128, "matryoshka_dims": WIDTHS},
    "rate 2e-4": {"learning_rate": 2e-4},
    "6 epochs": {"epochs": 6.0},
    "12 epochs": {"epochs": 12.0},
    "widths": {"matryoshka_dims": WIDTHS},
    "no hard negatives": {"hard_negatives": 0},
    "whole linear start": {"linear_start": 1.0},
    "half linear start": {"linear_start": 0.5},
}
STOCK = "stock-mined"
REFERENCES = (STOCK, "stock-mnrl")
METRIC = "ndcg@10"


class Scores(NamedTuple):
    """nDCG@10 of every query, and the CPU seconds of the training."""

    dev: np.ndarray
    test: np.ndarray
    seconds: float


class Study:
    """One dataset, and what is measured on it.

    Args:
        name: one of `DATASETS`.
        seed: of every training.
    """

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.seed = name, seed
        self.data, self.base = load_dataset(DATASETS[name]), load_model(BASE_MODEL)
        self.vectors = encode_split(self.base, self.data, "train", encode=EmbeddingCache().encode)

    def scores(self, system: str) -> Scores:
        """Train a system and score it, or read what an earlier call has kept on disk."""
        file = cache_dir() / "contrastive_defaults" / f"{self.name}-{system.replace(' ', '_')}-{self.seed}.npz"
        if not file.exists():
            model, seconds = self._maker(system)()
            values = {}
            for split in ("dev", "test"):
                (evaluation,) = evaluate_retrieval(model, self.data, split, k=10).values()
                values[split] = evaluation.of(METRIC)
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, **values, seconds=seconds)
        kept = np.load(file)
        return Scores(kept["dev"], kept["test"], float(kept["seconds"]))

    def _maker(self, system: str) -> Callable[[], tuple[Any, float]]:
        if system == "base":
            return lambda: (self.base, 0.0)
        if system in REFERENCES:
            return partial(self._run_recipe, system)
        if system == LINEAR:
            return self._linear
        return partial(self._train, CENTRE | SETTINGS[system])

    def _run_recipe(self, name: str) -> tuple[Any, float]:
        with tempfile.TemporaryDirectory() as scratch:
            exchange.write(self.data, Path(scratch))
            facts = {"data": exchange.fingerprint(Path(scratch)), "base": model_fingerprint(self.base)}
            cost, folder = recipe.run(
                recipe.find(name), Path(scratch), model_path(BASE_MODEL), seed=self.seed, facts=facts
            )
        return load_model(str(folder)), cost.cpu_seconds

    def _linear(self) -> tuple[Any, float]:
        started = time.process_time()
        probe = linear_map(self.data, self.vectors, self.base, self.seed)
        return project(load_model(BASE_MODEL), torch.from_numpy(probe.matrix)), time.process_time() - started

    def _train(self, values: Mapping[str, Any]) -> tuple[Any, float]:
        started = time.process_time()
        common = {"dataset": DATASETS[self.name], "model_name": BASE_MODEL, "seed": self.seed}
        params = ContrastiveParams.checked({**values, **common})
        return contrastive(self.data, self.vectors, self.base, params), time.process_time() - started


def measure(name: str, systems: Iterable[str], seed: int) -> list[dict[str, Any]]:
    """Measure systems on one dataset: one row each, with the difference from the stock recipe on test."""
    study = Study(name, seed)
    stock = study.scores(STOCK)
    rows = []
    for system in systems:
        scores = study.scores(system)
        row = {"dataset": name, "system": system, "seed": seed, "cpu_seconds": round(scores.seconds, 1)}
        row |= {"dev": round(float(np.nanmean(scores.dev)), 4), "test": round(float(np.nanmean(scores.test)), 4)}
        if system != STOCK:
            gain = paired_difference(scores.test, stock.test)
            row["against stock"] = [round(value, 4) for value in (gain.mean, gain.low, gain.high)]
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a Markdown table: one row for each system, one column for each dataset, test nDCG@10 and CPU seconds."""
    found = {(row["system"], row["dataset"]): row for row in rows}
    names = [name for name in DATASETS if any(dataset == name for _, dataset in found)]
    lines = []
    for system in dict.fromkeys(system for system, _ in found):
        cells = [found.get((system, name)) for name in names]
        values = [f"{cell['test']:.3f} ({cell['cpu_seconds']:.0f} s)" if cell else "" for cell in cells]
        known = [cell for cell in cells if cell]
        means = [f"{np.mean([cell[split] for cell in known]):.3f}" for split in ("dev", "test")]
        lines.append([system, *values, *(means if len(known) == len(names) else ["", ""])])
    return markdown_table(["", *names, "mean, dev", "mean, test"], lines)


def main() -> None:
    """Measure what is missing, keep it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", metavar="NAME", help=f"of {', '.join(DATASETS)}; all if none is given")
    parser.add_argument("--settings", nargs="+", help=f"of {', '.join(SETTINGS)}; all if none is given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tables", action="store_true", help="only print the table")
    options = parser.parse_args()
    file = results_dir() / "contrastive_defaults.json"
    rows = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    for name in [] if options.tables else options.datasets or DATASETS:
        known = {row["system"] for row in rows if (row["dataset"], row["seed"]) == (name, options.seed)}
        wanted = ["base", *REFERENCES, LINEAR, *(options.settings or SETTINGS)]
        rows += measure(name, [system for system in wanted if system not in known], options.seed)
        write_atomic(file, json.dumps(rows, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
