"""Score a model on a split: encode once, search and score at every Matryoshka dimension."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from sentence_transformers.base.evaluation import BaseEvaluator

from embedlab.data.dataset import Dataset, Qrels
from embedlab.data.splits import seeded_order
from embedlab.errors import DataError
from embedlab.evaluation.metrics import CUTOFFS, Evaluation, evaluate
from embedlab.search.encoded import judged_queries
from embedlab.search.exact import Ranking
from embedlab.search.vectors import Encode, Vectors, encode_split

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

DEV_QUERIES = 5_000  # of a dev evaluation: more cost time at every evaluation, and do not change the choice
NEIGHBOURS = 10  # documents that a query may bring into a sample of the corpus


def evaluate_vectors(
    vectors: Vectors, qrels: Qrels, *, dims: Sequence[int] | None = None, k: int = 100
) -> dict[int, Evaluation]:
    """Search and score vectors at every dimension: dimension -> evaluation at the usual cutoffs up to k.

    Args:
        vectors: queries and corpus.
        qrels: query id -> {document id: grade}.
        dims: dimensions to truncate to; only the full one when not given.
        k: documents searched per query.
    """
    cutoffs = [cutoff for cutoff in CUTOFFS if cutoff <= k] or [k]
    return {
        dim: evaluate(vectors.truncated(dim).rank(k, stage=f"search {dim}d"), qrels, cutoffs)
        for dim in dims or (vectors.dim,)
    }


def evaluate_retrieval(
    model: SentenceTransformer,
    dataset: Dataset,
    split: str = "test",
    *,
    dims: Sequence[int] | None = None,
    k: int = 100,
    encode: Encode | None = None,
) -> dict[int, Evaluation]:
    """`evaluate_vectors` of `encode_split`: corpus and queries are encoded once, whatever the number of dimensions."""
    vectors = encode_split(model, dataset, split, encode=encode)
    return evaluate_vectors(vectors, dataset.qrels[split], dims=dims, k=k)


def sample_corpus(dataset: Dataset, split: str, max_docs: int, *, seed: int = 0) -> Dataset:
    """`dataset` with at most `max_docs` documents: every positive of `split`, then random others, in corpus order.

    Positives are kept even where they alone exceed `max_docs`. Fewer distractors make the task easier: values compare
    between models on the same sample, never with those on the whole corpus.
    """
    return _sample(dataset, split, (), max_docs, seed)


def near_corpus(dataset: Dataset, split: str, max_docs: int, *, seed: int = 0) -> Dataset:
    """`sample_corpus` whose distractors are hard: those that BM25 finds, the first of every query before any second.

    On ICD-10-CM a random sample shows half of what a model gains among all documents, this one nine tenths, at the same
    cost (the lab's log, "Does a small dev corpus see what training gains?"). Where BM25 finds too little, random
    documents fill the sample up.
    """
    from embedlab.search.bm25 import bm25_ranking

    near: Iterable[str] = ()
    if max_docs < len(dataset.corpus):
        with suppress(DataError):  # no document holds a word
            nearest = bm25_ranking(
                dataset.corpus,
                dataset.split_queries(split),
                NEIGHBOURS,
                own_documents=dataset.own_documents(split),
            ).doc_ids
            near = dict.fromkeys(document for document in nearest.T.ravel() if document is not None)
    return _sample(dataset, split, near, max_docs, seed)


def _sample(dataset: Dataset, split: str, near: Iterable[str], max_docs: int, seed: int) -> Dataset:
    """Every positive, then as many of `near` as there is room for, then random others."""
    documents = {document for _, document in dataset.pairs(split)}
    documents.update(
        islice((document for document in near if document not in documents), max(0, max_docs - len(documents)))
    )
    remaining = [document for document in dataset.corpus if document not in documents]
    count = min(len(remaining), max(0, max_docs - len(documents)))
    sampled = np.random.default_rng(seed).choice(len(remaining), size=count, replace=False)
    documents.update(remaining[index] for index in sampled)
    return replace(
        dataset, corpus={document: text for document, text in dataset.corpus.items() if document in documents}
    )


class DevEvaluator(BaseEvaluator):
    """Retrieval on dev for the sentence-transformers Trainer; `ndcg@k` chooses the weights.

    Args:
        dataset: its corpus and `split` are searched.
        split: whose queries.
        max_docs: search a part of the corpus to keep the evaluation cheap; see `near_corpus`.
        max_queries: use a random sample of the queries if there are more; their documents are in every part.
        k: cutoff of all metrics.
        encode: stands in for `embedlab.models.encode.encode`.
        rank: called with model, dataset, split and k; ranks with other vectors than one per text, such as
            `search.sparse.rank_sparse`.

    Raises:
        ParameterError: when the dataset has no such split.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str = "dev",
        *,
        max_docs: int | None = None,
        max_queries: int = DEV_QUERIES,
        k: int = 10,
        encode: Encode | None = None,
        rank: Callable[[Any, Dataset, str, int], Ranking] | None = None,
    ) -> None:
        super().__init__()
        judged = judged_queries(dataset, split)
        if len(judged) > max_queries:
            logger.info("dev evaluation uses a sample of %d of %d %s queries", max_queries, len(judged), split)
            sampled = set(seeded_order(judged)[:max_queries])
            judgements = {query: grades for query, grades in dataset.qrels[split].items() if query in sampled}
            dataset = replace(dataset, qrels={**dataset.qrels, split: judgements})
        self.dataset = dataset if max_docs is None else near_corpus(dataset, split, max_docs)
        self.split, self.k, self.encode, self.rank = split, k, encode, rank
        self.primary_metric = f"ndcg@{k}"

    def __call__(
        self, model: SentenceTransformer, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Mean nDCG, recall and MRR at k of `model` on the split; the other arguments are the Trainer's, unused."""
        if self.rank is None:
            ranking = encode_split(model, self.dataset, self.split, encode=self.encode).rank(self.k)
        else:
            ranking = self.rank(model, self.dataset, self.split, self.k)
        evaluation = evaluate(ranking, self.dataset.qrels[self.split], [self.k])
        return {
            metric: evaluation.mean(metric) for metric in (f"{name}@{self.k}" for name in ("ndcg", "recall", "mrr"))
        }
