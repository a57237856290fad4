"""Search a Matryoshka embedding with few dimensions first, and spend the rest on a shortlist.

The first dimensions rank the whole corpus, and more dimensions rescore the shortlist, up to the full width: the
adaptive retrieval of Kusupati et al. (Matryoshka Representation Learning, NeurIPS 2022, section 4.3.1).

With 32 dimensions the dot products are so cheap that choosing the shortlist would take most of the time. It is chosen
in two exact steps: the k best documents all lie in the k groups of documents with the highest maximum, so only one
score per group is sorted.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from embedlab.errors import ParameterError
from embedlab.search.exact import Ranking, require_depth
from embedlab.search.rescore import BLOCK_QUERIES, Searcher, dot
from embedlab.search.vectors import Vectors, truncate

GROUP = 32  # documents that share one maximum
BLOCK_DOCS = 65_536  # a multiple of GROUP; fewer blocks mean fewer selections


class Funnel:
    """Exact search at `dims[0]` dimensions, then rescoring of ever shorter shortlists at more dimensions.

    Args:
        corpus: float32 (N, d), unit rows; used as it is, and the first `dims[0]` dimensions are copied.
        dims: dimensions in ascending order; a single one is plain full search.
        shortlists: documents that each stage but the last passes on; one fewer than `dims`.

    Raises:
        ParameterError: `dims` do not ascend or exceed d, or `shortlists` do not fit them.
    """

    def __init__(self, corpus: np.ndarray, dims: Sequence[int], shortlists: Sequence[int] = ()) -> None:
        _check_stages(dims, shortlists, corpus.shape[1])
        self.dims, self.shortlists = tuple(dims), tuple(min(size, len(corpus)) for size in shortlists)
        self.size = len(corpus)
        self._corpus = torch.from_numpy(np.require(corpus, np.float32, ["C", "W"]))
        first = self._corpus if dims[0] == corpus.shape[1] else torch.from_numpy(truncate(corpus, dims[0]))
        padding = -self.size % GROUP
        self._first = F.pad(first, (0, 0, 0, padding)) if padding else first  # whole groups; masked in the search

    def __call__(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the k best documents at the last width among the shortlist of the stage before.

        Documents with equal scores are ordered by index. Which of them enter a full shortlist is not defined, and
        rounding may tell equal texts apart.

        Args:
            queries: float32 (Q, d), unit rows, at full width.
            k: documents per query; N where the corpus holds fewer.

        Returns:
            Scores float32 (Q, k), cosines at the last dimension, best first, and indices int64 (Q, k).

        Raises:
            ParameterError: `k` is below 1 or above the last shortlist.
        """
        require_depth(k)
        k = min(k, self.size)
        if self.shortlists and k > self.shortlists[-1]:
            problem = f"k must be at most {self.shortlists[-1]}, the last shortlist, got {k}"
            raise ParameterError(problem, remedy="Use a longer shortlist or a smaller k", field="k")
        stages = [torch.from_numpy(truncate(queries, dim)).split(BLOCK_QUERIES) for dim in self.dims]
        results = [self._search(block, k) for block in zip(*stages, strict=True)]
        scores, indices = (torch.cat(blocks).numpy() for blocks in zip(*results, strict=True))
        return scores, indices

    def flops(self) -> int:
        """Count the floating-point operations of the dot products per query: 2 N d_1 + 2 m_1 d_2 + ...

        m are the shortlists; choosing the best scores is not counted.
        """
        scored = (self.size, *self.shortlists)
        return sum(2 * documents * dim for documents, dim in zip(scored, self.dims, strict=True))

    def _search(self, stages: Sequence[Tensor], k: int) -> tuple[Tensor, Tensor]:
        """Scores and indices (B, k) of a block of queries, given at every dimension."""
        sizes = (*self.shortlists, self.shortlists[-1]) if self.shortlists else (k,)  # the last stage only sorts
        scores, candidates = self._shortlist(stages[0], sizes[0])
        for queries, keep in zip(stages[1:], sizes[1:], strict=True):
            scores, candidates = _keep_best(self._cosines(queries, candidates), candidates, keep)
        order = scores.sort(dim=1, descending=True, stable=True).indices[:, :k]
        return scores.gather(1, order), candidates.gather(1, order)

    def _shortlist(self, queries: Tensor, keep: int) -> tuple[Tensor, Tensor]:
        """The best documents of the whole corpus at the first dimension: scores and indices (B, keep), by index."""
        all_scores, all_indices = [], []
        for start in range(0, self.size, BLOCK_DOCS):
            scores = queries @ self._first[start : start + BLOCK_DOCS].T
            scores[:, self.size - start :] = -torch.inf  # the rows that fill the last group
            best, columns = _grouped_top(scores, min(keep, self.size - start))
            all_scores.append(best)
            all_indices.append(columns + start)
        return _keep_best(torch.cat(all_scores, dim=1), torch.cat(all_indices, dim=1), keep)

    def _cosines(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """Cosines (B, m) of candidates (B, m) with queries (B, d) of fewer or all dimensions."""
        dim = queries.shape[1]
        rows = F.embedding(candidates, self._corpus[:, :dim])
        scores = dot(rows, queries)
        return scores if dim == self._corpus.shape[1] else scores / rows.norm(dim=-1).clamp_min(1e-12)


def rank_with(searcher: Searcher, vectors: Vectors, k: int = 10) -> Ranking:
    """Search `vectors.corpus` with `vectors.queries` and return a ranking for `evaluate`."""
    return vectors.ranked(k, searcher)


def _grouped_top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of scores (B, GROUP * groups) and their columns, in no order; any of those that tie at the edge."""
    by_group = scores.unflatten(1, (GROUP, -1))  # a group is every n-th column, which the maximum runs over fastest
    groups = by_group.amax(1).topk(min(k, by_group.shape[2]), sorted=False).indices[:, None, :]  # (B, 1, chosen)
    members = by_group.gather(2, groups.expand(-1, GROUP, -1)).flatten(1)  # (B, GROUP * chosen)
    best, places = members.topk(k, sorted=False)
    member, group = places // groups.shape[2], places % groups.shape[2]
    return best, member * by_group.shape[2] + groups[:, 0].gather(1, group)


def _keep_best(scores: Tensor, candidates: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """The `keep` best of candidates (B, m) and their scores, both in the order of the indices."""
    best, places = scores.topk(min(keep, scores.shape[1]), sorted=False)
    candidates, order = candidates.gather(1, places).sort(dim=1)
    return best.gather(1, order), candidates


def _check_stages(dims: Sequence[int], shortlists: Sequence[int], width: int) -> None:
    ascending = all(small < large for small, large in itertools.pairwise(dims))
    if not dims or not ascending or dims[0] < 1 or dims[-1] > width:
        problem = f"dims must ascend from 1 to at most {width}, got {tuple(dims)}"
        raise ParameterError(problem, remedy=f"Set dims=(64, {width}), for example", field="dims")
    descending = all(large >= small for large, small in itertools.pairwise(shortlists))
    if len(shortlists) != len(dims) - 1 or not descending or min(shortlists, default=1) < 1:
        problem = f"expected {len(dims) - 1} shortlists of 1 or more that do not grow, got {tuple(shortlists)}"
        remedy = "Pass one shortlist fewer than dims"
        raise ParameterError(problem, remedy=remedy, field="shortlists")
