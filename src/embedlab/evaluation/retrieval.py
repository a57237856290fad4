"""Score a model on a split: encode once, search and score at every Matryoshka dimension."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from sentence_transformers.base.evaluation import BaseEvaluator

from embedlab.data.dataset import Dataset, Qrels
from embedlab.errors import DataError, ParameterError
from embedlab.evaluation.metrics import CUTOFFS, Evaluation, evaluate
from embedlab.evaluation.search import Ranking, search
from embedlab.models.ensembles import side_by_side
from embedlab.models.prompts import prompts_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

NEIGHBOURS = 10  # documents that a query may bring into a sample of the corpus
PAIRS_AT_A_TIME = 16_384  # scored together; 25 MB per side at d = 384
Encode = Callable[..., np.ndarray]  # called like `embedlab.models.encode.encode`


def truncate(vectors: np.ndarray, dim: int) -> np.ndarray:
    """Keep the first `dim` numbers of every vector (n, d) and scale the rows to unit length again: float32 (n, dim).

    Kusupati et al., Matryoshka Representation Learning, NeurIPS 2022. On a model trained without it this is the
    plain-truncation control. A row of zeros stays one.
    """
    if not 1 <= dim <= vectors.shape[1]:
        problem = f"Cannot truncate {vectors.shape[1]} dimensions to {dim}"
        raise ParameterError(problem, remedy=f"Choose 1 to {vectors.shape[1]}", field="dims")
    kept = np.asarray(vectors[:, :dim], dtype=np.float32)
    lengths = np.linalg.norm(kept, axis=1, keepdims=True)
    return kept / np.where(lengths > 0, lengths, 1)


@dataclass(frozen=True, eq=False)
class Vectors:
    """A split and its corpus as unit vectors, to search, score and mine from without encoding again.

    Attributes:
        query_ids, corpus_ids: ids of the rows.
        queries: float32 (Q, d).
        corpus: (N, d), an array or a memory map.
    """

    query_ids: tuple[str, ...]
    corpus_ids: tuple[str, ...]
    queries: np.ndarray
    corpus: np.ndarray

    def __post_init__(self) -> None:
        if (len(self.query_ids), len(self.corpus_ids)) != (len(self.queries), len(self.corpus)):
            problem = (
                f"{len(self.queries)} query and {len(self.corpus)} document vectors for "
                f"{len(self.query_ids)} queries and {len(self.corpus_ids)} documents"
            )
            raise DataError(problem, remedy="Encode the whole corpus of this dataset, in its order")

    @property
    def dim(self) -> int:
        """Numbers per vector (d)."""
        return self.queries.shape[1]

    def truncated(self, dim: int) -> Vectors:
        """The same rows at `dim` dimensions; see `truncate`."""
        if dim == self.dim:
            return self
        return replace(self, queries=truncate(self.queries, dim), corpus=truncate(self.corpus, dim))

    def beside(self, other: Vectors, share: float) -> Vectors:
        """The same texts' vectors in two spaces as one, `share` of the cosine the other's; see `side_by_side`."""
        queries, corpus = (
            side_by_side(*pair, share) for pair in ((self.queries, other.queries), (self.corpus, other.corpus))
        )
        return replace(self, queries=queries, corpus=corpus)

    def rank(self, k: int, *, stage: str = "search") -> Ranking:
        """The k nearest documents of every query."""
        scores, indices = search(self.queries, self.corpus, k, stage=stage)
        return Ranking.from_search(self.query_ids, self.corpus_ids, scores, indices)

    def pair_scores(self, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], float]:
        """Dot product of every (query id, document id)."""
        query_row = {query: row for row, query in enumerate(self.query_ids)}
        document_row = {document: row for row, document in enumerate(self.corpus_ids)}
        pairs, scores = list(pairs), {}
        for start in range(0, len(pairs), PAIRS_AT_A_TIME):
            chunk = pairs[start : start + PAIRS_AT_A_TIME]
            left = self.queries[[query_row[query] for query, _ in chunk]]
            right = self.corpus[[document_row[document] for _, document in chunk]]
            scores.update(zip(chunk, np.einsum("nd,nd->n", left, right, dtype=np.float32).tolist(), strict=True))
        return scores


def encode_split(
    model: SentenceTransformer,
    dataset: Dataset,
    split: str = "test",
    *,
    corpus_vectors: np.ndarray | None = None,
    encode: Encode | None = None,
) -> Vectors:
    """Encode the queries of a split and the whole corpus, with the model's own `query` and `document` prompts if any.

    Args:
        model: the model to encode with.
        dataset: queries, corpus and splits.
        split: whose queries.
        corpus_vectors: the corpus (N, d) where it is encoded already, in the order of `dataset.corpus`.
        encode: stands in for `embedlab.models.encode.encode`.

    Raises:
        ParameterError: when the dataset has no such split.
        DataError: when `corpus_vectors` are not of this corpus.
    """
    if encode is None:
        from embedlab.models.encode import encode
    queries, prompts = _queries(dataset, split), prompts_of(model)
    if corpus_vectors is None:
        corpus_vectors = encode(model, list(dataset.corpus.values()), stage="encode corpus", prompt=prompts.document)
    query_vectors = encode(model, list(queries.values()), stage="encode queries", prompt=prompts.query)
    return Vectors(tuple(queries), tuple(dataset.corpus), query_vectors, corpus_vectors)


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
    corpus_vectors: np.ndarray | None = None,
    encode: Encode | None = None,
) -> dict[int, Evaluation]:
    """`evaluate_vectors` of `encode_split`: corpus and queries are encoded once, whatever the number of dimensions."""
    vectors = encode_split(model, dataset, split, corpus_vectors=corpus_vectors, encode=encode)
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
    from embedlab.evaluation.baselines import bm25_ranking

    near: Iterable[str] = ()
    if max_docs < len(dataset.corpus):
        with suppress(DataError):  # no document holds a word
            found = bm25_ranking(dataset.corpus, dataset.split_queries(split), NEIGHBOURS).doc_ids
            near = dict.fromkeys(document for document in found.T.ravel() if document is not None)
    return _sample(dataset, split, near, max_docs, seed)


def _sample(dataset: Dataset, split: str, near: Iterable[str], max_docs: int, seed: int) -> Dataset:
    """Every positive, then as many of `near` as there is room for, then random others."""
    kept = {document for _, document in dataset.pairs(split)}
    kept.update(islice((document for document in near if document not in kept), max(0, max_docs - len(kept))))
    others = [document for document in dataset.corpus if document not in kept]
    wanted = min(len(others), max(0, max_docs - len(kept)))
    chosen = np.random.default_rng(seed).choice(len(others), size=wanted, replace=False)
    kept.update(others[place] for place in chosen)
    return replace(dataset, corpus={document: text for document, text in dataset.corpus.items() if document in kept})


class DevEvaluator(BaseEvaluator):
    """Retrieval on dev for the sentence-transformers Trainer; `ndcg@k` chooses the weights.

    Args:
        dataset: its corpus and `split` are searched.
        split: whose queries.
        max_docs: search a part of the corpus to keep the evaluation cheap; see `near_corpus`.
        k: cutoff of all metrics.
        seed: of the sample.
        encode: stands in for `embedlab.models.encode.encode`.

    Raises:
        ParameterError: when the dataset has no such split.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str = "dev",
        *,
        max_docs: int | None = None,
        k: int = 10,
        seed: int = 0,
        encode: Encode | None = None,
    ) -> None:
        super().__init__()
        _queries(dataset, split)
        self.dataset = dataset if max_docs is None else near_corpus(dataset, split, max_docs, seed=seed)
        self.split, self.k, self.encode = split, k, encode
        self.primary_metric = f"ndcg@{k}"

    def __call__(
        self, model: SentenceTransformer, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Mean nDCG, recall and MRR at k of `model` on the split; the other arguments are the Trainer's, unused."""
        vectors = encode_split(model, self.dataset, self.split, encode=self.encode)
        evaluation = evaluate(vectors.rank(self.k), self.dataset.qrels[self.split], [self.k])
        return {
            metric: evaluation.mean(metric) for metric in (f"{name}@{self.k}" for name in ("ndcg", "recall", "mrr"))
        }


def _queries(dataset: Dataset, split: str) -> dict[str, str]:
    queries = dataset.split_queries(split)
    if not queries:
        known = ", ".join(name for name, judged in dataset.qrels.items() if judged) or "none"
        raise ParameterError(f"{dataset.name} has no {split} queries", remedy=f"Splits with queries: {known}")
    return queries
