"""A million documents on Dask workers that are killed on the way, against one process that nothing happens to.

The model is a static one, as in `memory_1m`: what is measured is the cost of pieces, files, workers and kills.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab.deploy.space import ModelEncoder
from embedlab.paths import cache_dir
from experiments.benchmarks.memory_1m import HIDDEN, lookup_model, make_texts
from experiments.benchmarks.spec import Arm, Benchmark, Figure, Workload
from experiments.benchmarks.workloads import SEED

if TYPE_CHECKING:
    from distributed import Client

    from embedlab.deploy.parts import Part, Plan
    from embedlab.deploy.shards import Pool, ShardReport
    from embedlab.deploy.storage import Storage

FILES = 4
PIECES = 50
LISTS = 256  # 4 √N would be 4,000; k-means of so many takes most of the time
QUERIES, DEPTH = 100, 10
SMALLER = 10  # the peak memory of a worker is compared with that for a tenth of the documents


@cache
def make_encoder(model: str) -> ModelEncoder:
    """Make the static model; every process gets the same."""
    return ModelEncoder(lookup_model())


def ours(*, documents: int, workers: int, kills: int) -> Workload:
    """`deploy shards` on `workers` Dask processes, of which `kills` are killed, and a search over the result."""
    texts = make_texts(documents)

    def both() -> dict[str, float]:
        small = _measure(texts[: documents // SMALLER], workers, 0)
        whole = _measure(texts, workers, kills)
        return {**whole, "growth_ratio": whole["worker_peak_bytes"] / small["worker_peak_bytes"]}

    warm_up = partial(_measure, texts[: max(1000, documents // 100)], workers, 0)
    return Workload(both, warm_up=warm_up, facts={"documents": documents})


def one_process(*, documents: int, workers: int, kills: int) -> Workload:
    """The speed of one process without kills, on a tenth of the documents."""
    texts = make_texts(documents // SMALLER)
    return Workload(partial(_measure, texts, 1, 0), warm_up=partial(_measure, texts[:1000], 1, 0))


def index(*, documents: int, workers: int) -> Workload:
    """IVF-PQ on disk over all pieces, merged, and its recall against exact search."""
    texts = make_texts(documents)
    return Workload(partial(_measure, texts, workers, 0, indexed=True), warm_up=lambda: None)


def _measure(texts: list[str], workers: int, kills: int, indexed: bool = False) -> dict[str, float]:
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir()) as place, _pool(workers) as (pool, client):
        return _measure_in(Path(place), texts, pool, client, kills, indexed)


def _measure_in(
    place: Path, texts: list[str], pool: Pool, client: Client | None, kills: int, indexed: bool
) -> dict[str, float]:
    from embedlab.deploy.parts import all_parts, read_plan
    from embedlab.deploy.storage import Storage

    source, target = Storage.at(str(place / "source")), Storage.at(str(place / "target"))
    _write_source(place / "source", texts)
    with _killer(client, place / "target", kills) as killed:
        report = _embed(source, target, len(texts), pool)
    folder = target.within(make_encoder("").space.fingerprint)
    plan = read_plan(folder)
    parts = all_parts(folder, plan)
    return {
        "documents_per_second": report.encoded / report.seconds,
        "worker_peak_bytes": max(manifest.peak_bytes for manifest in report.manifests),
        "killed": len(killed),
        "encoded_twice": report.encoded - len(texts),
        "difference": _difference(parts, texts, pool),
        **_search(folder, plan, parts, pool, indexed),
    }


def _embed(source: Storage, target: Storage, documents: int, pool: Pool) -> ShardReport:
    from embedlab.deploy.shards import embed_shards

    rows = max(1, documents // PIECES)
    report = embed_shards(source, target, "", make_encoder(""), pool, make_encoder=make_encoder, rows=rows)
    if report.failures:
        raise RuntimeError(f"{len(report.failures)} pieces failed: {next(iter(report.failures.values()))}")
    return report


def _search(folder: Storage, plan: Plan, parts: list[Part], pool: Pool, indexed: bool) -> dict[str, float]:
    """Search exactly, and through IVF-PQ if asked for; queries are documents with noise."""
    from embedlab.deploy.index_shards import build_shard_index, measure_recall
    from embedlab.deploy.indexes import IndexSpec
    from embedlab.deploy.parts import sample_vectors
    from embedlab.deploy.search_shards import search_shards

    queries = sample_vectors(parts, QUERIES)
    noise = np.random.default_rng(SEED).standard_normal(queries.shape, dtype=np.float32)
    queries = queries + noise * 0.5 / np.sqrt(HIDDEN)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    began = time.perf_counter()
    exact = search_shards(folder, plan, queries, DEPTH, pool)
    searched = time.perf_counter()
    measured = {"exact_ms": (searched - began) / len(queries) * 1e3}
    if not indexed:
        return measured
    index = build_shard_index(folder, plan, parts, IndexSpec(kind="ivfpq", lists=LISTS), pool, merged=True)
    built = time.perf_counter()
    index = measure_recall(index, parts, queries, exact, pool)
    best = index.recall[-1]
    return {
        **measured,
        "index_seconds": built - searched,
        "index_bytes": index.bytes / sum(piece.rows for piece in plan.pieces),
        "index_recall": best.recall,
        "index_ms": best.ms,
        **{f"recall_nprobe_{row.nprobe}": row.recall for row in index.recall},
    }


def _difference(parts: list[Part], texts: list[str], pool: Pool) -> float:
    """Return the largest difference to `encode` of the same texts; infinity if ids are not in order."""
    tasks = [(part, texts[part.piece.start : part.piece.start + part.piece.rows]) for part in parts]
    largest = 0.0
    for _, outcome in pool.run(_difference_of_part, tasks):
        if isinstance(outcome, Exception):
            raise outcome
        largest = max(largest, outcome)
    return largest


def _difference_of_part(task: tuple[Part, list[str]]) -> float:
    part, texts = task
    if part.ids() != [str(part.piece.start + row) for row in range(part.piece.rows)]:
        return float("inf")
    (vectors,) = part.vectors()
    return float(np.abs(vectors - make_encoder("").encode_documents(texts)).max())


def _write_source(folder: Path, texts: list[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    for file, numbers in enumerate(np.array_split(np.arange(len(texts)), FILES)):
        table = pa.table({"id": [str(number) for number in numbers], "text": [texts[number] for number in numbers]})
        pq.write_table(table, folder / f"{file}.parquet", row_group_size=max(1, len(texts) // PIECES))


@contextmanager
def _pool(workers: int) -> Iterator[tuple[Any, Client | None]]:
    from embedlab.sweeps.pools import DaskPool, SerialPool, local_cluster

    if workers == 1:
        yield SerialPool(), None
        return
    with local_cluster(workers, preload=[__name__, "sentence_transformers", "faiss"]) as client:
        yield DaskPool(client), client


@contextmanager
def _killer(client: Client | None, target: Path, kills: int) -> Iterator[list[int]]:
    """Kill workers while the block runs, the first after some pieces are done; gives the list of those killed."""
    killed: list[int] = []
    if client is None or not kills:
        yield killed
        return
    victims, done = list(client.run(os.getpid).values()), threading.Event()
    thread = threading.Thread(target=partial(_kill, victims[:kills], target, done, killed), daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        done.set()
        thread.join()


def _kill(victims: list[int], target: Path, done: threading.Event, killed: list[int]) -> None:
    for number, victim in enumerate(victims, 1):
        while len(list(target.glob("*/*-*.npy"))) < number * PIECES // (len(victims) + 2):
            if done.wait(0.05):
                return
        os.kill(victim, signal.SIGKILL)
        killed.append(victim)


BENCHMARKS = (
    Benchmark(
        name="shards_1m",
        title="embed 1,000,000 documents in Parquet shards (static model)",
        arms={
            "ours": Arm(f"{__name__}:ours", "4 Dask workers on one machine, 3 of them killed"),
            "single": Arm(f"{__name__}:one_process", "one process, nothing killed"),
        },
        figures=(
            Figure("difference", 1e-6, unit=""),
            Figure("encoded_twice", 0, unit="documents"),
            Figure("killed", unit=""),
            Figure("documents_per_second", unit="documents/s"),
            Figure("documents_per_second", arm="single", unit="documents/s in one process"),
            Figure("worker_peak_bytes", unit="bytes"),
            Figure("growth_ratio", 1.1, unit="× that for a tenth of the documents"),
            Figure("exact_ms", unit="ms per query"),
        ),
        size={"documents": 1_000_000, "workers": 4, "kills": 3},
        quick={"documents": 5_000, "workers": 2, "kills": 1},
        requires=("disk",),
        spawns=True,
    ),
    Benchmark(
        name="shards_index",
        title="IVF-PQ on disk over 100,000 documents in Parquet shards",
        arms={"ours": Arm(f"{__name__}:index", "256 lists, 48-byte codes, 100 candidates scored with full vectors")},
        figures=(
            Figure("index_recall", unit="with 64 of 256 lists"),
            Figure("index_ms", unit="ms per query"),
            Figure("exact_ms", unit="ms per query"),
            Figure("index_bytes", unit="bytes per document"),
        ),
        size={"documents": 100_000, "workers": 4},
        quick={"documents": 20_000, "workers": 2},
        requires=("disk",),
        spawns=True,
    ),
)
