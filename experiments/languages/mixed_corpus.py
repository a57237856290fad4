"""Do negatives in the language of the query help a model that must search a corpus in two languages?

    python -m experiments.languages.mixed_corpus RUN_ID

It continues the static half of the model of a run of notebook 13 twice, with the same pairs: random negatives are
English names only, or names in all languages. Then it compares both, and what happens when the mean vector of every
language is subtracted (Yang et al., "A Simple and Effective Method To Eliminate the Self Language Bias in Multilingual
Representations", EMNLP 2021, remove more directions).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from sentence_transformers import SentenceTransformer

from embedlab import paths
from embedlab.data.dataset import Dataset
from embedlab.data.load import load_dataset
from embedlab.data.splits import seeded_order
from embedlab.evaluation.cross_lingual import language_bias
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.significance import bootstrap_ci
from embedlab.models.static import static_model
from embedlab.search.vectors import Vectors, encode_split
from embedlab.training.contrastive.static_model import train_static_model
from embedlab.training.fit import FitSettings

LANGUAGES = ("de", "zh", "ja", "el")
NEGATIVES = 12_000  # names in other languages: as many as English ones
SETTINGS = FitSettings(epochs=2, batch_size=1024, learning_rate=3e-3, weight_decay=0.0)


def saved_static(run_id: str) -> tuple[SentenceTransformer, SentenceTransformer]:
    """The transformer and the static half of the model that a run of notebook 13 saved."""
    folder = paths.runs_dir() / run_id / "model" / "combined"
    combined = SentenceTransformer(str(folder), device="cpu", trust_remote_code=True)
    transformer = SentenceTransformer(modules=list(combined)[:-1], device="cpu")
    return transformer, static_model(transformer, combined[-1].embedding.weight.detach().clone())


def without_language(vectors: Vectors, fields: Mapping[str, Mapping[str, str]]) -> Vectors:
    """Subtract from every vector the mean of the documents in its language, and normalize."""
    of_documents = np.array([fields[document]["language"] for document in vectors.corpus_ids])
    means = {name: vectors.corpus[of_documents == name].mean(axis=0) for name in set(of_documents)}

    def centred(rows: np.ndarray, ids: Sequence[str]) -> np.ndarray:
        moved = rows - np.stack([means[fields[key]["language"]] for key in ids])
        return moved / np.linalg.norm(moved, axis=1, keepdims=True)

    queries, corpus = centred(vectors.queries, vectors.query_ids), centred(vectors.corpus, vectors.corpus_ids)
    return replace(vectors, queries=queries, corpus=corpus)


def scores(static: SentenceTransformer, corpora: Mapping[str, Dataset]) -> pd.DataFrame:
    """nDCG@10 in an English and in a mixed corpus, and the preference for the own language, for every language."""
    rows = []
    for name, data in corpora.items():
        vectors = encode_split(static, data, "test")
        for label, found in {
            "as it is": vectors,
            "language mean subtracted": without_language(vectors, data.fields),
        }.items():
            ranking = found.rank(100)
            interval = bootstrap_ci(evaluate(ranking, data.qrels["test"]).of("ndcg@10"))
            english = np.flatnonzero([data.fields[document]["language"] == "en" for document in data.corpus])
            alone = evaluate(found.searching(english).rank(100), data.qrels["test"]).mean("ndcg@10")
            preference = language_bias(ranking, data.fields)["preference"].mean()
            mixed = f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
            rows.append((name, label, interval.n, round(alone, 3), mixed, round(preference, 3)))
    return pd.DataFrame(rows, columns=["queries", "vectors", "n", "English corpus", "mixed corpus", "preference"])


def main(run_id: str) -> None:
    """Train and print."""
    data = load_dataset("icd10multi:all-en")
    corpora = {name: load_dataset(f"icd10multi:{name}-en+{name}:mini") for name in LANGUAGES}
    names = data.split_queries("train")
    foreign = [names[query] for query in seeded_order(names)[:NEGATIVES]]
    for label, more in {"English negatives": [], "negatives in all languages": foreign}.items():
        transformer, static = saved_static(run_id)
        if more:
            print("before\n" + scores(static, corpora).to_string(index=False), flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            options = {"more_negatives": more, "start": static, "output_dir": scratch}
            train_static_model(transformer, data, SETTINGS, random_negatives=1024, **options)
        print(f"{label}\n{scores(static, corpora).to_string(index=False)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
