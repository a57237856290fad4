"""Batches from token ids made once: no text is tokenised twice, no batch holds the same text twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sentence_transformers.base.sampler import DefaultBatchSampler

from embedlab.models.tokens import to_features, token_ids

if TYPE_CHECKING:
    import datasets
    from sentence_transformers import SentenceTransformer


class TokenisedCollator:
    """Trainer collator for rows whose `label` holds text numbers: looks token ids up instead of tokenising.

    Args:
        model: gives the tokenizer and says whether batches are packed.
        texts: number -> text, for the numbers in `label`.
        columns: one name per number in `label`, queries first.
        query_prompt, document_prompt: put before the first column's texts and before all others.
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
        documents = token_ids(model, texts, document_prompt)
        queries = documents if query_prompt == document_prompt else token_ids(model, texts, query_prompt)
        self._prompts = [query_prompt] + [document_prompt] * (len(columns) - 1)
        self._tables = [queries] + [documents] * (len(columns) - 1)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Features of every column under its name, and `label` (rows, columns)."""
        numbers = [row["label"] for row in rows]
        batch: dict[str, Any] = {"label": torch.tensor(numbers)}
        for position, (name, table, prompt) in enumerate(zip(self.columns, self._tables, self._prompts, strict=True)):
            features = to_features(self.model, [table[row[position]] for row in numbers], prompt)
            batch |= {f"{name}_{key}": value for key, value in features.items()}
        return batch


class NoDuplicates(DefaultBatchSampler):
    """Shuffled batches in which no text occurs twice, so that no in-batch negative is a known positive.

    A row that shares a text with its batch waits for a later one. What still waits at the end fills smaller batches,
    so that every row is seen exactly once an epoch. Give the class to the Trainer as `batch_sampler`.
    """

    def __init__(self, dataset: datasets.Dataset, batch_size: int, drop_last: bool, **kwargs: Any) -> None:
        super().__init__(dataset, batch_size=batch_size, drop_last=drop_last, **kwargs)
        self._texts = [frozenset(row) for row in dataset["label"]]

    def __iter__(self) -> Iterator[list[int]]:
        """Batches of row numbers; another epoch gives another order."""
        waiting = np.random.default_rng((self.seed, self.epoch)).permutation(len(self._texts)).tolist()
        while waiting:
            batch, waiting = self._draw(waiting)
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def _draw(self, waiting: list[int]) -> tuple[list[int], list[int]]:
        batch: list[int] = []
        used: set[int] = set()
        passed_over: list[int] = []
        for position, row in enumerate(waiting):
            if len(batch) == self.batch_size:
                return batch, passed_over + waiting[position:]
            if used.isdisjoint(self._texts[row]):
                batch.append(row)
                used |= self._texts[row]
            else:
                passed_over.append(row)
        return batch, passed_over

    def __len__(self) -> int:
        """Batches of an epoch; exact, as the order of this epoch is known."""
        return sum(1 for _ in self)
