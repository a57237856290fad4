"""Evaluation: from texts to metrics at five Matryoshka dimensions, and search plus metrics on given vectors."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from embedlab.data.dataset import Dataset, Qrels
from experiments.benchmarks.spec import PRODUCT, Arm, Benchmark, Figure, Workload
from experiments.benchmarks.workloads import SEED, our_model, short_dataset, stock_model

if TYPE_CHECKING:
    import torch
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

DIMS = (384, 256, 128, 64, 32)
HIDDEN = 384
NOISE = 5.0  # length of a query's noise relative to its document's unit vector; keeps nDCG@10 between 0 and 1


def ours_dims(*, data: str) -> Workload:
    """`evaluate_retrieval` at all dimensions: encodes once, then truncates and searches five times."""
    from embedlab.evaluation.retrieval import evaluate_retrieval

    dataset, model = short_dataset(data), our_model()

    def run() -> dict[str, float]:
        scores = evaluate_retrieval(model, dataset, "test", dims=DIMS)
        return {"check": float(np.mean([scores[dim].mean("ndcg@10") for dim in DIMS]))}

    return Workload(run, warm_up=lambda: _warm(model, dataset), facts=_facts(dataset))


def stock_dims(*, data: str, batch_size: int = 32, encode_once: bool = False) -> Workload:
    """Five calls of `InformationRetrievalEvaluator(truncate_dim=…)`, as its documentation shows.

    Args:
        data: size of ICD-10-CM.
        batch_size: of the encoding.
        encode_once: encode the corpus once and pass its truncated vectors to every call.
    """
    dataset, model = short_dataset(data), stock_model()
    evaluators = {dim: _evaluator(dataset, batch_size, dim) for dim in DIMS}

    def run() -> dict[str, float]:
        corpus = None
        if encode_once:
            corpus = model.encode(list(dataset.corpus.values()), batch_size=batch_size, convert_to_tensor=True)
        cuts = {dim: None if corpus is None else corpus[:, :dim] for dim in DIMS}
        scores = [evaluators[dim](model, corpus_embeddings=cuts[dim])["cosine_ndcg@10"] for dim in DIMS]
        return {"check": float(np.mean(scores))}

    return Workload(run, warm_up=lambda: _warm(model, dataset))


def _warm(model: object, dataset: Dataset) -> None:
    model.encode(list(dataset.corpus.values())[:256])


def _facts(dataset: Dataset) -> dict[str, int]:
    return {"documents": len(dataset.corpus), "queries": len(dataset.qrels["test"]), "dimensions": len(DIMS)}


def _evaluator(dataset: Dataset, batch_size: int, dim: int) -> InformationRetrievalEvaluator:
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    return InformationRetrievalEvaluator(
        queries=dataset.split_queries("test"),
        corpus=dict(dataset.corpus),
        relevant_docs={query: set(grades) for query, grades in dataset.qrels["test"].items()},
        batch_size=batch_size,
        truncate_dim=dim,
        write_csv=False,
    )


@cache
def _vectors(documents: int, queries: int) -> tuple[np.ndarray, np.ndarray, Qrels]:
    """Draw random unit vectors; a query is its document's vector plus noise."""
    rng = np.random.default_rng(SEED)
    corpus = _unit(rng.standard_normal((documents, HIDDEN), dtype=np.float32))
    answers = rng.choice(documents, size=queries, replace=False)
    noise = _unit(rng.standard_normal((queries, HIDDEN), dtype=np.float32)) * NOISE
    qrels = {f"q{row}": {f"d{document}": 1} for row, document in enumerate(answers)}
    return corpus, _unit(corpus[answers] + noise), qrels


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def ours_search(*, documents: int, queries: int) -> Workload:
    """`search` in blocks and vectorised `evaluate`."""
    import torch  # noqa: F401 - loaded here because memory is measured after loading

    from embedlab.evaluation.retrieval import evaluate_vectors
    from embedlab.search.vectors import Vectors

    corpus, asked, qrels = _vectors(documents, queries)
    vectors = Vectors(tuple(qrels), tuple(f"d{i}" for i in range(documents)), asked, corpus)
    return Workload(lambda: {"check": evaluate_vectors(vectors, qrels)[HIDDEN].mean("ndcg@10")})


def product_alone(*, documents: int, queries: int) -> Workload:
    """Compute only the scores that every exact search needs, in our blocks; they are not used."""
    import torch

    from embedlab.search.exact import BLOCK_DOCS, BLOCK_QUERIES

    corpus, asked = map(torch.from_numpy, _vectors(documents, queries)[:2])

    def run() -> None:
        for block in corpus.split(BLOCK_DOCS):
            for rows in asked.split(BLOCK_QUERIES):
                rows @ block.T

    return Workload(run)


def stock_search(*, documents: int, queries: int, chunk: int = 50_000) -> Workload:
    """`InformationRetrievalEvaluator` with a model that returns the given vectors."""
    import torch
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    corpus, asked, qrels = _vectors(documents, queries)
    evaluator = InformationRetrievalEvaluator(
        queries=dict.fromkeys(qrels, ""),
        corpus={f"d{i}": "" for i in range(documents)},
        relevant_docs={query: set(grades) for query, grades in qrels.items()},
        corpus_chunk_size=chunk,
        write_csv=False,
        score_functions={"cosine": _dot},
    )
    evaluator.embed_inputs = lambda *args, **kwargs: torch.from_numpy(asked)
    corpus_tensor = torch.from_numpy(corpus)

    def run() -> dict[str, float]:
        scores = evaluator.compute_all_metrics(None, corpus_embeddings=corpus_tensor)
        return {"check": float(scores["cosine"]["ndcg@k"][10])}

    return Workload(run)


def _dot(queries: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
    """Dot products, because the vectors have unit length; `ours` does not normalise them again either."""
    return queries @ documents.T


BENCHMARKS = (
    Benchmark(
        name="evaluate_dims",
        title="evaluate 5 Matryoshka dimensions, from texts to metrics",
        arms={
            "ours": Arm(
                f"{__name__}:ours_dims", "one encoding, five truncations, search in blocks, vectorised metrics"
            ),
            "stock": Arm(f"{__name__}:stock_dims", "five calls of InformationRetrievalEvaluator(truncate_dim=…)"),
            "tuned": Arm(
                f"{__name__}:stock_dims",
                "the corpus encoded once and passed to the five calls, batches of 16",
                {"encode_once": True, "batch_size": 16},
            ),
        },
        figures=(
            Figure("seconds", 5.0, against="stock"),
            Figure("seconds", against="tuned"),
            Figure("peak_bytes", against="stock"),
        ),
        size={"data": "small"},
        quick={"data": "smoke"},
        tolerance=0.005,  # texts that are equal tie, and the two libraries order ties differently
    ),
    Benchmark(
        name="search",
        title="search and metrics on given vectors",
        arms={
            "ours": Arm(f"{__name__}:ours_search", "blocks of 8,192 documents x 512 queries, vectorised metrics"),
            "stock": Arm(f"{__name__}:stock_search", "InformationRetrievalEvaluator on the same vectors, defaults"),
            "tuned": Arm(
                f"{__name__}:stock_search", "corpus_chunk_size=100000: one chunk, fastest", {"chunk": 100_000}
            ),
            PRODUCT: Arm(f"{__name__}:product_alone", "only the matrix product, which every exact search computes"),
            "small": Arm(
                f"{__name__}:stock_search", "corpus_chunk_size=8192: slower, but little memory", {"chunk": 8_192}
            ),
        },
        figures=(
            Figure("seconds", 2.5, against="stock"),
            Figure("peak_bytes", 1 / 8, against="stock"),
            Figure("seconds", against="tuned"),
            Figure("seconds", against="small"),
            Figure("peak_bytes", against="small"),
        ),
        size={"documents": 98_505, "queries": 1_500},
        quick={"documents": 3_000, "queries": 50},
        tolerance=1e-6,
    ),
)
