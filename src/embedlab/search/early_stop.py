"""Answer easy queries from few dimensions, and search hard ones at full width."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedlab.errors import DataError, ParameterError
from embedlab.search.rescore import Searcher

RANK = 10


def margin(scores: np.ndarray, rank: int) -> np.ndarray:
    """Compute how far the best document is ahead: the score at rank 1 minus the score at `rank`.

    Args:
        scores: (Q, k), best first.
        rank: from 2 to k.

    Returns:
        (Q,).

    Raises:
        ParameterError: `rank` is outside 2 to k.
    """
    if not 2 <= rank <= scores.shape[1]:
        problem = f"rank must be between 2 and {scores.shape[1]}, the number of scores, got {rank}"
        raise ParameterError(problem, remedy="Search for more documents or choose a smaller rank", field="rank")
    return scores[:, 0] - scores[:, rank - 1]


@dataclass(frozen=True)
class StopRule:
    """Stop if the margin at few dimensions reaches a threshold.

    Attributes:
        rank: the margin is between rank 1 and this rank.
        threshold: infinite if no query may stop.
        share: queries that stopped when the rule was tuned.
        loss: mean loss of the metric over all queries when the rule was tuned.
    """

    rank: int
    threshold: float
    share: float
    loss: float

    def stops(self, scores: np.ndarray) -> np.ndarray:
        """Return which queries stop, bool (Q,), from their scores (Q, k), best first."""
        return margin(scores, self.rank) >= self.threshold


def tune_stop_rule(
    scores: np.ndarray, cheap: np.ndarray, full: np.ndarray, *, rank: int = RANK, tolerance: float = 0.001
) -> StopRule:
    """Find the rule that stops most queries without losing more than `tolerance` of the mean.

    Queries are stopped in order of falling margin. The threshold is the lowest one up to which the loss never exceeded
    the tolerance. Tune on dev, never on the split that you report.

    Args:
        scores: (Q, k) of the cheap search, best first.
        cheap: (Q,) metric of every query under the cheap search; queries with NaN are left out.
        full: (Q,) metric of every query under full search.
        rank: see `margin`.
        tolerance: the most that the mean may fall.

    Raises:
        DataError: no query has a value under both searches.
    """
    valid = ~(np.isnan(cheap) | np.isnan(full))
    if not valid.any():
        raise DataError("no query has a metric under both searches", remedy="Tune on a split with positives")
    margins, losses = margin(scores, rank)[valid], (full - cheap)[valid]
    order = np.argsort(-margins, kind="stable")
    margins, losses = margins[order], losses[order].cumsum() / len(losses)
    ends_tie = np.append(margins[1:] != margins[:-1], True)  # queries with the same margin stop together
    margins, losses, stopped = margins[ends_tie], losses[ends_tie], np.flatnonzero(ends_tie) + 1
    allowed = np.logical_and.accumulate(losses <= tolerance).sum()
    if not allowed:
        return StopRule(rank, float("inf"), 0.0, 0.0)
    last = allowed - 1
    return StopRule(rank, float(margins[last]), float(stopped[last] / len(order)), float(losses[last]))


def stop_early(cheap: Searcher, full: Searcher, rule: StopRule) -> Searcher:
    """Build a search that uses `cheap` for all queries, and `full` for those that do not stop.

    Compare the scores only within a query: the two searches score at different dimensions.
    """

    def search(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        scores, indices = cheap(queries, max(k, rule.rank))
        hard = ~rule.stops(scores)
        scores, indices = scores[:, :k].copy(), indices[:, :k].copy()
        if hard.any():
            scores[hard], indices[hard] = full(queries[hard], k)
        return scores, indices

    return search
