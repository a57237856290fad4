"""Synthetic queries: how close they are to real ones, and training sets of equal size to compare them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from embedlab.data.chat import Chat
from embedlab.data.dataset import Dataset
from embedlab.data.leakage import repair
from embedlab.data.quality import closeness, drop_repeats
from embedlab.data.splits import cap_training
from embedlab.data.synthetic import SyntheticQuery, as_training, round_trip
from embedlab.data.synthetic_offline import offline_queries as rule_based_queries
from embedlab.evaluation.data_sources.synthesis import Plan, Written, write_pairs
from embedlab.search.bm25 import bm25_ranking

SAMPLE = 20  # documents for which a language model is asked


def offline_queries(data: Dataset, *, per_document: int, seed: int = 0) -> list[SyntheticQuery]:
    """Generate queries for every document with five rules and without a language model."""
    return rule_based_queries(data.corpus, data.corpus, per_document=per_document, seed=seed)


def ask_language_model(data: Dataset, name: str, url: str, path: Path, *, seed: int = 0) -> Written:
    """Ask a language model for queries for a few documents, and keep those that BM25 leads to their document.

    Args:
        data: its corpus is sampled.
        name: name of the language model.
        url: address of an OpenAI-compatible endpoint.
        path: the new file of pairs.
        seed: seed of the sample.
    """
    return write_pairs(data.corpus, Chat(name, url), path, Plan(documents=SAMPLE, seed=seed, fields=data.fields))


def closeness_by_source(data: Dataset, queries: Sequence[SyntheticQuery]) -> pd.DataFrame:
    """Measure how many words queries copy from their documents, for real queries and each kind of synthetic ones.

    Returns:
        One row per source ("real" and the kinds): queries, and the means of `data.quality.closeness`.
    """
    pairs = {"real": [(data.queries[query], data.corpus[document]) for query, document in data.pairs("train")]}
    for kind in sorted({query.kind for query in queries}):
        pairs[kind] = [(query.text, data.corpus[query.document]) for query in queries if query.kind == kind]
    rows = {source: {"queries": len(texts), **closeness(texts).mean()} for source, texts in pairs.items()}
    return pd.DataFrame.from_dict(rows, orient="index").astype({"queries": int})


@dataclass(frozen=True)
class TrainingSets:
    """Real and synthetic training sets of equal size, all with the same real dev and test queries.

    Attributes:
        datasets: system -> dataset.
        filtered: how many queries each filter removed: columns filter and removed.
        lost: synthetic queries that do not find their own document.
        size: training queries of each dataset.
    """

    datasets: dict[str, Dataset]
    filtered: pd.DataFrame
    lost: list[SyntheticQuery]
    size: int


def training_sets(data: Dataset, queries: Sequence[SyntheticQuery], *, seed: int = 0) -> TrainingSets:
    """Filter synthetic queries and build training sets of equal size.

    A query is removed if BM25 does not find its document among the first ten (round trip), if it repeats another query,
    or if it leaks a dev or test query.

    Args:
        data: the real dataset.
        queries: synthetic queries for its corpus.
        seed: seed of the sample.

    Returns:
        Datasets for `real-pairs`, `synthetic-same-documents` (documents that answer real training queries) and
        `synthetic-any-document` (all documents).
    """
    consistent, lost = round_trip(
        queries, data.corpus, lambda texts: bm25_ranking(data.corpus, texts, k=10).as_candidates()
    )
    any_document, repeats = drop_repeats(as_training(data, consistent))
    any_document, any_leaks = repair(replace(any_document, split_by="query"))
    answering = {document for _, document in data.pairs("train")}
    same_documents, same_leaks = repair(as_training(data, [q for q in consistent if q.document in answering]))
    same_documents, same_repeats = drop_repeats(same_documents)
    full = {
        "real-pairs": replace(data, triplets=()),
        "synthetic-same-documents": same_documents,
        "synthetic-any-document": any_document,
    }
    size = min(len(dataset.qrels["train"]) for dataset in full.values())
    filters = {
        "round trip": len(lost),
        "repeats, any document": len(repeats),
        "leaks, any document": str(any_leaks.counts),
        "leaks, same documents": str(same_leaks.counts),
        "repeats, same documents": len(same_repeats),
    }
    return TrainingSets(
        datasets={system: cap_training(dataset, size, seed=seed) for system, dataset in full.items()},
        filtered=pd.DataFrame({"filter": list(filters), "removed": list(filters.values())}),
        lost=list(lost),
        size=size,
    )
