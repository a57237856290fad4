"""Judged positives in training: which candidates answer a query and must therefore never count as negatives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


class Judged:
    """Pairs of query and document numbers that are judged relevant.

    The numbers are those of texts or of matrix rows; two queries (or documents) that should count as one share one.

    Args:
        queries: int (P,).
        documents: int (P,), one per query.
    """

    def __init__(self, queries: Tensor, documents: Tensor) -> None:
        order = torch.argsort(queries, stable=True)
        self._documents = documents[order].contiguous()
        self._queries, counts = torch.unique_consecutive(queries[order], return_counts=True)
        self._ends = counts.cumsum(0)
        self._counts = counts

    def mask(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """Find the candidates that are judged relevant.

        Args:
            queries: int (B,).
            candidates: int (C,); numbers that are in no pair, such as -1, are never relevant.

        Returns:
            bool (B, C).
        """
        self._move(candidates.device)
        rows, documents = self._known(queries)
        distinct, place_of = candidates.unique(return_inverse=True)
        places = torch.searchsorted(distinct, documents)
        absent = distinct[places.clamp(max=len(distinct) - 1)] != documents
        # Documents that are not candidates go to an extra row: filtering them would make the GPU wait.
        relevant = torch.zeros(len(distinct) + 1, len(queries), dtype=torch.bool, device=candidates.device)
        relevant[places.masked_fill(absent, len(distinct)), rows] = True
        return relevant[place_of].T  # to copy whole rows is several times faster than to copy columns

    def _known(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Return the judged documents of all queries as places in `queries` and document numbers, (K,) each."""
        places = torch.searchsorted(self._queries, queries.contiguous()).clamp(max=len(self._queries) - 1)
        counts = self._counts[places].masked_fill(self._queries[places] != queries, 0)
        rows = torch.arange(len(queries), device=queries.device).repeat_interleave(counts)
        first = self._ends[places] - self._counts[places] - (counts.cumsum(0) - counts)
        return rows, self._documents[torch.arange(len(rows), device=queries.device) + first[rows]]

    def _move(self, device: torch.device) -> None:
        if self._queries.device != device:
            tensors = (self._queries, self._documents, self._ends, self._counts)
            self._queries, self._documents, self._ends, self._counts = (tensor.to(device) for tensor in tensors)
