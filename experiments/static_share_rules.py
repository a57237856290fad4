"""How should dev choose the share of the static model in a concatenation?

    python -m experiments.static_share_rules [DATASET ...] [--seeds 0 1]
    python -m experiments.static_share_rules --tables

The untouched base model is concatenated with a static model that is trained on the same pairs, with shares from 0.1 to
0.9. Each rule of `RULES` chooses a share on dev. What it loses on test against the share that is best on test says how
good the rule is. Results that are in results/static_share_rules.json are not computed again.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from embedlab.data.load import load_dataset
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.static_share import SHARES, best_share, level_with_highest, nearest_share
from embedlab.io import write_atomic
from embedlab.models.cache import EmbeddingCache
from embedlab.models.load import load_model
from embedlab.paths import results_dir
from embedlab.search.vectors import encode_split
from embedlab.training.contrastive.static_model import train_static_model, untrained_static_model
from embedlab.training.fit import FitSettings
from experiments.ceiling import DEPTH, METRIC, SETTINGS
from experiments.contrastive_defaults import DATASETS
from experiments.pages import markdown_table

SPECS = DATASETS | {"icd10cm terms": "icd10cm:mini:terms"}
EPOCHS = 8.0
Curve = Mapping[float, np.ndarray]  # share -> nDCG@10 of every query


def highest(dev: Curve) -> float:
    """Choose the share with the highest mean."""
    return max(dev, key=lambda share: float(dev[share].mean()))


def smallest_level(dev: Curve) -> float:
    """Choose the smallest share that is level with the highest (the rule of one standard error)."""
    return min(level_with_highest(dev))


def parabola(dev: Curve) -> float:
    """Choose the highest point of a parabola through the means."""
    fitted, grid = np.polyfit(list(dev), [values.mean() for values in dev.values()], 2), np.linspace(0.1, 0.9, 81)
    return nearest_share(dev, float(grid[np.polyval(fitted, grid).argmax()]))


RULES: dict[str, Callable[[Curve], float]] = {
    "highest on dev": highest,
    "middle of the level ones": best_share,
    "parabola": parabola,
    "smallest level one": smallest_level,
}


def curves(dataset: str, seeds: Sequence[int]) -> Iterator[tuple[int, dict[str, dict[float, np.ndarray]]]]:
    """Yield for each seed: split -> share -> nDCG@10 of every query."""
    data, base = load_dataset(SPECS[dataset]), load_model()
    whole = {split: encode_split(base, data, split, encode=EmbeddingCache().encode) for split in ("dev", "test")}
    start = untrained_static_model(base, data)
    for seed in seeds:
        settings = FitSettings(epochs=EPOCHS, seed=seed, **SETTINGS)
        with tempfile.TemporaryDirectory() as scratch:
            static, _ = train_static_model(base, data, settings, start=copy.deepcopy(start), output_dir=scratch)
        found: dict[str, dict[float, np.ndarray]] = {}
        for split, vectors in whole.items():
            half = encode_split(static, data, split)
            found[split] = {
                share: evaluate(vectors.concatenated(half, share).rank(DEPTH), data.qrels[split], [DEPTH]).of(METRIC)
                for share in SHARES
            }
        yield seed, found


def row(dataset: str, seed: int, found: Mapping[str, Curve]) -> dict[str, Any]:
    """Return what each rule chooses and its value on test, and the means of the curves."""
    test = {share: float(values.mean()) for share, values in found["test"].items()}
    chosen = {name: rule(found["dev"]) for name, rule in RULES.items()}
    means = {split: [float(values.mean()) for values in curve.values()] for split, curve in found.items()}
    scores = {name: test[share] for name, share in chosen.items()}
    return {"dataset": dataset, "seed": seed, "best": max(test.values()), "chosen": chosen, "values": scores} | means


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table: the share that each rule chose and what it loses on test; then the means."""
    lines = []
    for found in rows:
        losses = [f"{found['chosen'][rule]} ({found['values'][rule] - found['best']:+.3f})" for rule in RULES]
        lines.append([found["dataset"], str(found["seed"]), f"{found['best']:.3f}", *losses])
    means = [np.mean([found["values"][rule] - found["best"] for found in rows]) for rule in RULES]
    lines.append(["mean", "", "", *(f"{mean:+.4f}" for mean in means)])
    return markdown_table(["dataset", "seed", "best on test", *RULES], lines)


def main() -> None:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", default=list(SPECS), help=f"of {', '.join(SPECS)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--tables", action="store_true", help="only print the table")
    options = parser.parse_args()
    file = results_dir() / "static_share_rules.json"
    rows = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    for dataset in [] if options.tables else options.datasets:
        measured = {found["seed"] for found in rows if found["dataset"] == dataset}
        if missing := [seed for seed in options.seeds if seed not in measured]:
            rows += [row(dataset, seed, found) for seed, found in curves(dataset, missing)]
            write_atomic(file, json.dumps(rows, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
