"""Score train, dev and test during training, to see where a model starts to overfit its training queries."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sentence_transformers.base.evaluation import BaseEvaluator

from embedlab.data.dataset import SPLITS, Dataset
from embedlab.data.splits import seeded_order
from embedlab.errors import ParameterError
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.retrieval import sample_corpus
from embedlab.evaluation.significance import bootstrap_ci
from embedlab.search.vectors import Encode, encode_split

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

K, MAX_QUERIES, MAX_DOCUMENTS = 10, 300, 3000  # cutoff, queries per split, documents of the sampled corpus


class SplitCurves(BaseEvaluator):
    """Score nDCG@10 on every split at every evaluation of the Trainer: up to 300 queries each, in 3,000 documents.

    Dev chooses the weights. Watch test during training only to learn about overfitting, never to tune.

    Args:
        dataset: its splits and corpus.
        seed: of the samples.
        encode: replaces `embedlab.models.encode.encode`.

    Attributes:
        rows: step, split, value, ci_low, ci_high and n of every evaluation so far.

    Raises:
        ParameterError: a split has no queries.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        seed: int = 0,
        encode: Encode | None = None,
    ) -> None:
        super().__init__()
        if empty := [split for split in SPLITS if not dataset.qrels.get(split)]:
            problem = f"{dataset.name} has no {empty[0]} queries to watch"
            raise ParameterError(problem, remedy="Choose a dataset with queries in every split", field="dataset")
        self.encode, self.dataset = encode, _sample(dataset, seed)
        self.primary_metric = f"ndcg@{K}"
        self.rows: list[dict[str, Any]] = []

    def __call__(
        self, model: SentenceTransformer, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Score every split, keep the scores in `rows` and return that of dev; the other arguments are unused."""
        corpus, dev = None, float("nan")
        for split in SPLITS:
            vectors = encode_split(model, self.dataset, split, corpus_vectors=corpus, encode=self.encode)
            corpus = vectors.corpus
            evaluation = evaluate(vectors.rank(K), self.dataset.qrels[split], [K])
            interval = bootstrap_ci(evaluation.of(self.primary_metric), samples=500)
            row = {"step": max(steps, 0), "split": split, "value": interval.mean}
            self.rows.append({**row, "ci_low": interval.low, "ci_high": interval.high, "n": interval.n})
            dev = interval.mean if split == "dev" else dev
        return {self.primary_metric: dev}


def _sample(dataset: Dataset, seed: int) -> Dataset:
    """Limit every split to `MAX_QUERIES`, and the corpus to a sample with all positives of all splits."""
    qrels = {
        split: {query: dataset.qrels[split][query] for query in seeded_order(dataset.qrels[split], seed)[:MAX_QUERIES]}
        for split in SPLITS
    }
    together = {query: grades for split_qrels in qrels.values() for query, grades in split_qrels.items()}
    sampled = sample_corpus(replace(dataset, qrels={"all": together}), "all", MAX_DOCUMENTS, seed=seed)
    return replace(sampled, qrels=qrels)
