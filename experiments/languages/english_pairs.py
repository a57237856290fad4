"""Do English pairs in the training of the static model keep English at a larger share?

    python -m experiments.languages.english_pairs RUN_ID

It continues the static half of the model of a run of notebook 13 with the translations and the training
pairs of ICD-10-CM, chooses the share as the notebook does, and prints nDCG@10 by language and in English.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace

from embedlab import paths
from embedlab.data import leakage
from embedlab.data.dataset import Dataset, Triplet
from embedlab.data.load import load_dataset
from embedlab.data.splits import seeded_order
from embedlab.evaluation.cross_lingual import quality_by_language
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.significance import paired_difference
from embedlab.evaluation.static_share import best_share, score_static_shares
from embedlab.models.cache import EmbeddingCache
from embedlab.models.load import load_model
from embedlab.models.static import static_model
from embedlab.search.vectors import encode_split
from embedlab.training.contrastive.static_model import train_static_model
from embedlab.training.fit import FitSettings

SHARES = (0.3, 0.5, 0.7, 0.9)


def with_pairs(data: Dataset, other: Dataset) -> Dataset:
    """Add the training pairs of another dataset as triplets, without those that reveal a held-out query."""
    order = seeded_order(other.corpus)
    triplets = [
        Triplet(other.queries[query], other.corpus[document], other.corpus[order[number % len(order)]])
        for number, (query, document) in enumerate(other.pairs("train"))
    ]
    checked, report = leakage.repair(replace(data, triplets=tuple(triplets)))
    print(f"{len(checked.triplets):,} of {len(triplets):,} English pairs: {str(report)[:80]}", flush=True)
    return replace(data, triplets=checked.triplets)


def main(run_id: str) -> None:
    """Train and print."""
    from sentence_transformers import SentenceTransformer

    folder = paths.runs_dir() / run_id / "model" / "combined"
    combined = SentenceTransformer(str(folder), device="cpu", trust_remote_code=True)
    transformer = SentenceTransformer(modules=list(combined)[:-1], device="cpu")
    static = static_model(transformer, combined[-1].embedding.weight.detach().clone())
    data, english, pairs = (load_dataset(spec) for spec in ("icd10multi:all-en", "icd10cm:mini", "icd10cm:full"))
    settings = FitSettings(epochs=2, batch_size=1024, learning_rate=3e-3, weight_decay=0.0)
    with tempfile.TemporaryDirectory() as scratch:
        train_static_model(
            transformer, with_pairs(data, pairs), settings, start=static, random_negatives=1024, output_dir=scratch
        )
    alone = encode_split(static, data, "test").rank(100)
    print(quality_by_language({"static": alone}, data.qrels["test"], data.fields).round(3).to_string(), flush=True)
    halves = {split: [encode_split(transformer, english, split)] for split in ("dev", "test")}
    for split, vectors in halves.items():
        vectors.append(encode_split(transformer, english, split, static=static))
    elsewhere = score_static_shares(*halves["dev"], english.qrels["dev"], shares=(0.0, *SHARES))
    print("English dev by share", {share: round(value, 4) for share, value in elsewhere.items()}, flush=True)
    # English documents have the same tokens as before, so the base model's cached vectors are theirs.
    base_vectors = encode_split(load_model("all-MiniLM-L6-v2"), data, "test", encode=EmbeddingCache().encode)
    vectors = encode_split(transformer, data, "test", corpus_vectors=base_vectors.corpus)
    static_vectors = encode_split(transformer, data, "test", static=static)
    transformer_test, static_test = halves["test"]
    base = evaluate(transformer_test.rank(100), english.qrels["test"]).of("ndcg@10")
    for share in SHARES:
        ranking = vectors.concatenated(static_vectors, share).rank(100)
        table = quality_by_language({f"share {share}": ranking}, data.qrels["test"], data.fields)
        mine = evaluate(transformer_test.concatenated(static_test, share).rank(100), english.qrels["test"])
        lost = paired_difference(mine.of("ndcg@10"), base)
        print(f"share {share}: English {lost.mean:+.4f} [{lost.low:+.4f}, {lost.high:+.4f}]")
        print(table.round(3).to_string(), flush=True)
    print("allowed by the budget:", best_share({share: share for share in SHARES}, elsewhere))


if __name__ == "__main__":
    main(sys.argv[1])
