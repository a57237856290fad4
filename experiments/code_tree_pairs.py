"""Does the tree of ICD-10-CM codes give more training pairs?

    python -m experiments.code_tree_pairs [ARM ...] [--seed 0]
    python -m experiments.code_tree_pairs --tables

Trains a static model with n-grams on the training pairs of `icd10cm:full`, then with pairs or texts from the code tree
(`ARMS`). All arms are scored on the same test queries, alone and next to the untouched base model. Nothing is chosen,
so dev is only reported. Results that are in results/code_tree_pairs.json are not computed again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from embedlab import load_dataset
from embedlab.data.dataset import Dataset
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.significance import bootstrap_ci, paired_difference
from embedlab.io import write_atomic
from embedlab.models.cache import EmbeddingCache
from embedlab.models.load import load_model
from embedlab.paths import results_dir
from embedlab.runs.summary import format_value
from embedlab.search.vectors import encode_split
from experiments.ceiling import DEPTH, METRIC, trained
from experiments.pages import markdown_table

DATASET, SHARE = "icd10cm:full", 0.7  # of the static model next to the base model, as in earlier runs
REFERENCE = "pairs only"


def parent(code: str, codes: Mapping[str, str]) -> str | None:
    """Return the nearest code above a code that is among `codes`: of A01.02 that is A01.0; None if there is none."""
    while len(code) > 3:
        code = code[:-1].rstrip(".")
        if code in codes:
            return code
    return None


def unchanged(data: Dataset) -> Dataset:
    """Return the data as it is."""
    return data


def parents_too(data: Dataset) -> Dataset:
    """Make the parent of a relevant code relevant in training, too."""
    train = {
        query: {**{above: 1 for code in grades if (above := parent(code, data.corpus))}, **grades}
        for query, grades in data.qrels["train"].items()
    }
    return replace(data, qrels={**data.qrels, "train": train})


def child_to_parent(data: Dataset) -> Dataset:
    """Add the description of every code as a training query for its parent, if the two have different descriptions."""
    pairs = {code: above for code, text in data.corpus.items() if (above := parent(code, data.corpus))}
    pairs = {code: above for code, above in pairs.items() if data.corpus[code] != data.corpus[above]}
    queries = {**data.queries, **{f"child-{code}": data.corpus[code] for code in pairs}}
    added = {f"child-{code}": {above: 1} for code, above in pairs.items()}
    return replace(data, queries=queries, qrels={**data.qrels, "train": {**data.qrels["train"], **added}})


def under_parent(data: Dataset) -> Dataset:
    """Write the parent's description in front of every document, in training and in search."""
    corpus = {}
    for code, text in data.corpus.items():
        above = parent(code, data.corpus)
        corpus[code] = f"{data.corpus[above]}: {text}" if above and data.corpus[above] != text else text
    return replace(data, corpus=corpus)


ARMS: dict[str, tuple[Callable[[Dataset], Dataset], float]] = {  # data, epochs
    REFERENCE: (unchanged, 8.0),
    "parents relevant": (parents_too, 8.0),
    "child to parent": (child_to_parent, 3.0),  # twice the steps of the reference
    "parent in the text": (under_parent, 8.0),
}


def scores(plain: Dataset, data: Dataset, epochs: float, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Train, then test: split -> system -> nDCG@10 of every query. The base model always encodes the plain texts."""
    static, base = trained(data, epochs=epochs, seed=seed), load_model()
    found: dict[str, dict[str, np.ndarray]] = {}
    for split in ("dev", "test"):
        half = encode_split(base, data, split, static=static)
        both = encode_split(base, plain, split, encode=EmbeddingCache().encode).concatenated(half, SHARE)
        found[split] = {
            name: evaluate(vectors.rank(DEPTH), data.qrels[split], [DEPTH]).of(METRIC)
            for name, vectors in (("static", half), ("base+static", both))
        }
    return found


def measure(arms: Sequence[str], seed: int) -> Iterator[dict[str, Any]]:
    """Yield the scores of one arm after the other, see `row`."""
    plain = load_dataset(DATASET)
    for arm in arms:
        change, epochs = ARMS[arm]
        yield row(arm, seed, scores(plain, change(plain), epochs, seed))


def row(arm: str, seed: int, found: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Return the scores of an arm for the file of results, with those of every test query."""
    test = {system: values.round(4).tolist() for system, values in found["test"].items()}
    return {"arm": arm, "seed": seed, "dev": {s: v.mean() for s, v in found["dev"].items()}, "test": test}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table: dev, test and the difference from the reference of the same seed, paired by query."""
    references = {found["seed"]: found["test"] for found in rows if found["arm"] == REFERENCE}
    lines = []
    for found in rows:
        for system, values in found["test"].items():
            mean, change = bootstrap_ci(np.array(values)), ""
            if found["arm"] != REFERENCE:
                gain = paired_difference(np.array(values), np.array(references[found["seed"]][system]))
                change = format_value(gain.mean, gain.low, gain.high, sign="+")
            test = format_value(mean.mean, mean.low, mean.high)
            lines.append([found["arm"], str(found["seed"]), system, f"{found['dev'][system]:.3f}", test, change])
    return markdown_table(["training", "seed", "system", "dev", "test", f"against {REFERENCE}"], lines)


def main() -> None:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arms", nargs="*", default=list(ARMS), help=f"of {', '.join(ARMS)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tables", action="store_true", help="only print the table")
    options = parser.parse_args()
    file = results_dir() / "code_tree_pairs.json"
    rows = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    measured = {found["arm"] for found in rows if found["seed"] == options.seed}
    missing = [] if options.tables else [arm for arm in options.arms if arm not in measured]
    for found in measure(missing, options.seed) if missing else ():
        rows.append(found)
        write_atomic(file, json.dumps(rows) + "\n")
        print(table(rows), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
