"""Make the datasets of the arena that are not part of this project: files of pairs in data/arena.

    python -m experiments.arena.datasets SOURCES

`SOURCES` holds the files as their authors publish them: `banking77/train.csv` and `test.csv` (text, category),
`clinc150/data_full.json`, and `medquad/`, a BEIR folder of MedQuAD. What is missing is left out. Samples are drawn in
the order of hashes, so the same files give the same datasets on every machine.

- `banking77`, `clinc150`: the document of a query is the name of its intent (use `?split_by=query`).
- `medquad`: questions of patients and their answers. `faq`: 400 of them with short answers. `long`: 400 with long ones.
- `docstrings`: the first line of a Python docstring finds the rest.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from embedlab import load_dataset, paths
from embedlab.data.dataset import Dataset
from embedlab.data.formats.base import json_lines
from embedlab.data.splits import seeded_order
from embedlab.io import write_atomic

INTENTS = {"train": 10, "dev": 2, "test": 4}  # queries per intent
SIZES = {"medquad": (1_000, 150, 500), "faq": (400, 100, 300), "long": (400, 100, 300), "docstrings": (1_200, 150, 500)}
WORDS = {"medquad": (0, 10**9), "faq": (0, 80), "long": (250, 10**9), "docstrings": (0, 10**9)}  # of a document


class Pair(NamedTuple):
    """A line of a file of pairs."""

    query: str
    positive: str
    split: str


def intent_pairs(labelled: Mapping[str, Iterable[tuple[str, str]]]) -> list[Pair]:
    """Turn labelled texts into retrieval: the query is the text, the document is the name of its intent.

    Args:
        labelled: "train" and "test" -> (text, intent). Dev queries are taken from train.
    """
    pairs = []
    for source, splits in {"train": ("train", "dev"), "test": ("test",)}.items():
        by_intent: dict[str, dict[str, None]] = {}
        for text, intent in labelled[source]:
            by_intent.setdefault(intent.replace("_", " "), {})[text] = None
        for intent, texts in by_intent.items():
            remaining = seeded_order(texts)
            for split in splits:
                chosen, remaining = remaining[: INTENTS[split]], remaining[INTENTS[split] :]
                pairs += [Pair(text, intent, split) for text in chosen]
    return pairs


def sample(data: Dataset, name: str) -> list[Pair]:
    """Draw queries with one answer each, of the length that `WORDS` allows.

    Args:
        data: a dataset with three splits, or with test queries only, which are then divided.
        name: which dataset to make, see `SIZES`.
    """
    fewest, most = WORDS[name]
    fitting = {}
    for split, judged in data.qrels.items():
        answers = {query: next((doc for doc in docs if doc in data.corpus), "") for query, docs in judged.items()}
        kept = {q: doc for q, doc in answers.items() if doc and fewest <= len(data.corpus[doc].split()) <= most}
        fitting[split] = [Pair(data.queries[query], data.corpus[kept[query]], split) for query in seeded_order(kept)]
    sizes = dict(zip(("train", "dev", "test"), SIZES[name], strict=True))
    if not fitting["train"]:
        ends = {"test": sizes["test"], "dev": sizes["test"] + sizes["dev"], "train": sum(sizes.values())}
        rows, start = fitting["test"], 0
        for split, end in ends.items():
            fitting[split], start = [pair._replace(split=split) for pair in rows[start:end]], end
    return [pair for split, size in sizes.items() for pair in fitting[split][:size]]


def make(sources: Path) -> dict[str, list[Pair]]:
    """Make every dataset whose source is there: name -> pairs."""
    made = {"docstrings": sample(load_dataset("pydocs", training=False), "docstrings")}
    if (folder := sources / "medquad").is_dir():
        medquad = load_dataset(f"beir:{folder}", repair=True)
        made |= {name: sample(medquad, name) for name in ("medquad", "faq", "long")}
    if (folder := sources / "banking77").is_dir():
        made["banking77"] = intent_pairs({split: _csv(folder / f"{split}.csv") for split in ("train", "test")})
    if (file := sources / "clinc150" / "data_full.json").is_file():
        made["clinc150"] = intent_pairs(json.loads(file.read_text(encoding="utf-8")))
    return made


def _csv(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["category"]) for row in csv.DictReader(file)]


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, help="folder with banking77, clinc150 and medquad")
    for name, pairs in make(parser.parse_args().sources).items():
        path = paths.project_root() / "data" / "arena" / f"{name}.jsonl"
        write_atomic(path, json_lines([pair._asdict() for pair in pairs]))
        counts = {split: sum(pair.split == split for pair in pairs) for split in INTENTS}
        print(f"{path}: {counts}, {len({pair.positive for pair in pairs}):,} documents")


if __name__ == "__main__":
    main()
