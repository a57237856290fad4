"""Do more directions, hardness weights or orthogonal regularisation make a contrastive fine-tune better?

    python -m experiments.loss_variants [NAME ...] [--seeds 0 1]
    python -m experiments.loss_variants --tables

The settings are `CENTRE` of `experiments.contrastive_defaults`; only the loss changes. All losses are those of
sentence-transformers. Training does not use dev: the weights of the last step are scored. Results that are in
results/loss_variants.json are not computed again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    GlobalOrthogonalRegularizationLoss,
    MultipleNegativesRankingLoss,
)
from torch import Tensor

from embedlab.data.load import load_dataset
from embedlab.evaluation.retrieval import evaluate_retrieval
from embedlab.evaluation.significance import paired_difference
from embedlab.io import write_atomic
from embedlab.models.cache import EmbeddingCache
from embedlab.models.load import BASE_MODEL, load_model
from embedlab.paths import results_dir
from embedlab.runs.summary import format_value
from embedlab.search.vectors import encode_split
from embedlab.training.batches import TokenisedCollator
from embedlab.training.contrastive.fine_tune import build_rows, mine_negatives
from embedlab.training.contrastive.train import ContrastiveParams
from embedlab.training.examples import TrainingRows, number_rows, own_texts
from embedlab.training.fit import fit
from embedlab.training.losses import EmbeddingLoss
from experiments.contrastive_defaults import CENTRE, DATASETS, METRIC
from experiments.pages import markdown_table

REFERENCE = "query to document"
ALL_DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
LOSSES: dict[str, dict[str, Any]] = {
    REFERENCE: {},
    "and document to query": {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"},
    "all four directions": {"directions": ALL_DIRECTIONS},  # GTE, Li et al. 2023
    "hardness of batch, 9": {"hardness_mode": "in_batch_negatives", "hardness_strength": 9.0},  # Lan et al. 2025
    "hardness of mined, 5": {"hardness_mode": "hard_negatives", "hardness_strength": 5.0},  # EmbeddingGemma, 2025
    "orthogonal": {},  # GOR as in EmbeddingGemma: second moment only, summed over queries and documents
}


class LibraryLoss(EmbeddingLoss):
    """A loss of sentence-transformers on columns that are encoded together.

    Args:
        model: the model to train.
        name: of `LOSSES`.
    """

    def __init__(self, model: SentenceTransformer, name: str) -> None:
        super().__init__(model)
        self._ranking = MultipleNegativesRankingLoss(model, **LOSSES[name])
        self._spread = None
        if name == "orthogonal":
            self._spread = GlobalOrthogonalRegularizationLoss(model, mean_weight=0.0, aggregation="sum")

    def at_width(self, embeddings: Sequence[Tensor], targets: Tensor | None) -> Tensor:
        """Compute the loss of a batch; false negatives in it are not masked."""
        loss = self._ranking.compute_loss_from_embeddings(list(embeddings), targets)
        if self._spread:
            loss = loss + sum(self._spread.compute_loss_from_embeddings(list(embeddings[:2])).values())
        return loss


def train(rows: TrainingRows, params: ContrastiveParams, name: str) -> SentenceTransformer:
    """Return the base model after a fine-tune with one loss."""
    model = load_model(BASE_MODEL)
    collator = TokenisedCollator(model, rows.texts, rows.columns)
    with tempfile.TemporaryDirectory() as scratch:
        fit(
            model,
            rows.dataset,
            LibraryLoss(model, name),
            params.fit_settings(),
            collator=collator,
            output_dir=scratch,
            stage=name,
        )
    return model


def measure(dataset: str, seed: int) -> list[dict[str, Any]]:
    """Train with every loss and score dev and test: one row each, with the difference from the first loss on test."""
    data = load_dataset(DATASETS[dataset])
    vectors = encode_split(load_model(BASE_MODEL), data, "train", encode=EmbeddingCache().encode)
    common = {"dataset": DATASETS[dataset], "model_name": BASE_MODEL, "seed": seed}
    params = ContrastiveParams.checked({**CENTRE, **common})
    mined, _ = mine_negatives(data, params, vectors)
    training = number_rows(build_rows(data, params, mined), own_texts(data))
    rows: list[dict[str, Any]] = []
    reference = np.empty(0)
    for name in LOSSES:
        model = train(training, params, name)
        (dev,) = evaluate_retrieval(model, data, "dev", k=10).values()
        (test,) = evaluate_retrieval(model, data, "test", k=10).values()
        values = test.of(METRIC)
        row = {"dataset": dataset, "seed": seed, "loss": name, "dev": dev.mean(METRIC), "test": test.mean(METRIC)}
        if name == REFERENCE:
            reference = values
        else:
            gain = paired_difference(values, reference)
            row["difference"] = [gain.mean, gain.low, gain.high]
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table: dev, test and the difference from the first loss, of every dataset, seed and loss."""
    lines = []
    for row in rows:
        difference = format_value(*row["difference"], sign="+") if "difference" in row else ""
        names = [row["dataset"], str(row["seed"]), row["loss"]]
        lines.append([*names, f"{row['dev']:.3f}", f"{row['test']:.3f}", difference])
    return markdown_table(["dataset", "seed", "loss", "dev", "test", f"against {REFERENCE}"], lines)


def main() -> None:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", default=["icd10cm", "banking77"], help=f"of {', '.join(DATASETS)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--tables", action="store_true", help="only print the table")
    options = parser.parse_args()
    file = results_dir() / "loss_variants.json"
    rows = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    for seed in [] if options.tables else options.seeds:
        for dataset in options.datasets:
            if not any((row["dataset"], row["seed"]) == (dataset, seed) for row in rows):
                rows += measure(dataset, seed)
                write_atomic(file, json.dumps(rows, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
