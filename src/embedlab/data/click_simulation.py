"""Simulate click logs with known relevance, to test how well `click_model` recovers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from embedlab.data.click_log import ClickLog
from embedlab.data.dataset import Qrels

LEVELS = (0.6, 0.25, 0.05)  # attraction of relevant, related and other documents

Attraction = Mapping[str, Mapping[str, float]]  # query id -> {document id: probability of a click once examined}


def simulate_clicks(
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    attraction: Attraction,
    theta: Sequence[float],
    *,
    sessions: int,
    shuffle: float = 1.0,
    seed: int = 0,
) -> ClickLog:
    """Draw clicks from the position-based model: `P(click) = theta[position] x attraction[query][document]`.

    Args:
        queries, documents: id -> text.
        attraction: query id -> {document id: probability of a click once examined}, in the order in which the search
            engine ranks the documents.
        theta: (positions,) probability that each position is examined, first position first. Documents ranked below
            the last position are not shown.
        sessions: how often each query is searched.
        shuffle: standard deviation of the noise, in positions, that is added to every rank in each session. With 0,
            every session shows the same page, and position bias cannot be separated from relevance.
        seed: for the sessions.
    """
    rng = np.random.default_rng(seed)
    depth = len(theta)
    events = [
        _events(query, list(scored), _session_counts(rng, np.array(list(scored.values())), theta, sessions, shuffle))
        for query, scored in attraction.items()
    ]
    frame = pd.concat(events, ignore_index=True)
    return ClickLog.from_events(queries, documents, frame[frame["position"] <= depth])


def attraction_from_qrels(
    candidates: Mapping[str, Sequence[tuple[str, float]]],
    qrels: Qrels,
    related: Mapping[str, frozenset[str]],
    *,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Make a plausible ground truth for a simulation: relevant documents attract most, related ones less.

    Args:
        candidates: query id -> [(document id, score), …], best first: the result page of the search engine.
        qrels: query id -> {document id: grade}, the relevant documents.
        related: document id -> ids of related documents.
        seed: each document's attraction is a value of `LEVELS` times a random factor of 0.5 to 1.5.

    Returns:
        Query id -> {document id: probability of a click once examined}.
    """
    rng = np.random.default_rng(seed)
    truth: dict[str, dict[str, float]] = {}
    for query, ranking in candidates.items():
        near = set().union(*(related.get(document, ()) for document in qrels[query]))
        kinds = [0 if document in qrels[query] else 1 if document in near else 2 for document, _ in ranking]
        factors = rng.uniform(0.5, 1.5, len(ranking))
        truth[query] = {d: LEVELS[kind] * factor for (d, _), kind, factor in zip(ranking, kinds, factors, strict=True)}
    return truth


def kendall_by_query(truth: Attraction, estimate: pd.DataFrame) -> np.ndarray:
    """Compute Kendall's tau-b between the true and the estimated order of each query's documents.

    Args:
        truth: query id -> {document id: true attraction}.
        estimate: columns query, document and relevance, for example from `click_model.relevance`. Documents without
            an estimate are left out.

    Returns:
        (Q,) in the order of `truth`; NaN for queries with fewer than two estimates or only ties.
    """
    from scipy.stats import kendalltau

    estimates = estimate.set_index(["query", "document"])["relevance"].to_dict()
    taus = []
    for query, scored in truth.items():
        values = [(gamma, estimates[query, d]) for d, gamma in scored.items() if (query, d) in estimates]
        taus.append(kendalltau(*zip(*values, strict=True)).statistic if len(values) > 1 else np.nan)
    return np.array(taus, dtype=float)


def _session_counts(
    rng: np.random.Generator, gamma: np.ndarray, theta: Sequence[float], sessions: int, shuffle: float
) -> tuple[np.ndarray, np.ndarray]:
    """Impressions and clicks of one query, both (documents, positions); gamma is (documents,)."""
    count = len(gamma)
    examined = np.zeros(count)
    examined[: len(theta)] = theta[:count]
    noisy = np.arange(count) + shuffle * rng.standard_normal((sessions, count))
    position = noisy.argsort(axis=1).argsort(axis=1)  # (sessions, documents)
    clicked = rng.random((sessions, count)) < examined[position] * gamma
    cell = np.arange(count) * count + position
    impressions = np.bincount(cell.ravel(), minlength=count**2)
    clicks = np.bincount(cell.ravel(), clicked.ravel(), minlength=count**2)
    return impressions.reshape(count, count), clicks.astype(int).reshape(count, count)


def _events(query: str, documents: list[str], counts: tuple[np.ndarray, np.ndarray]) -> pd.DataFrame:
    impressions, clicks = counts
    row, position = impressions.nonzero()
    return pd.DataFrame(
        {
            "query": query,
            "document": [documents[i] for i in row],
            "position": position + 1,
            "impressions": impressions[row, position],
            "clicks": clicks[row, position],
        }
    )
