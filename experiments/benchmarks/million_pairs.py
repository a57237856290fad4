"""A million pairs from a Parquet file to the first training step: load, split, leakage guard, mining, rows, one step.

The pairs are synthetic: words by Zipf's law, and a document repeats half of its query's words. Negatives are mined with
a static model that is made from the base model's token embeddings. With the base model itself, two million short texts
take more than an hour on two cores. Training starts from the base model, as usual.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedlab.paths import cache_dir, project_root
from experiments.benchmarks.memory import own_bytes, own_peak
from experiments.benchmarks.spec import Arm, Benchmark, Figure, Workload
from experiments.benchmarks.workloads import SEED, our_model, scratch

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from embedlab.data.dataset import Dataset
    from embedlab.search.vectors import Vectors

VOCABULARY = 400_000
ZIPF = 1.07  # frequency of the word of rank r is proportional to r to the power of -1.07
QUERY_WORDS, DOCUMENT_WORDS = (3, 10), (4, 13)  # fewest, and one more than most
STATIC_DIMENSIONS = 128
BATCH_SIZE = 128


def first_step(*, pairs: int, batch_size: int = BATCH_SIZE) -> Workload:
    """Everything from the file to the first step; the seconds of each part are stored too."""
    path = cache_dir() / f"synthetic-pairs-{pairs}.parquet"
    if not path.exists():  # in a process of its own, whose memory does not count
        subprocess.run([sys.executable, "-m", __name__, str(path), str(pairs)], cwd=project_root(), check=True)
    small = scratch() / "small.parquet"
    write_pairs(small, 2_000)
    model = our_model()
    static = mining_model(model)
    gc.collect()
    loaded = own_bytes()

    def run(file: Path) -> dict[str, float]:
        with own_peak() as peak:
            measured = _run(file, model, static, batch_size)
        return {**measured, "own_bytes": peak.highest - loaded}

    return Workload(lambda: run(path), warm_up=lambda: run(small), facts={"file_bytes": path.stat().st_size})


def _run(file: Path, model: SentenceTransformer, static: SentenceTransformer, batch_size: int) -> dict[str, float]:
    from embedlab.data.load import load_dataset
    from embedlab.training.contrastive.fine_tune import build_rows, fine_tune, mine_negatives
    from embedlab.training.contrastive.train import ContrastiveParams

    seconds: dict[str, float] = {}
    start = time.perf_counter()
    params = ContrastiveParams.model_construct(
        **{**_PARAMETERS, "dataset": f"pairs:{file}", "batch_size": batch_size, "matryoshka_dims": [384]}
    )
    with _timing(seconds, "load"):
        dataset = load_dataset(f"{params.dataset}?repair=true")
    with tempfile.TemporaryDirectory(dir=cache_dir()) as folder:
        with _timing(seconds, "encode"):
            vectors = mining_vectors(dataset, static, Path(folder))
        with _timing(seconds, "mine"):
            negatives, reports = mine_negatives(dataset, params, vectors)
        with _timing(seconds, "rows"):
            rows = build_rows(dataset, params, negatives)
        counts = {
            "train": len(dataset.qrels["train"]),
            "documents": len(dataset.corpus),
            "mined": reports["base"].mined,
        }
        del negatives
        with _timing(seconds, "step"):
            fine_tune(model, dataset, params, rows, base=vectors, output_dir=str(scratch()))
    total = time.perf_counter() - start
    return {"seconds_to_first_step": total, **{f"{name}_seconds": value for name, value in seconds.items()}, **counts}


_PARAMETERS = {
    "model_name": "all-MiniLM-L6-v2",
    "seed": SEED,
    "max_steps": 1,
    "max_examples": 0,
    "output_dir": "",
    "epochs": 1,
    "learning_rate": 5e-5,
    "negatives": ["base"],
}


@contextmanager
def _timing(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start


def mining_model(base: SentenceTransformer) -> SentenceTransformer:
    """Make a static model: the base model's vectors of single tokens, on their `STATIC_DIMENSIONS` main axes."""
    import torch

    from embedlab.models.static import static_model, token_vectors

    embeddings = token_vectors(base).clone()
    embeddings -= embeddings.mean(dim=0)
    axes = torch.linalg.eigh(embeddings.T @ embeddings).eigenvectors[:, -STATIC_DIMENSIONS:]
    return static_model(base, embeddings @ axes)


def mining_vectors(dataset: Dataset, static: SentenceTransformer, folder: Path) -> Vectors:
    """Encode training queries and corpus to memory-mapped files."""
    from embedlab.models.static import encode_static
    from embedlab.models.vector_array import encode_to_file
    from embedlab.search.vectors import Vectors

    queries = dataset.split_queries("train")
    arrays = [
        encode_to_file(static, texts.values(), folder / f"{name}.npy", encode=_without_options(encode_static))
        for name, texts in (("queries", queries), ("corpus", dataset.corpus))
    ]
    return Vectors(tuple(queries), tuple(dataset.corpus), *arrays, own_documents=dataset.own_documents("train"))


def _without_options(encode):
    return lambda model, texts, **_: encode(model, texts)


def write_pairs(path: Path, count: int) -> None:
    """Write `count` synthetic pairs with the columns query and positive."""
    import pyarrow
    import pyarrow.parquet

    queries, documents = synthetic_pairs(count)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    pyarrow.parquet.write_table(pyarrow.table({"query": queries, "positive": documents}), temporary)
    temporary.replace(path)


def synthetic_pairs(count: int) -> tuple[list[str], list[str]]:
    """Draw pairs of texts; a smaller number gives other pairs, the same number always the same ones."""
    rng = np.random.default_rng(SEED)
    words = _words(VOCABULARY)
    lengths = rng.integers(*QUERY_WORDS, count), rng.integers(*DOCUMENT_WORDS, count)
    queries, documents = (np.split(_zipf(rng, int(n.sum())), n.cumsum()[:-1]) for n in lengths)
    for query, document in zip(queries, documents, strict=True):
        shared = min(len(document), len(query) // 2 + 1)
        document[:shared] = query[:shared]
    return [" ".join(words[text]) for text in queries], [" ".join(words[text]) for text in documents]


def _zipf(rng: np.random.Generator, count: int) -> np.ndarray:
    shares = np.arange(1, VOCABULARY + 1, dtype=np.float64) ** -ZIPF
    return np.searchsorted(np.cumsum(shares / shares.sum()), rng.random(count)).clip(max=VOCABULARY - 1)


def _words(count: int) -> np.ndarray:
    """Different words of one to four syllables, short ones first; as an array of objects."""
    syllables = [consonant + vowel for consonant, vowel in product("bcdfghjklmnprstvz", "aeiou")]
    found: list[str] = []
    length = 1
    while len(found) < count:
        found += ("".join(parts) for parts, _ in zip(product(syllables, repeat=length), range(count), strict=False))
        length += 1
    return np.array(found[:count], dtype=object)


BENCHMARKS = (
    Benchmark(
        name="million_pairs",
        title="1,000,000 short pairs from a Parquet file to the first training step",
        arms={
            "ours": Arm(
                f"{__name__}:first_step",
                "load, split, leakage guard, mining with a static model in a sample of documents, rows, one step",
            )
        },
        figures=(
            Figure("seconds_to_first_step", 600, unit="s"),
            Figure("own_bytes", 4_000_000_000, unit="bytes"),
        ),
        size={"pairs": 1_000_000},
        quick={"pairs": 3_000, "batch_size": 8},
        requires=("disk",),
    ),
)


if __name__ == "__main__":
    write_pairs(Path(sys.argv[1]), int(sys.argv[2]))
