"""What every kind of encoded split has in common: ids, rows, and the documents that a query must not find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np

from embedlab.data.dataset import Dataset
from embedlab.errors import DataError, ParameterError
from embedlab.search.exact import Ranking

Role = Literal["query", "document"]


@dataclass(frozen=True, eq=False)
class EncodedSplit:
    """The queries of a split and the corpus, encoded, to search and score without encoding again.

    Attributes:
        query_ids, corpus_ids: ids of the texts, in the order of their encodings.
        queries: encodings of Q queries.
        corpus: encodings of N documents.
        own_documents: ids of the queries whose document of the same id is left out, see `Dataset.own_documents`.

    Raises:
        DataError: there are more or fewer ids than encodings.
    """

    query_ids: tuple[str, ...]
    corpus_ids: tuple[str, ...]
    queries: Any
    corpus: Any
    own_documents: frozenset[str] = frozenset()

    @classmethod
    def of(cls, dataset: Dataset, split: str, encode: Callable[[list[str], Role], Any], corpus: Any = None) -> Self:
        """Encode the queries of a split and the whole corpus.

        Args:
            dataset: its queries, corpus and splits are used.
            split: name of the split.
            encode: called with texts, and with what they are.
            corpus: the encoded corpus, if there is one, in the order of `dataset.corpus`.

        Raises:
            ParameterError: the dataset has no queries in this split.
        """
        queries = judged_queries(dataset, split)
        if corpus is None:
            corpus = encode(list(dataset.corpus.values()), "document")
        encoded = encode(list(queries.values()), "query")
        return cls(tuple(queries), tuple(dataset.corpus), encoded, corpus, frozenset(dataset.own_documents(split)))

    def __post_init__(self) -> None:
        queries, documents = _count(self.queries), _count(self.corpus)
        if (len(self.query_ids), len(self.corpus_ids)) != (queries, documents):
            problem = (
                f"{queries} encoded queries and {documents} encoded documents for "
                f"{len(self.query_ids)} queries and {len(self.corpus_ids)} documents"
            )
            raise DataError(problem, remedy="Encode the whole corpus of this dataset, in its order")

    def __repr__(self) -> str:
        """One short line: a notebook cell may end with an encoded split."""
        return f"{type(self).__name__}({len(self.query_ids)} queries, {len(self.corpus_ids)} documents)"

    def _ranking(self, scores: np.ndarray, indices: np.ndarray, k: int) -> Ranking:
        """Make a ranking of k documents per query, without the queries' own documents.

        Args:
            scores, indices: (Q, m), best first; m is at least k, and k + 1 if there are own documents.
            k: documents per query.
        """
        ranking = Ranking.from_search(self.query_ids, self.corpus_ids, scores, indices)
        return ranking.without_own(self.own_documents, k)

    @cached_property
    def _query_rows(self) -> dict[str, int]:
        return {query: row for row, query in enumerate(self.query_ids)}

    @cached_property
    def _document_rows(self) -> dict[str, int]:
        return {document: row for row, document in enumerate(self.corpus_ids)}


def judged_queries(dataset: Dataset, split: str) -> dict[str, str]:
    """Return the queries of a split: query id -> text.

    Raises:
        ParameterError: the split has no queries.
    """
    queries = dataset.split_queries(split)
    if not queries:
        splits = ", ".join(name for name, judged in dataset.qrels.items() if judged) or "none"
        raise ParameterError(f"{dataset.name} has no {split} queries", remedy=f"Splits with queries: {splits}")
    return queries


def _count(encodings: Any) -> int:
    """Number of texts: rows of an array, dense or sparse, or the length of anything else."""
    return int(encodings.shape[0]) if hasattr(encodings, "shape") else len(encodings)
