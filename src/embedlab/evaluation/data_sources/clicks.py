"""Simulate click logs with known truth, and measure how well relevance is recovered from the clicks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from embedlab.data.click_log import ClickLog
from embedlab.data.click_model import examination, judge, relevance
from embedlab.data.click_simulation import attraction_from_qrels, kendall_by_query, simulate_clicks
from embedlab.data.dataset import Dataset
from embedlab.data.splits import seeded_order
from embedlab.evaluation.significance import bootstrap_ci
from embedlab.search.bm25 import bm25_ranking

RANKS = range(1, 11)
# System -> how relevance is estimated: the plain click rate, corrected with the estimated or the true position bias.
SYSTEMS = {"clicks-naive": "naive", "clicks-corrected": "corrected", "clicks-oracle": "true bias"}


@dataclass(frozen=True, eq=False)
class ClickStudy:
    """Simulated click logs of different sizes over the same queries and result pages.

    Attributes:
        truth: query id -> {document id: probability that an examined document is clicked}.
        bias: probability that rank 1, 2, … is examined: 1, 1/2, …
        logs: sessions per query -> click log.
        estimated: sessions per query -> estimated examination by rank, relative to rank 1.
        fixed: number of ranks with an estimate if all pages show the same order.
    """

    truth: dict[str, dict[str, float]]
    bias: pd.Series
    logs: dict[int, ClickLog]
    estimated: dict[int, pd.Series]
    fixed: int

    @classmethod
    def simulate(
        cls, data: Dataset, *, queries: int, sessions: Sequence[int], shuffle: float, seed: int = 0
    ) -> ClickStudy:
        """Show BM25's first ten documents to simulated users and record their clicks.

        Args:
            data: its training queries are searched; labelled answers attract the most clicks.
            queries: number of queries.
            sessions: searches per query, one log for each number.
            shuffle: how much the order of a result page varies, in ranks.
            seed: seed of the sample and the clicks.
        """
        texts = {query: data.queries[query] for query in seeded_order(data.qrels["train"], seed)[:queries]}
        own_documents = data.own_documents("train")
        ranking = bm25_ranking(data.corpus, texts, len(RANKS), own_documents=own_documents)
        candidates = {query: ranked for query, ranked in ranking.as_candidates().items() if len(ranked) > 1}
        truth = attraction_from_qrels(candidates, data.qrels["train"], data.related, seed=seed)
        bias = pd.Series([1 / rank for rank in RANKS], index=RANKS)

        def log(count: int, shuffle: float) -> ClickLog:
            theta = bias.tolist()
            return simulate_clicks(texts, data.corpus, truth, theta, sessions=count, shuffle=shuffle, seed=seed)

        logs = {count: log(count, shuffle) for count in sessions}
        estimated = {count: examination(clicks) for count, clicks in logs.items()}
        return cls(truth, bias, logs, estimated, fixed=int(examination(log(20, 0.0)).notna().sum()))

    def sizes(self) -> pd.DataFrame:
        """Count impressions and clicks of every log."""
        rows = [
            {"sessions": count, **log.counts[["impressions", "clicks"]].sum().to_dict()}
            for count, log in self.logs.items()
        ]
        return pd.DataFrame(rows)

    def positions(self) -> pd.DataFrame:
        """Return the true and the estimated examination by rank: columns rank, true, and one per number of sessions."""
        columns: dict[str | int, list[float]] = {"rank": list(RANKS), "true": self.bias.to_list()}
        columns |= {count: values.to_list() for count, values in self.estimated.items()}
        return pd.DataFrame(columns)

    def taus(self) -> dict[tuple[str, int], np.ndarray]:
        """Compute Kendall's tau between true and estimated order: (system, sessions) -> one value per query (Q,)."""
        return {
            (system, count): kendall_by_query(self.truth, relevance(log, weights))
            for count, log in self.logs.items()
            for system, weights in zip(SYSTEMS, (None, self.estimated[count], self.bias), strict=True)
        }

    def order(self) -> pd.DataFrame:
        """Summarise `taus`: columns system, sessions, mean, low, high, n."""
        rows = [
            {"system": system, "sessions": count, **vars(bootstrap_ci(tau))}
            for (system, count), tau in self.taus().items()
        ]
        return pd.DataFrame(rows)

    def verdicts(self) -> pd.DataFrame:
        """Summarise the true attraction of the documents that the largest log calls positive or negative.

        Returns:
            Columns system, verdict, size, min, mean and max of the true attraction.
        """
        largest = self.logs[max(self.logs)]
        verdicts = pd.concat(
            judge(largest, correct_position=corrected).assign(system=system)
            for system, corrected in (("clicks-naive", False), ("clicks-corrected", True))
        )
        pairs = zip(verdicts["query"], verdicts["document"], strict=True)
        verdicts["attraction"] = [self.truth[query][document] for query, document in pairs]
        verdicts["verdict"] = verdicts["verdict"].replace("", "undecided")
        table = verdicts.groupby(["system", "verdict"])["attraction"]
        return table.agg(["size", "min", "mean", "max"]).reset_index()
