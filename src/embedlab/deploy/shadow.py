"""Shadow test: answer a query log with the current version and a candidate, and decide: promote or hold.

Rank-biased overlap: Webber, Moffat & Zobel, A Similarity Measure for Indefinite Rankings, TOIS 2010.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from embedlab.data.dataset import Qrels, own_documents
from embedlab.data.textio import id_of, read_rows, text_of
from embedlab.deploy.measure import latency_ms
from embedlab.deploy.serve import Served
from embedlab.deploy.space import Encoder, require_same
from embedlab.errors import DataError
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.significance import PairedDifference, paired_difference
from embedlab.search.exact import ABSENT, Ranking

if TYPE_CHECKING:
    import pandas as pd

PERSISTENCE = 0.9  # of RBO: the first ten ranks carry 86 % of the weight (Webber et al., section 4.3)
TIMED = 200  # queries whose latency is measured
REPEATS = 3  # the fastest counts: two indexes are compared, not two moments of a busy machine


class QueryLog(NamedTuple):
    """Queries of a log: id -> text, and the ids of those whose answer must not change unnoticed."""

    queries: dict[str, str]
    high_risk: frozenset[str]


@dataclass(frozen=True)
class Limits:
    """Limits within which a candidate is promoted.

    Attributes:
        margin: tolerated loss of the metric; the interval of the difference must lie above -margin.
        min_overlap: mean overlap that suffices without judgements.
        newly_empty: queries that may lose all their answers.
        high_risk_changed: high-risk queries whose first answer may change without a judgement that it is as good.
        slowdown: tolerated factor on the 95th percentile of latency.
    """

    margin: float = 0.01
    min_overlap: float = 0.6
    newly_empty: int = 0
    high_risk_changed: int = 0
    slowdown: float = 1.5


@dataclass(frozen=True)
class Side:
    """A version and the encoder of its queries.

    Attributes:
        served: the open version.
        encoder: of its space.
        floor: answers with a lower score are dropped; each space has its own, because scores are not comparable.
    """

    served: Served
    encoder: Encoder
    floor: float = -1.0


@dataclass(frozen=True, eq=False)
class ShadowReport:
    """Result of a shadow test.

    Attributes:
        per_query: query_id, query, overlap, rbo, newly_empty, first_changed, high_risk, current (metric), candidate.
        difference: candidate - current of the metric over the judged queries; None without judgements.
        latency: p95 in ms of current and candidate.
        holds: reasons to hold; empty means promote.
        grounds: reasons to promote.
    """

    per_query: pd.DataFrame
    difference: PairedDifference | None
    latency: tuple[float, float]
    holds: tuple[str, ...]
    grounds: tuple[str, ...] = field(default=())

    @property
    def verdict(self) -> str:
        """`promote` or `hold`."""
        return "hold" if self.holds else "promote"


def overlap_at_k(a: Sequence[str | None], b: Sequence[str | None], k: int) -> float:
    """Return the share of the first k answers that two rankings have in common, in any order; NaN if both are empty."""
    first, second = _named(a)[:k], _named(b)[:k]
    longer = max(len(first), len(second))
    return len(set(first) & set(second)) / longer if longer else float("nan")


def rbo(a: Sequence[str | None], b: Sequence[str | None], p: float = PERSISTENCE) -> float:
    """Compute rank-biased overlap, extrapolated beyond the ends (RBO_ext, equation 32 of Webber et al.).

    It is 1 for equal rankings and 0 for disjoint ones. A reader goes on to the next rank with probability `p`, so the
    top weighs most. Rankings may differ in length; empty ranks (None) do not count. NaN if either is empty.
    """
    short, long = sorted((_named(a), _named(b)), key=len)
    s, depth = len(short), len(long)
    if not s:
        return float("nan")
    shared = [len(set(short[:d]) & set(long[:d])) for d in range(1, depth + 1)]
    agreement = sum(x / d * p**d for d, x in enumerate(shared, start=1))
    unseen = sum(shared[s - 1] * (d - s) / (s * d) * p**d for d in range(s + 1, depth + 1))
    tail = (shared[-1] - shared[s - 1]) / depth + shared[s - 1] / s
    return (1 - p) / p * (agreement + unseen) + tail * p**depth


def read_query_log(path: Path) -> QueryLog:
    """Queries from a JSONL, CSV or Parquet file: column `query`, optional `id` and `high_risk` (true, yes or 1).

    Without ids the text is the id. A repeated query counts once, and is high-risk if any of its rows is.

    Raises:
        DataError: the file is missing, empty or malformed, with the line.
    """
    queries, risky = {}, set()
    for row in read_rows(path):
        text = text_of(row, "query", path)
        name = id_of(row, "id", path) if row.values.get("id") is not None else text
        queries[name] = text
        if str(row.values.get("high_risk", "")).strip().lower() in ("true", "yes", "1"):
            risky.add(name)
    return QueryLog(queries, frozenset(risky))


def shadow_test(
    current: Side,
    candidate: Side,
    log: QueryLog,
    *,
    qrels: Qrels | None = None,
    k: int = 10,
    limits: Limits | None = None,
) -> ShadowReport:
    """Replay a query log against both sides.

    Args:
        current: the served version.
        candidate: the version that may replace it.
        log: the queries.
        qrels: judgements of some of them, query id -> {document id: grade}.
        k: answers compared; the metric is nDCG@k.
        limits: tolerated changes.

    Raises:
        SpaceMismatch: an encoder does not fit its version.
        DataError: the log is empty.
    """
    if not log.queries:
        raise DataError("the query log is empty", remedy="Give at least one query")
    self_finding = _own_documents(qrels or {}, log, (current, candidate))
    of_current, of_candidate = (_answers(side, log.queries, k, self_finding) for side in (current, candidate))
    timed = list(log.queries.values())[:TIMED]
    latency = _p95(current, timed, k), _p95(candidate, timed, k)
    return compare_rankings(of_current, of_candidate, log, latency=latency, qrels=qrels, k=k, limits=limits or Limits())


def compare_rankings(
    current: Ranking,
    candidate: Ranking,
    log: QueryLog,
    *,
    latency: tuple[float, float],
    qrels: Qrels | None,
    k: int,
    limits: Limits,
) -> ShadowReport:
    """Run `shadow_test` on existing rankings of the same queries in the same order."""
    table = _per_query(current, candidate, log, k)
    judged = {query: grades for query, grades in (qrels or {}).items() if query in log.queries}
    for name, ranking in (("current", current), ("candidate", candidate)):
        table[name] = evaluate(ranking, judged, [k]).of(f"ndcg@{k}") if judged else np.nan
    has_judgements = table["current"].notna().any()
    difference = (
        paired_difference(table["candidate"].to_numpy(), table["current"].to_numpy()) if has_judgements else None
    )
    holds, grounds = _judge(table, difference, latency, limits, k)
    return ShadowReport(table, difference, latency, holds, grounds)


def _named(ranking: Sequence[str | None]) -> list[str]:
    return [name for name in ranking if name is not None]


def _own_documents(qrels: Qrels, log: QueryLog, sides: Sequence[Side]) -> frozenset[str]:
    """Ids of the judged queries that would find themselves in one of the versions."""
    judged = {query: grades for query, grades in qrels.items() if query in log.queries}
    return own_documents(judged, {document for side in sides for document in side.served.ids} if judged else ())


def _answers(side: Side, queries: Mapping[str, str], k: int, self_finding: Collection[str]) -> Ranking:
    ranking = side.served.rank(side.encoder, queries, k + bool(self_finding))
    ranking = ranking.without_own(self_finding, k) if self_finding else ranking
    indices = np.where(ranking.scores < side.floor, ABSENT, ranking.indices)
    scores = np.where(indices == ABSENT, -np.inf, ranking.scores)
    return Ranking.from_search(ranking.query_ids, ranking.corpus_ids, scores, indices)


def _p95(side: Side, texts: Sequence[str], k: int) -> float:
    require_same(side.served.space, side.encoder.space, action="searching this version")
    times = latency_ms(side.served.index, side.encoder.encode_queries(texts), k, repeats=REPEATS)
    return float(np.percentile(times, 95))


def _per_query(current: Ranking, candidate: Ranking, log: QueryLog, k: int) -> pd.DataFrame:
    import pandas as pd

    if current.query_ids != candidate.query_ids:
        raise DataError("the rankings are not of the same queries", remedy="Replay one log against both versions")
    rows = [
        {
            "query_id": name,
            "query": log.queries[name],
            "overlap": overlap_at_k(old, new, k),
            "rbo": rbo(old, new),
            "newly_empty": old[0] is not None and new[0] is None,
            "first_changed": old[0] != new[0],
            "high_risk": name in log.high_risk,
        }
        for name, old, new in zip(current.query_ids, current.doc_ids, candidate.doc_ids, strict=True)
    ]
    return pd.DataFrame(rows)


def _judge(
    table: pd.DataFrame, difference: PairedDifference | None, latency: tuple[float, float], limits: Limits, k: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Reasons to hold and grounds to promote."""
    emptied = int(table["newly_empty"].sum())
    # A high-risk query may change its first answer only where judgements say that it got no worse.
    worse = ~(table["candidate"] >= table["current"])
    risky = int((table["high_risk"] & table["first_changed"] & worse).sum())
    slowdown = latency[1] / latency[0]
    checks = [
        _quality(table, difference, limits, k),
        (emptied <= limits.newly_empty, f"{emptied} queries lose all their answers"),
        (
            risky <= limits.high_risk_changed,
            f"{risky} high-risk queries get another first answer that is not judged as good",
        ),
        (slowdown <= limits.slowdown, f"p95 latency {latency[1]:.2f} ms is {slowdown:.2f} times the current one"),
    ]
    return tuple(text for fine, text in checks if not fine), tuple(text for fine, text in checks if fine)


def _quality(table: pd.DataFrame, difference: PairedDifference | None, limits: Limits, k: int) -> tuple[bool, str]:
    overlap = table["overlap"].mean()
    if difference is None:
        return bool(overlap >= limits.min_overlap), f"nothing is judged and the mean overlap@{k} is {overlap:.2f}"
    interval = f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}], n = {difference.n}"
    return difference.low > -limits.margin, f"nDCG@{k} changes by {interval}; a loss of {limits.margin} is tolerated"
