"""Answer easy queries from few dimensions and spend full search on the hard ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedlab.errors import DataError, ParameterError
from embedlab.search.rescore import Searcher


def margin(scores: np.ndarray, rank: int) -> np.ndarray:
    """How far the best document stands out: score at rank 1 minus score at `rank`, (Q,), of scores (Q, k), best first.

    Raises:
        ParameterError: `rank` is below 2 or deeper than the scores.
    """
    if not 2 <= rank <= scores.shape[1]:
        problem = f"there is no margin to rank {rank} of {scores.shape[1]}"
        raise ParameterError(problem, remedy=f"Choose 2 to {scores.shape[1]}", field="rank")
    return scores[:, 0] - scores[:, rank - 1]


@dataclass(frozen=True)
class StopRule:
    """Stop where the margin at the cheap dimension reaches a threshold.

    Attributes:
        rank: the margin is between rank 1 and this.
        threshold: infinite where no query may stop.
        share: queries that stopped when it was tuned.
        loss: mean loss of the metric over all queries when it was tuned.
    """

    rank: int
    threshold: float
    share: float
    loss: float

    def clear(self, scores: np.ndarray) -> np.ndarray:
        """Which queries (Q,) stop, from their scores (Q, k), best first."""
        return margin(scores, self.rank) >= self.threshold


def tune_stop_rule(
    scores: np.ndarray, cheap: np.ndarray, full: np.ndarray, *, rank: int = 10, tolerance: float = 0.001
) -> StopRule:
    """The rule that stops most queries without losing more than `tolerance` of the mean.

    Queries are stopped in order of falling margin; the lowest threshold is taken up to which the loss never exceeded
    the tolerance. Tune on dev, never on the split that is reported.

    Args:
        scores: (Q, k) of the cheap search, best first.
        cheap, full: (Q,) metric of every query from either search; a query with NaN is left out.
        rank: see `margin`.
        tolerance: the most that the mean may fall.

    Raises:
        DataError: no query has a value from both.
    """
    known = ~(np.isnan(cheap) | np.isnan(full))
    if not known.any():
        raise DataError("no query has a value from both searches", remedy="Tune on a split with positives")
    margins, losses = margin(scores, rank)[known], (full - cheap)[known]
    order = np.argsort(-margins, kind="stable")
    margins, losses = margins[order], losses[order].cumsum() / len(losses)
    ends_tie = np.append(margins[1:] != margins[:-1], True)  # queries of one margin stop together
    margins, losses, stopped = margins[ends_tie], losses[ends_tie], np.flatnonzero(ends_tie) + 1
    allowed = np.logical_and.accumulate(losses <= tolerance).sum()
    if not allowed:
        return StopRule(rank, float("inf"), 0.0, 0.0)
    last = allowed - 1
    return StopRule(rank, float(margins[last]), float(stopped[last] / len(order)), float(losses[last]))


def stop_early(cheap: Searcher, dear: Searcher, rule: StopRule) -> Searcher:
    """Search cheaply, and again dearly for the queries that are not clear.

    Scores of the two searches are of different dimensions and compare within a query only.
    """

    def search(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        scores, indices = cheap(queries, max(k, rule.rank))
        hard = ~rule.clear(scores)
        scores, indices = scores[:, :k].copy(), indices[:, :k].copy()
        if hard.any():
            scores[hard], indices[hard] = dear(queries[hard], k)
        return scores, indices

    return search
