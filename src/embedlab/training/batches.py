"""Batches from cached token ids: each text is tokenised once, and a batch can exclude duplicate texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sentence_transformers.base.sampler import DefaultBatchSampler

from embedlab.models.sides import Sides, is_static, sides_of
from embedlab.models.tokens import to_features, token_ids
from embedlab.training.truncated import Cut

if TYPE_CHECKING:
    import datasets
    from sentence_transformers import SentenceTransformer


class TokenisedCollator:
    """Trainer collator that looks up cached token ids by the text indices in `label`.

    Args:
        model: its tokenizer is used, and it decides whether batches are packed.
        texts: N texts; the indices in `label` point into this list.
        columns: one column name per index in `label`, the queries first.
        query_prompt: prepended to the texts of the first column.
        document_prompt: prepended to the texts of all other columns.
    """

    valid_label_columns = ("label",)

    def __init__(
        self,
        model: SentenceTransformer,
        texts: Sequence[str],
        columns: Sequence[str],
        query_prompt: str | None = None,
        document_prompt: str | None = None,
    ) -> None:
        self.model, self.columns = model, tuple(columns)
        query, document = sides_of(model)
        sides = Sides(query._replace(prompt=query_prompt), document._replace(prompt=document_prompt))
        documents = token_ids(document.model, texts, document_prompt)
        queries = documents if sides.are_equal else token_ids(query.model, texts, query_prompt)
        self._sides = [sides.query] + [sides.document] * (len(columns) - 1)
        self._token_ids = [queries] + [documents] * (len(columns) - 1)

    @property
    def cut(self) -> Cut | None:
        """How many texts are truncated; a text that is query and document counts twice."""
        if is_static(self.model):
            return None
        tokenised = {id(ids): ids for ids in self._token_ids}.values()
        return Cut(sum(map(len, tokenised)), sum(ids.truncated for ids in tokenised))

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the features of every column, prefixed with its name, and `label` (B, columns) of text indices."""
        labels = [row["label"] for row in rows]
        batch: dict[str, Any] = {"label": torch.tensor(labels)}
        columns = zip(self.columns, self._token_ids, self._sides, strict=True)
        for position, (name, token_ids_of, side) in enumerate(columns):
            features = to_features(side.model, [token_ids_of[label[position]] for label in labels], side.prompt)
            if side.task:
                features["task"] = side.task
            batch |= {f"{name}_{key}": value for key, value in features.items()}
        return batch


class NoDuplicates(DefaultBatchSampler):
    """Shuffled batches in which no text occurs twice and no in-batch negative is a known positive.

    This is `BatchSamplers.NO_DUPLICATES` of sentence-transformers, which knows the texts of a batch but not the other
    positives of its queries. A row that does not fit into the current batch waits for a later one. Rows that still wait
    at the end fill smaller batches, so every row is seen exactly once per epoch. Pass the class to the Trainer as
    `batch_sampler`.

    Args:
        dataset: its columns query, positive and negative_1 … are read, see `TrainingRows`.
        batch_size: rows per batch.
        drop_last: leave out batches with fewer rows.
        **kwargs: of `DefaultBatchSampler`.
    """

    def __init__(self, dataset: datasets.Dataset, batch_size: int, drop_last: bool, **kwargs: Any) -> None:
        super().__init__(dataset, batch_size=batch_size, drop_last=drop_last, **kwargs)
        names = [name for name in dataset.column_names if name in ("query", "positive") or name.startswith("negative_")]
        rows = list(zip(*(dataset[name] for name in names), strict=True))
        self._texts = [frozenset(row) for row in rows]
        relevant: dict[str, set[str]] = {}
        for query, positive, *_ in rows:
            relevant.setdefault(query, set()).add(positive)
        self._relevant = [relevant[row[0]] for row in rows]

    def __iter__(self) -> Iterator[list[int]]:
        """Yield batches of row indices; the order depends on the seed and the epoch."""
        waiting = np.random.default_rng((self.seed, self.epoch)).permutation(len(self._texts)).tolist()
        while waiting:
            batch, waiting = self._draw(waiting)
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def _draw(self, waiting: list[int]) -> tuple[list[int], list[int]]:
        """Split the waiting rows into the next batch and the rows that keep waiting."""
        batch: list[int] = []
        batch_texts: set[str] = set()
        batch_relevant: set[str] = set()
        skipped: list[int] = []
        for position, row in enumerate(waiting):
            if len(batch) == self.batch_size:
                return batch, skipped + waiting[position:]
            texts, relevant = self._texts[row], self._relevant[row]
            if batch_texts.isdisjoint(texts) and batch_texts.isdisjoint(relevant) and batch_relevant.isdisjoint(texts):
                batch.append(row)
                batch_texts |= texts
                batch_relevant |= relevant
            else:
                skipped.append(row)
        return batch, skipped

    def __len__(self) -> int:
        """Number of batches in this epoch (exact: the order of the epoch is deterministic)."""
        return sum(1 for _ in self)
