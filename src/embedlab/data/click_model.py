"""Estimate relevance from clicks, corrected for position bias.

Position-based model (Richardson, Dominowska and Ragno, WWW 2007): a user examines position k with probability
`theta[k]` and clicks an examined document with probability `gamma[query, document]`. Raw click rates mix the two:
documents that were ranked high get more clicks because they are examined more often.
"""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from embedlab.data.click_log import ClickLog
from embedlab.data.splits import components

STRENGTH = 10.0  # weight of the prior, in examinations
MIN_IMPRESSIONS = 10
LEVEL = 0.95  # probability with which a rate has to lie above or below the mean
TOLERANCE, MAX_ROUNDS = 1e-6, 5_000

logger = logging.getLogger(__name__)


def examination(log: ClickLog) -> pd.Series:
    """Estimate how often each position is examined, relative to the most examined position (which gets 1).

    Maximum likelihood, with clicks as Poisson counts of mean impressions x theta x gamma: theta and gamma are updated
    in turn, each as clicks divided by what the other predicts, until theta converges. The result agrees with EM on the
    Bernoulli model (Chuklin, Markov and de Rijke, Click Models for Web Search, 2015, section 4.3.2) and needs far fewer
    rounds. We do not put a prior on gamma: it would overestimate documents with low ranks and bias theta downwards.

    Args:
        log: the click log.

    Returns:
        Theta, indexed by position. Only documents that were clicked and that one query showed at several positions
        allow positions to be compared. Theta is NaN for positions that cannot be compared, even indirectly, with the
        positions that have most impressions.
    """
    clicked = log.counts.groupby(["query", "document"])["clicks"].transform("sum") > 0
    comparable = _comparable(log.counts[clicked & (log.counts["impressions"] > 0)])
    positions = sorted(log.counts["position"].unique())
    theta = (_fit(comparable) if len(comparable) else pd.Series(dtype=float)).reindex(positions)
    if left_out := theta.index[theta.isna()].tolist():
        logger.warning("no estimate for positions %s: no query showed the same clicked document elsewhere", left_out)
    return theta.rename("examination")


def relevance(log: ClickLog, theta: pd.Series | None = None, *, strength: float = STRENGTH) -> pd.DataFrame:
    """Compute a smoothed click-through rate per query and document.

    (a + clicks) / (a + b + impressions x theta): the posterior mean under a Beta(a, b) prior with a + b = `strength`
    and the click rate of the whole log as its mean. Weighting the impressions in the denominator ("clicks over expected
    clicks", Zhang and Jones, WWW 2007) has the same expectation as inverse propensity weighting, without its extreme
    weights.

    Args:
        log: the click log.
        theta: examination probability per position, from `examination`; if None, every impression counts as examined,
            which gives the plain click-through rate.
        strength: weight of the prior, in examinations.

    Returns:
        One row per query and document with the columns query, document, impressions, examined (expected examinations),
        clicks and relevance. Impressions at positions whose theta is NaN are left out.
    """
    counts = log.counts
    weight = counts["position"].map(theta) if theta is not None else 1.0
    examined = counts.assign(examined=counts["impressions"] * weight).dropna(subset="examined")
    columns = ["impressions", "examined", "clicks"]
    table = examined.groupby(["query", "document"], sort=False, as_index=False)[columns].sum()
    mean = _rate(table)
    return table.assign(relevance=((strength * mean + table["clicks"]) / (strength + table["examined"])).clip(upper=1))


def judge(log: ClickLog, *, correct_position: bool = True) -> pd.DataFrame:
    """Turn clicks into positives and hard negatives.

    A document is a positive for a query if its corrected click rate is above the mean of the log with a probability of
    95 %. It is a hard negative (it was ranked high and examined, but not clicked) if the rate is below the mean with
    that probability. Pairs with fewer than 10 impressions stay undecided.

    Args:
        log: the click log.
        correct_position: correct for position bias; False uses raw clicks.

    Returns:
        The columns of `relevance` and `verdict`: "positive", "negative" or "" (undecided).
    """
    from scipy.stats import beta

    theta = examination(log) if correct_position else None
    table = relevance(log, theta)
    mean = _rate(table)
    hits = STRENGTH * mean + table["clicks"]
    # Theta is an estimate, so there can be more clicks than expected examinations.
    misses = (STRENGTH + table["examined"] - hits).clip(lower=1e-9)
    below = beta.cdf(mean, hits, misses) if mean > 0 else np.full(len(table), np.nan)
    verdict = np.select([below < 1 - LEVEL, below > LEVEL], ["positive", "negative"], "")
    return table.assign(verdict=np.where(table["impressions"] >= MIN_IMPRESSIONS, verdict, ""))


def _rate(table: pd.DataFrame) -> float:
    examined = table["examined"].sum()
    return min(1.0, float(table["clicks"].sum() / examined)) if examined else float("nan")


def _comparable(counts: pd.DataFrame) -> pd.DataFrame:
    """The rows of the set of positions with most impressions among those connected by shared documents."""
    if counts.empty:
        return counts
    pairs = counts.groupby(["query", "document"], sort=False).ngroup()
    pairs_at = pairs.groupby(counts["position"].astype(str)).agg(set).to_dict()
    group = counts["position"].astype(str).map(components(pairs_at))
    return counts[group == counts.groupby(group)["impressions"].sum().idxmax()]


def _fit(counts: pd.DataFrame) -> pd.Series:
    """Theta indexed by position, see `examination`."""
    pair = counts.groupby(["query", "document"]).ngroup().to_numpy()
    position, positions = pd.factorize(counts["position"])
    impressions, clicks = counts["impressions"].to_numpy(float), counts["clicks"].to_numpy(float)
    pair_clicks, position_clicks = np.bincount(pair, clicks), np.bincount(position, clicks)
    theta = _scaled(position_clicks / np.bincount(position, impressions))
    for _ in range(MAX_ROUNDS):
        gamma = pair_clicks / np.bincount(pair, impressions * theta[position])
        previous, theta = theta, _scaled(position_clicks / np.bincount(position, impressions * gamma[pair]))
        if np.abs(theta - previous).max() < TOLERANCE:
            return pd.Series(theta, index=positions)
    logger.warning("examination probabilities did not converge to %g within %d rounds", TOLERANCE, MAX_ROUNDS)
    return pd.Series(theta, index=positions)


def _scaled(theta: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = theta / theta.max()
    return scaled
