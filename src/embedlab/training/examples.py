"""Training rows for contrastive losses: texts, and integer labels that identify equal texts."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from embedlab.data.dataset import Dataset
from embedlab.errors import ParameterError

if TYPE_CHECKING:
    import datasets

    from embedlab.search.judged import Judged

Row = tuple[str, ...]  # query, positive, hard negatives


def contrastive_rows(
    dataset: Dataset,
    negatives: Mapping[tuple[str, str], Sequence[str]] | None = None,
    *,
    hard_negatives: int = 1,
    use_triplets: bool = True,
    seed: int = 0,
) -> list[Row]:
    """Build (query, positive, negative, …) rows of text from every training pair and expert triplet.

    A text that is judged relevant to the query is never one of its negatives, also if it was mined.

    Args:
        dataset: its training pairs, corpus and triplets are used.
        negatives: mined hard negatives, (query id, positive id) -> document ids.
        hard_negatives: hard negatives per row. Where mining found fewer, random documents fill the row, because all
            rows must have the same width. With 0, rows are (query, positive).
        use_triplets: append the dataset's expert triplets.
        seed: of the random documents.

    Returns:
        Rows of `2 + hard_negatives` texts each.

    Raises:
        ParameterError: a query has fewer documents that are not judged relevant than hard negatives.
    """
    pairs, relevant = dataset.pairs("train"), relevant_texts(dataset)
    rows = [
        (dataset.queries[q], dataset.corpus[d], *(dataset.corpus[n] for n in (negatives or {}).get((q, d), ())))
        for q, d in pairs
    ]
    if use_triplets:
        rows += [tuple(triplet) for triplet in dataset.triplets]
    fill = _RandomNegatives(list(dataset.corpus.values()), relevant, hard_negatives, seed)
    fill.check(rows)
    return [fill(row) for row in rows]


def relevant_texts(dataset: Dataset) -> dict[str, set[str]]:
    """Collect the texts that are judged relevant to each training query, by the text of the query.

    Queries of the same text share their documents, and documents of the same text count as one. The positives of
    expert triplets count, and so do the query's own text and the document with its id, see `Dataset.own_documents`.
    """
    relevant = own_texts(dataset)
    for query, document in dataset.pairs("train"):
        text = dataset.queries[query]
        relevant.setdefault(text, set()).update((text, dataset.corpus[document]))
    for query, positive, _ in dataset.triplets:
        relevant.setdefault(query, set()).update((query, positive))
    return relevant


def own_texts(dataset: Dataset) -> dict[str, set[str]]:
    """Collect the documents that have the id of a training query, by the text of the query.

    Searches leave them out, see `Dataset.own_documents`, so they must not count as negatives of the query either.
    """
    documents: dict[str, set[str]] = {}
    for query in dataset.own_documents("train"):
        documents.setdefault(dataset.queries[query], set()).add(dataset.corpus[query])
    return documents


class _RandomNegatives:
    """Drops the negatives of a row that are judged relevant, and fills the row with random documents.

    Args:
        documents: texts of the corpus.
        relevant: from `relevant_texts`.
        count: negatives per row.
        seed: of the random documents.
    """

    def __init__(self, documents: list[str], relevant: Mapping[str, set[str]], count: int, seed: int) -> None:
        self._documents, self._distinct, self._relevant = documents, set(documents), relevant
        self._count, self._random = count, random.Random(seed)

    def __call__(self, row: Row) -> Row:
        row = self._without_relevant(row)
        missing = self._count + 2 - len(row)
        if missing <= 0:
            return row[: self._count + 2]
        excluded = {*row, *self._relevant[row[0]]}
        if 2 * self._allowed(excluded) < len(self._distinct):  # most draws would be rejected
            allowed = [text for text in dict.fromkeys(self._documents) if text not in excluded]
            return (*row, *self._random.sample(allowed, missing))
        while len(row) < self._count + 2:
            text = self._random.choice(self._documents)
            if text not in excluded:
                row, excluded = (*row, text), excluded | {text}
        return row

    def check(self, rows: Sequence[Row]) -> None:
        """Raise a ParameterError if a row cannot be filled."""
        fewest = self._count
        for row in map(self._without_relevant, rows):
            fewest = min(fewest, len(row) - 2 + self._allowed({*row, *self._relevant[row[0]]}))
        if fewest < self._count:
            problem = f"{self._count} hard negatives, but only {fewest} other documents that are not judged relevant"
            remedy = f"Set hard_negatives={fewest}" + ("" if fewest else ", which uses the documents of the batch")
            raise ParameterError(problem, remedy=remedy, field="hard_negatives")

    def _without_relevant(self, row: Row) -> Row:
        relevant = self._relevant[row[0]]
        return (*row[:2], *(text for text in row[2:] if text not in relevant))

    def _allowed(self, excluded: set[str]) -> int:
        return len(self._distinct) - sum(text in self._distinct for text in excluded)


@dataclass(frozen=True)
class TrainingRows:
    """Rows for the Trainer, with every distinct text numbered.

    Attributes:
        dataset: columns query, positive, negative_1 … and `label`, the text indices of the row in that order. Equal
            texts have equal indices, so the loss can mask duplicates without comparing strings.
        texts: the distinct texts; the indices in `label` point into this list.
        also_relevant: (query, document) indices of pairs that are in no row and yet no negatives.
    """

    dataset: datasets.Dataset
    texts: list[str]
    also_relevant: tuple[tuple[int, int], ...] = ()

    @cached_property
    def judged(self) -> Judged:
        """All relevant pairs as text indices, for `losses.false_negative_mask`."""
        import torch

        from embedlab.search.judged import Judged

        others = np.array(self.also_relevant, dtype=np.int64).reshape(-1, 2)
        pairs = torch.from_numpy(np.concatenate([self.labels[:, :2], others]))
        return Judged(pairs[:, 0].contiguous(), pairs[:, 1].contiguous())

    @property
    def labels(self) -> np.ndarray:
        """The column `label` as one array, int64 (rows, columns): 8 bytes a number, lists take 90."""
        column = self.dataset.with_format("arrow")["label"][:].combine_chunks()
        return column.flatten().to_numpy().reshape(len(self), -1)

    @property
    def columns(self) -> list[str]:
        """Names of the text columns, in the order of `label`."""
        return [name for name in self.dataset.column_names if name != "label"]

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows as texts."""
        return zip(*(self.dataset[column] for column in self.columns), strict=True)


def number_rows(rows: Iterable[Row], relevant: Mapping[str, Collection[str]] | None = None) -> TrainingRows:
    """Number the distinct texts of (query, positive, negative, …) rows, which must all have the same width.

    Args:
        rows: texts.
        relevant: query -> further texts that are never its negatives, for example `own_texts`; the positives of all
            rows never are.
    """
    import pyarrow
    from datasets import Dataset as HFDataset

    rows = list(rows)
    width = len(rows[0])
    index: dict[str, int] = {}
    numbers = (index.setdefault(text, len(index)) for row in rows for text in row)
    labels = np.fromiter(numbers, np.int64, len(rows) * width).reshape(-1, width)  # fails if a row is shorter
    names = ["query", "positive", *(f"negative_{i}" for i in range(1, width - 1))]
    columns = dict(
        zip(names, (pyarrow.array(texts, pyarrow.string()) for texts in zip(*rows, strict=True)), strict=True)
    )
    pairs = sorted(
        (index[query], index[text])
        for query, texts in (relevant or {}).items()
        if query in index
        for text in texts
        if text in index and text != query
    )
    in_rows = set(map(tuple, labels[:, :2].tolist())) if pairs else set()
    also_relevant = tuple(pair for pair in pairs if pair not in in_rows)
    offsets = pyarrow.array(np.arange(0, labels.size + 1, width, dtype=np.int32))
    columns["label"] = pyarrow.ListArray.from_arrays(offsets, pyarrow.array(labels.ravel()))
    return TrainingRows(HFDataset(pyarrow.table(columns)), list(index), also_relevant)
