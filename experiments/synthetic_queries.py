"""Which share of the gain of real pairs do queries reach that a small language model writes?

    python -m experiments.synthetic_queries --model FILE.gguf [NAME ...] [--recipes RECIPE ...]
    python -m experiments.synthetic_queries --tables

A base model writes one query per document, without examples or with five real pairs as examples. All arms have the same
settings and the same test queries. An arm with synthetic queries uses no other judgement: every fifth query is its dev
set. Synthetic queries that are nearly a test query are dropped, as `leakage.repair` does. Answers of the language model
and scores are kept in the cache, so that an interrupted call goes on; results/synthetic_queries.json has the results.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from embedlab.data.dataset import Dataset
from embedlab.data.leakage import repair
from embedlab.data.load import load_dataset
from embedlab.data.splits import cap_training, drop_queries, seeded_order
from embedlab.data.synthetic import SyntheticQuery, as_training
from embedlab.data.synthetic_templates import MAX_EXAMPLES, Shot
from embedlab.evaluation.data_sources.synthesis import Plan, filtered, write_pairs
from embedlab.evaluation.data_sources.synthetic import offline_queries
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.retrieval import evaluate_retrieval
from embedlab.evaluation.significance import bootstrap_ci, paired_difference, paired_ratio
from embedlab.io import write_atomic
from embedlab.models.cache import EmbeddingCache
from embedlab.models.causal import CausalModel
from embedlab.models.load import BASE_MODEL, load_model
from embedlab.paths import cache_dir, project_root, results_dir
from embedlab.search.bm25 import bm25_ranking
from embedlab.search.vectors import encode_split
from embedlab.training.contrastive.train import ContrastiveParams
from experiments.pages import markdown_table, replace_block
from experiments.recipes import contrastive, linear_map

DATASETS = {"MedQuAD": "pairs:data/arena/faq.jsonl?repair=true", "ICD-10-CM": "icd10cm:mini"}
SIZES = {"MedQuAD": (100, 200, 400), "ICD-10-CM": (100, 200)}  # documents
METRIC = "ndcg@10"
RECIPES = LINEAR, CONTRASTIVE = "linear map", "contrastive"
NONE, ROUND_TRIP, JUDGE = "", "round trip", "round trip, judge"
REAL, RULES, PLAIN, SHOWN = "real pairs", "rules", "language model", "language model, 5 examples"
DEV_SHARE = 5  # every fifth synthetic query
# Notebook 03 at its defaults, without expert triplets, which synthetic queries lack.
SETTINGS = {"epochs": 3.0, "batch_size": 64, "learning_rate": 1e-4, "matryoshka_dims": [], "linear_start": 0.5}
LOG = project_root() / "experiments" / "log" / "2026-11-30-synthetic-queries.md"
START, END = "<!-- python -m experiments.synthetic_queries --tables -->", "<!-- end -->"


@dataclass(frozen=True)
class Arm:
    """Where training queries come from.

    Attributes:
        source: `REAL`, `RULES`, `PLAIN` or `SHOWN`.
        documents: number of documents with a query, or of real queries; 0 for all real queries.
        filters: `NONE`, `ROUND_TRIP` or `JUDGE`.
        same: only documents that answer a real training query, and for `REAL` those that `SHOWN` wrote a query for.
    """

    source: str
    documents: int = 0
    filters: str = NONE
    same: bool = False

    @property
    def label(self) -> str:
        """Its name in the table."""
        filters = f" ({self.filters})" if self.filters else ""
        return f"{self.source}{filters}, same documents" if self.same else f"{self.source}{filters}"

    @property
    def file(self) -> str:
        """Its name in the cache, without suffix."""
        return f"{self.label}, {self.documents}".replace(" ", "_")


ALL = Arm(REAL)


def arms(name: str, recipe: str) -> list[Arm]:
    """Return what is measured on a dataset with a recipe."""
    few, many = SIZES[name][0], SIZES[name][-1]
    if recipe == CONTRASTIVE:
        return [ALL, Arm(SHOWN, many, ROUND_TRIP)]
    return [
        *(Arm(REAL, size) for size in SIZES[name]),
        ALL,
        *(Arm(source, size, ROUND_TRIP) for source in (RULES, SHOWN) for size in SIZES[name]),
        Arm(PLAIN, few, ROUND_TRIP),
        Arm(SHOWN, many),
        Arm(SHOWN, many, JUDGE),
        *(Arm(source, many, same=True) for source in (REAL, SHOWN)),
    ]


class Study:
    """One dataset, its untrained systems, and its arms.

    Args:
        name: one of `DATASETS`.
        writer: the language model.
    """

    def __init__(self, name: str, writer: CausalModel) -> None:
        self.name, self.writer = name, writer
        self.data = replace(load_dataset(DATASETS[name]), triplets=())
        self.base, self.encode = load_model(BASE_MODEL), EmbeddingCache().encode
        self.test = encode_split(self.base, self.data, "test", encode=self.encode)

    def baselines(self) -> dict[str, np.ndarray]:
        """System -> nDCG@10 of every test query."""
        qrels, queries = self.data.qrels["test"], self.data.split_queries("test")
        own = self.data.own_documents("test")
        rankings = {"base": self.test.rank(10), "BM25": bm25_ranking(self.data.corpus, queries, 10, own_documents=own)}
        return {system: evaluate(ranking, qrels, [10]).of(METRIC) for system, ranking in rankings.items()}

    def training_data(self, arm: Arm) -> Dataset:
        """Return the dataset of an arm: its training queries, its own dev queries, and the real test queries."""
        if arm.source == REAL:
            return self._same_documents(self.data) if arm.same else self._capped(arm.documents)
        queries = self._queries(arm)
        if arm.same:
            answering = {document for _, document in self.data.pairs("train")}
            queries = [query for query in queries if query.document in answering]
        return with_synthetic(self.data, queries)

    def _capped(self, size: int) -> Dataset:
        return cap_training(self.data, size) if size else self.data

    def _same_documents(self, data: Dataset) -> Dataset:
        """Real pairs of the documents for which the language model wrote a query."""
        written = {query.document for query in self._queries(Arm(SHOWN, SIZES[self.name][-1]))}
        others = {query for query, grades in data.qrels["train"].items() if not written & grades.keys()}
        return drop_queries(data, {"train": others})

    @cached_property
    def shots(self) -> tuple[Shot, ...]:
        """Five real training pairs."""
        first = dict(reversed(self.data.pairs("train")))
        chosen = seeded_order(first)[:MAX_EXAMPLES]
        return tuple(Shot(self.data.queries[query], self.data.corpus[first[query]]) for query in chosen)

    def _queries(self, arm: Arm) -> list[SyntheticQuery]:
        """The synthetic queries of an arm, after its filters."""
        sample = seeded_order(self.data.corpus)[: arm.documents]
        if arm.source == RULES:
            written = [query for query in offline_queries(self.data, per_document=1) if query.document in set(sample)]
            found = bm25_ranking(self.data.corpus, {query.document: query.text for query in written}, 10)
            candidates = found.as_candidates()
            return [query for query in written if query.document in dict(candidates.get(query.document, ()))]
        plan = Plan(
            round_trip=arm.filters != NONE,
            judge=self._judge if arm.filters == JUDGE else None,
            threshold=0.5,
            shots=self.shots if arm.source == SHOWN else (),
        )
        records = [record for record in self._written(arm.source) if record["documents"][0] in set(sample)]
        records, rejected = filtered(records, self.data.corpus, plan)
        print(f"{self.name}, {arm.label}, {arm.documents} documents: {len(records)} queries; {rejected}", flush=True)
        return [SyntheticQuery(record["query"], record["documents"][0], "llm") for record in records]

    def _written(self, source: str) -> list[dict[str, Any]]:
        """What the language model wrote, without repeats."""
        file = cache_dir() / "synthetic_queries" / f"{self.name}-{source.replace(' ', '_')}.jsonl"
        if not file.exists():
            shots = self.shots if source == SHOWN else ()
            documents = SIZES[self.name][-1 if source == SHOWN else 0]
            plan = Plan(("question",), per_document=1, documents=documents, shots=shots, round_trip=False)
            print(write_pairs(self.data.corpus, self.writer, file, plan).summary(), flush=True)
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return [
            {"query": line["query"], "documents": [line["document_id"]], "texts": [line["positive"]]} for line in lines
        ]

    def _judge(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Cosine of query and document by the base model: no cross-encoder is at hand, and the writer cannot judge."""
        queries, documents = (self.encode(self.base, list(texts)) for texts in zip(*pairs, strict=True))
        return np.asarray((queries * documents).sum(axis=1))

    def scores(self, recipe: str, arm: Arm) -> dict[str, Any]:
        """Train an arm and score it on test, or read what an earlier call has kept."""
        file = cache_dir() / "synthetic_queries" / f"{self.name}-{recipe}-{arm.file}.npz"
        if not file.exists():
            data = self.training_data(arm)
            started = time.process_time()
            values = self._trained(recipe, data)
            seconds, size = time.process_time() - started, {split: len(data.qrels[split]) for split in ("train", "dev")}
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, values=values, seconds=seconds, **size)
        return dict(np.load(file))

    def _trained(self, recipe: str, data: Dataset) -> np.ndarray:
        vectors = encode_split(self.base, data, "train", corpus_vectors=np.asarray(self.test.corpus))
        if recipe == LINEAR:
            ranking = linear_map(data, vectors, self.base, 0).apply(self.test).rank(10)
            return evaluate(ranking, data.qrels["test"], [10]).of(METRIC)
        common = {"dataset": data.name, "model_name": BASE_MODEL, "seed": 0}
        model = contrastive(data, vectors, self.base, ContrastiveParams.checked({**SETTINGS, **common}))
        (evaluation,) = evaluate_retrieval(model, data, "test", k=10).values()
        return evaluation.of(METRIC)


def with_synthetic(data: Dataset, queries: Sequence[SyntheticQuery]) -> Dataset:
    """Replace train and dev of a dataset by synthetic queries, without those that are nearly a test query.

    Args:
        data: the real dataset.
        queries: for documents of its corpus.
    """
    no_dev = drop_queries(data, {"dev": set(data.qrels["dev"])})
    clean, _ = repair(replace(as_training(no_dev, queries), split_by="query"))
    train = clean.qrels["train"]
    dev = set(seeded_order(train)[::DEV_SHARE])
    parts = {
        "train": {query: grades for query, grades in train.items() if query not in dev},
        "dev": {query: grades for query, grades in train.items() if query in dev},
    }
    return replace(clean, qrels={**clean.qrels, **parts})


def measure(study: Study, recipe: str) -> list[dict[str, Any]]:
    """Measure the arms of a recipe: gain over the base model, and its share of the gain of all real pairs."""
    base = study.baselines()["base"]
    full = study.scores(recipe, ALL)["values"] - base
    rows = []
    for arm in arms(study.name, recipe):
        if arm == Arm(REAL, len(study.data.qrels["train"])):
            continue  # that is `ALL`
        found = study.scores(recipe, arm)
        gain, share = paired_difference(found["values"], base), paired_ratio(found["values"] - base, full)
        row = {"dataset": study.name, "recipe": recipe, "arm": arm.label, "documents": arm.documents}
        row |= {split: int(found[split]) for split in ("train", "dev")}
        row |= {"cpu_seconds": round(float(found["seconds"]), 1), "test": round(float(np.nanmean(found["values"])), 4)}
        row["gain"] = [round(value, 4) for value in (gain.mean, gain.low, gain.high)]
        row["share"] = [round(value, 3) for value in (share.mean, share.low, share.high)]
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def untrained(study: Study) -> list[dict[str, Any]]:
    """Return one row for each system without training."""
    rows = []
    for system, values in study.baselines().items():
        found = bootstrap_ci(values)
        row = {"dataset": study.name, "recipe": "", "arm": system, "test": round(found.mean, 4)}
        rows.append(row | {"interval": [round(found.low, 4), round(found.high, 4)]})
    return rows


Row = Mapping[str, Any]


def tables(rows: Sequence[Row]) -> str:
    """Return the Markdown tables: one per dataset and recipe.

    Args:
        rows: of `measure` and `untrained`.
    """
    parts = []
    for name in DATASETS:
        own = [row for row in rows if row["dataset"] == name]
        bases = [
            f"{row['arm']} {_interval(row['test'], *row['interval'], form='.3f')}" for row in own if not row["recipe"]
        ]
        for recipe in RECIPES:
            measured = [_cells(row) for row in own if row["recipe"] == recipe]
            if measured:
                header = ["", "documents", "train", "dev", "nDCG@10", "gain", "share of the gain of all real pairs"]
                heading = f"{name}, {recipe}. Without training: {', '.join(bases)}."
                parts.append(f"{heading}\n\n{markdown_table(header, measured)}")
    return "\n\n".join(parts)


def _cells(row: Row) -> list[str]:
    documents = f"{row['documents']:,}" if row["documents"] else ""
    whole = row["arm"] == ALL.label and not row["documents"]
    share = "1" if whole else _interval(*row["share"], form=".2f")
    name = f"all {row['arm']}" if whole else row["arm"]
    counts = [f"{row[split]:,}" for split in ("train", "dev")]
    return [name, documents, *counts, f"{row['test']:.3f}", _interval(*row["gain"], form="+.3f"), share]


def _interval(value: float, low: float, high: float, form: str) -> str:
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def with_tables(page: str, rows: Sequence[Row]) -> str:
    """Return the text of a page with the tables between the markers replaced."""
    return replace_block(page, START, END, f"{START}\n\n{tables(rows)}\n\n{END}")


def main() -> None:
    """Measure what was asked for, keep it, and print the tables, or write them into the log entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", metavar="NAME", help=f"of {', '.join(DATASETS)}; all if none is given")
    parser.add_argument("--model", default="", help="the language model: a folder, a hub name or a .gguf file")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES)
    parser.add_argument("--tables", action="store_true", help="only write the tables into the log entry")
    options = parser.parse_args()
    file = results_dir() / "synthetic_queries.json"
    rows = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    if options.tables:
        write_atomic(LOG, with_tables(LOG.read_text(encoding="utf-8"), rows))
        return
    if not options.model:
        parser.error("--model is missing")
    for name in options.datasets or DATASETS:
        study = Study(name, CausalModel(options.model, sequences=1, max_tokens=88))
        new = untrained(study) + [row for recipe in options.recipes for row in measure(study, recipe)]
        measured = {(row["dataset"], row["recipe"]) for row in new}
        rows = [row for row in rows if (row["dataset"], row["recipe"]) not in measured] + new
        write_atomic(file, json.dumps(rows, indent=1) + "\n")
    print(tables(rows))


if __name__ == "__main__":
    main()
