"""The data of a recipe: a folder that any tool can read, without the test queries.

    corpus.jsonl      _id, text
    queries.jsonl     _id, text: training and dev queries
    qrels/train.tsv   query-id, corpus-id, score
    qrels/dev.tsv
    train.jsonl       query, positive: the training pairs as texts

It is a BEIR folder with one more file. A recipe cannot look at the test queries, because they are not there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedlab.data import beir, textio
from embedlab.data.dataset import Dataset
from embedlab.io import write_atomic

SEEN = ("train", "dev")  # splits that a recipe sees


def write(data: Dataset, folder: Path) -> None:
    """Write the corpus, and the queries and judgements of train and dev.

    Args:
        data: any dataset.
        folder: is created if needed.
    """
    _write_lines(folder / "corpus.jsonl", ({"_id": key, "text": text} for key, text in data.corpus.items()))
    queries = {query: text for split in SEEN for query, text in data.split_queries(split).items()}
    _write_lines(folder / "queries.jsonl", ({"_id": key, "text": text} for key, text in queries.items()))
    pairs = ({"query": data.queries[query], "positive": data.corpus[doc]} for query, doc in data.pairs("train"))
    _write_lines(folder / "train.jsonl", pairs)
    for split in SEEN:
        rows = [
            f"{query}\t{doc}\t{grade}\n" for query, grades in data.qrels[split].items() for doc, grade in grades.items()
        ]
        write_atomic(folder / "qrels" / f"{split}.tsv", "".join(["\t".join(beir.COLUMNS) + "\n", *rows]))


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


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
