"""Click logs with known relevance, to see whether what clicks are turned into can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from embedlab.data.click_log import ClickLog
from embedlab.data.dataset import Qrels

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
    """Clicks drawn from the position-based model: P(click) = theta[place] x `attraction[query][document]`.

    Args:
        queries, documents: id -> text.
        attraction: the documents shown for each query, in the order the search engine ranks them, with the
            probability that each is clicked once it is examined.
        theta: probability that each place is examined, first place first; further documents are not shown.
        sessions: times that every query is asked.
        shuffle: standard deviation, in places, of what is added to every document's place in each session; 0 always
            shows the same page, from which nobody can tell place and document apart.
        seed: of the sessions.
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
    levels: tuple[float, float, float] = (0.6, 0.25, 0.05),
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """A believable truth for a simulation: answers attract most, what is related to them less, the rest least.

    Args:
        candidates: query id -> [(document id, score), …], best first: the page as the search engine orders it.
        qrels: query id -> {document id: grade}; what answers.
        related: document id -> the documents related to it.
        levels: attraction of answers, related and other documents, each times a random factor of 0.5 to 1.5.
        seed: of the factors.
    """
    rng = np.random.default_rng(seed)
    truth: dict[str, dict[str, float]] = {}
    for query, found in candidates.items():
        near = set().union(*(related.get(document, ()) for document in qrels[query]))
        kinds = [0 if document in qrels[query] else 1 if document in near else 2 for document, _ in found]
        factors = rng.uniform(0.5, 1.5, len(found))
        truth[query] = {d: levels[kind] * factor for (d, _), kind, factor in zip(found, kinds, factors, strict=True)}
    return truth


def kendall_by_query(truth: Attraction, estimate: pd.DataFrame, column: str = "relevance") -> np.ndarray:
    """Kendall's tau-b between true and estimated order of each query's documents (Q,), in the order of `truth`.

    Documents without an estimate are left out; NaN where fewer than two are left or all are equal.
    """
    from scipy.stats import kendalltau

    estimates = estimate.set_index(["query", "document"])[column].to_dict()
    taus = []
    for query, scored in truth.items():
        known = [(gamma, estimates[query, d]) for d, gamma in scored.items() if (query, d) in estimates]
        taus.append(kendalltau(*zip(*known, strict=True)).statistic if len(known) > 1 else np.nan)
    return np.array(taus, dtype=float)


def _session_counts(
    rng: np.random.Generator, gamma: np.ndarray, theta: Sequence[float], sessions: int, shuffle: float
) -> tuple[np.ndarray, np.ndarray]:
    """Impressions and clicks (documents, places) of one query; gamma is (documents,)."""
    count = len(gamma)
    examined = np.zeros(count)
    examined[: len(theta)] = theta[:count]
    noisy = np.arange(count) + shuffle * rng.standard_normal((sessions, count))
    place = noisy.argsort(axis=1).argsort(axis=1)  # (sessions, documents)
    clicked = rng.random((sessions, count)) < examined[place] * gamma
    cell = np.arange(count) * count + place
    shown = np.bincount(cell.ravel(), minlength=count**2)
    clicks = np.bincount(cell.ravel(), clicked.ravel(), minlength=count**2)
    return shown.reshape(count, count), clicks.astype(int).reshape(count, count)


def _events(query: str, documents: list[str], counts: tuple[np.ndarray, np.ndarray]) -> pd.DataFrame:
    shown, clicks = counts
    row, place = shown.nonzero()
    return pd.DataFrame(
        {
            "query": query,
            "document": [documents[i] for i in row],
            "position": place + 1,
            "impressions": shown[row, place],
            "clicks": clicks[row, place],
        }
    )
