"""The data of a recipe: a folder that any tool can read, without the test queries.

    corpus.jsonl      _id, title (empty), text
    queries.jsonl     _id, text: training and dev queries
    qrels/train.tsv   query-id, corpus-id, score
    qrels/dev.tsv
    train.jsonl       query, positive: the training pairs as texts

It is a BEIR folder with one more file. A recipe cannot look at the test queries, because they are not there.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from embedlab.data import beir, textio
from embedlab.data.dataset import Dataset
from embedlab.data.formats import beir_folder
from embedlab.data.formats.base import Example, Export, Judged, json_lines
from embedlab.io import write_atomic

SEEN = ("train", "dev")  # splits that a recipe sees


def write(data: Dataset, folder: Path) -> None:
    """Write the corpus, and the queries and judgements of train and dev.

    Args:
        data: any dataset.
        folder: is created if needed.
    """
    examples = tuple(
        Example(
            query,
            data.queries[query],
            tuple(Judged(doc, data.corpus[doc], grade) for doc, grade in grades.items() if doc in data.corpus),
            split=split,
        )
        for split in SEEN
        for query, grades in data.qrels[split].items()
    )
    beir_folder.FORMAT.write(Export(examples, data.corpus), folder)
    pairs = [{"query": data.queries[query], "positive": data.corpus[doc]} for query, doc in data.pairs("train")]
    write_atomic(folder / "train.jsonl", json_lines(pairs))


def fingerprint(folder: Path) -> str:
    """Hash the files of such a folder: 16 hex digits."""
    return textio.fingerprint(sorted(path for path in folder.rglob("*") if path.is_file()))


def read(folder: str) -> Dataset:
    """Read such a folder for a recipe that uses this package.

    Returns:
        The dataset with an empty test split.
    """
    data = beir.load(folder, name=folder)
    # The loader makes a test split from train if there is none. Here the test queries are somewhere else.
    train = {**data.qrels["train"], **data.qrels["test"]}
    return replace(data, qrels={"train": train, "dev": data.qrels["dev"], "test": {}})
