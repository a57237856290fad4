"""What clicks say about relevance once the place on the page is taken out.

The position-based model (Richardson, Dominowska and Ragno, WWW 2007): a document is clicked when its place k is
examined, with probability theta[k], and the document attracts, with probability gamma[query, document]. Clicks alone
mistake the first for the second: what was ranked high looks relevant.
"""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from embedlab.data.click_log import ClickLog
from embedlab.data.splits import components
from embedlab.errors import ParameterError

STRENGTH = 10.0  # examinations that the prior counts for
MIN_IMPRESSIONS = 10
LEVEL = 0.95  # of the credible interval that has to clear the mean
TOLERANCE, MAX_ROUNDS = 1e-6, 5_000

logger = logging.getLogger(__name__)


def examination(log: ClickLog) -> pd.Series:
    """Position -> probability of being examined, relative to the most examined position (which gets 1).

    Maximum likelihood with clicks as Poisson counts of mean impressions x theta x gamma: theta and gamma are updated in
    turn, each as clicks over what the other expects, until theta stands still. It agrees with EM on the Bernoulli model
    (Chuklin, Markov and de Rijke, Click Models for Web Search, 2015, section 4.3.2) in far fewer rounds. There is
    deliberately no prior on gamma: it would pull up what is ranked low, and theta down with it.

    Returns:
        A series indexed by position. Only documents that one query showed at several positions, and that were clicked,
        tell positions apart: theta is NaN where a position is never compared, even through others, with those that
        hold most impressions.
    """
    clicked = log.counts.groupby(["query", "document"])["clicks"].transform("sum") > 0
    linked = _linked(log.counts[clicked & (log.counts["impressions"] > 0)])
    positions = sorted(log.counts["position"].unique())
    theta = (_fit(linked) if len(linked) else pd.Series(dtype=float)).reindex(positions)
    if left_out := theta.index[theta.isna()].tolist():
        logger.warning("positions %s share no clicked document of a query with the others: no estimate", left_out)
    return theta.rename("examination")


def relevance(log: ClickLog, theta: pd.Series | None = None, *, strength: float = STRENGTH) -> pd.DataFrame:
    """Smoothed click-through rate per query and document, corrected for position where `theta` is given.

    (a + clicks) / (a + b + impressions x theta): the posterior mean under Beta(a, b) with a + b = `strength` and the
    log's own rate as its mean. Without `theta` every impression counts as examined, which is the plain click-through
    rate. Weighting impressions by their propensity in the denominator ("clicks over expected clicks", Zhang and Jones,
    WWW 2007) has the expectation of inverse propensity weighting without its exploding weights.

    Returns:
        Columns query, document, impressions, examined (expected examinations), clicks, relevance; one row per query and
        document. Impressions at positions with a theta of NaN are left out.
    """
    counts = log.counts
    weight = counts["position"].map(theta) if theta is not None else 1.0
    shown = counts.assign(examined=counts["impressions"] * weight).dropna(subset="examined")
    columns = ["impressions", "examined", "clicks"]
    table = shown.groupby(["query", "document"], sort=False, as_index=False)[columns].sum()
    mean = _rate(table)
    return table.assign(relevance=((strength * mean + table["clicks"]) / (strength + table["examined"])).clip(upper=1))


def judge(
    log: ClickLog,
    *,
    min_impressions: int = MIN_IMPRESSIONS,
    level: float = LEVEL,
    strength: float = STRENGTH,
    correct_position: bool = True,
) -> pd.DataFrame:
    """Positives and hard negatives, where the clicks suffice to say so.

    A document is positive for a query when its corrected rate lies above the log's mean with probability `level`, and
    a hard negative (it was worth showing, was looked at, and was not chosen) when it lies below with that probability.

    Args:
        log: the click log.
        min_impressions: fewer give no judgement, whatever their rate.
        level: how sure to be, between 0.5 and 1.
        strength: of the prior, in examinations.
        correct_position: False takes clicks as they are.

    Returns:
        The columns of `relevance` and `verdict`: "positive", "negative" or "" (undecided).

    Raises:
        ParameterError: `level` is no probability above a half.
    """
    from scipy.stats import beta

    if not 0.5 < level < 1:
        raise ParameterError(f"a level of {level}", remedy="Choose one between 0.5 and 1, such as 0.95", field="level")
    theta = examination(log) if correct_position else None
    table = relevance(log, theta, strength=strength)
    mean = _rate(table)
    hits = strength * mean + table["clicks"]
    misses = (strength + table["examined"] - hits).clip(lower=1e-9)  # theta is an estimate: clicks may exceed it
    below = beta.cdf(mean, hits, misses) if mean > 0 else np.full(len(table), np.nan)
    verdict = np.select([below < 1 - level, below > level], ["positive", "negative"], "")
    return table.assign(verdict=np.where(table["impressions"] >= min_impressions, verdict, ""))


def _rate(table: pd.DataFrame) -> float:
    examined = table["examined"].sum()
    return min(1.0, float(table["clicks"].sum() / examined)) if examined else float("nan")


def _linked(counts: pd.DataFrame) -> pd.DataFrame:
    """Rows of the largest set of positions, by impressions, that shared documents make comparable."""
    if counts.empty:
        return counts
    pairs = counts.groupby(["query", "document"], sort=False).ngroup()
    shown = pairs.groupby(counts["position"].astype(str)).agg(set).to_dict()
    group = counts["position"].astype(str).map(components(shown))
    return counts[group == counts.groupby(group)["impressions"].sum().idxmax()]


def _fit(counts: pd.DataFrame) -> pd.Series:
    """Theta by position; see `examination`."""
    pair = counts.groupby(["query", "document"]).ngroup().to_numpy()
    place, positions = pd.factorize(counts["position"])
    shown, clicks = counts["impressions"].to_numpy(float), counts["clicks"].to_numpy(float)
    pair_clicks, place_clicks = np.bincount(pair, clicks), np.bincount(place, clicks)
    theta = _scaled(place_clicks / np.bincount(place, shown))
    for _ in range(MAX_ROUNDS):
        gamma = pair_clicks / np.bincount(pair, shown * theta[place])
        before, theta = theta, _scaled(place_clicks / np.bincount(place, shown * gamma[pair]))
        if np.abs(theta - before).max() < TOLERANCE:
            return pd.Series(theta, index=positions)
    logger.warning("examination probabilities still moved by more than %g after %d rounds", TOLERANCE, MAX_ROUNDS)
    return pd.Series(theta, index=positions)


def _scaled(theta: np.ndarray) -> np.ndarray:
    return theta / theta.max()
