"""Retrieval metrics as trec_eval defines them, kept per query.

nDCG uses trec_eval's linear gain (the grade itself, not 2^grade - 1) with the discount 1 / log2(rank + 1): Järvelin &
Kekäläinen, Cumulated gain-based evaluation of IR techniques, TOIS 2002, in the form of trec_eval's `ndcg_cut`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from embedlab.data.beir import MAX_GRADE
from embedlab.data.dataset import Qrels, own_documents
from embedlab.errors import DataError, ParameterError
from embedlab.search.exact import ABSENT, Ranking

if TYPE_CHECKING:
    import pandas as pd

CUTOFFS = (1, 3, 5, 10, 100)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Metric values of every query; NaN where nothing was measured, for example because a query has no positive.

    Attributes:
        query_ids: Q query ids.
        values: metric name, e.g. `ndcg@10` -> float64 (Q,).
        n_without_positives: queries left out of every mean because no document is judged relevant to them.
    """

    query_ids: tuple[str, ...]
    values: dict[str, np.ndarray]
    n_without_positives: int

    def __repr__(self) -> str:
        """One short line: a notebook cell may end with an evaluation."""
        return f"Evaluation({len(self.query_ids)} queries, {len(self.values)} metrics)"

    @property
    def n(self) -> int:
        """Queries that count: those with at least one positive."""
        return len(self.query_ids) - self.n_without_positives

    def of(self, metric: str) -> np.ndarray:
        """Values of `metric` per query (Q,), NaN for queries without positives."""
        if metric not in self.values:
            remedy = f"Choose one of {', '.join(self.values)}"
            raise ParameterError(f"No metric {metric!r} was computed", remedy=remedy, field="metric")
        return self.values[metric]

    def mean(self, metric: str) -> float:
        """Mean over the queries that count; NaN when there is none."""
        values = self.of(metric)
        return float("nan") if np.isnan(values).all() else float(np.nanmean(values))

    def means(self) -> dict[str, float]:
        """Metric name -> mean, for every metric."""
        return {metric: self.mean(metric) for metric in self.values}

    def frame(self) -> pd.DataFrame:
        """One row per query: `query_id` and a column per metric."""
        import pandas as pd

        return pd.DataFrame({"query_id": list(self.query_ids), **self.values})


class _Judgements(NamedTuple):
    """All judgements as parallel arrays (J,): the query's row, the document's place in the corpus (-1: not in it)."""

    row: np.ndarray
    column: np.ndarray
    grade: np.ndarray


def evaluate(ranking: Ranking, qrels: Qrels, cutoffs: Sequence[int] = CUTOFFS) -> Evaluation:
    """Score a ranking: `ndcg@k`, `recall@k`, `precision@k`, `mrr@k` and `map@k` for every cutoff k.

    The values are those of trec_eval's ndcg_cut, recall, P, recip_rank (0 beyond rank k) and map_cut: documents are
    ordered by score, equal scores by descending document id; unjudged documents are not relevant; precision divides by
    k even if fewer documents were found; recall and map divide by all positives, found or not. A document with the
    query's own id is left out unless it is judged relevant, as in BEIR and mteb (`ignore_identical_ids`). All values of
    a ranking that is not measurable are NaN.

    Args:
        ranking: retrieved documents.
        qrels: query id -> {document id: grade}; a grade below 1 is a judgement of not relevant.
        cutoffs: ranks to stop at.

    Raises:
        DataError: a query with positives is missing from the ranking, so the mean would be too high; or a grade is not
            a whole number, or is too large.
        ParameterError: a cutoff is below 1 or deeper than the ranking.
    """
    _check_cutoffs(ranking, cutoffs)
    judged = {query: qrels.get(query, {}) for query in ranking.query_ids}
    if finding_themselves := own_documents(judged, set(ranking.corpus_ids)):
        ranking = ranking.without_own(finding_themselves)
    judgements = _flatten(ranking, qrels)
    depth, queries = max(cutoffs), len(ranking.query_ids)
    positives = np.bincount(judgements.row[judgements.grade > 0], minlength=queries)
    grades_by_rank = _grades_by_rank(ranking, judgements, depth)
    ideal = _ideal_grades(judgements, queries, depth)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = _all_metrics(grades_by_rank, ideal, positives, cutoffs)
    nothing_to_find = (positives == 0) | (not ranking.measurable)
    for metric in values.values():
        metric[nothing_to_find] = np.nan
    return Evaluation(ranking.query_ids, values, int((positives == 0).sum()))


def _all_metrics(
    grades_by_rank: np.ndarray, ideal: np.ndarray, positives: np.ndarray, cutoffs: Sequence[int]
) -> dict[str, np.ndarray]:
    """Metric name -> (Q,), from the grades found (Q, K), the best order's grades (Q, K) and positive counts (Q,)."""
    ranks = np.arange(1, grades_by_rank.shape[1] + 1)
    relevant = grades_by_rank > 0
    hits = relevant.cumsum(1)
    gain, best_gain = ((grades / np.log2(ranks + 1)).cumsum(1) for grades in (grades_by_rank, ideal))
    precision_at_hits = np.where(relevant, hits / ranks, 0.0).cumsum(1)
    reciprocal = np.where(relevant.any(1), 1 / (relevant.argmax(1) + 1), 0.0)
    values = {}
    for k in cutoffs:
        values[f"ndcg@{k}"] = gain[:, k - 1] / best_gain[:, k - 1]
        values[f"recall@{k}"] = hits[:, k - 1] / positives
        values[f"precision@{k}"] = hits[:, k - 1] / k
        values[f"mrr@{k}"] = np.where(hits[:, k - 1] > 0, reciprocal, 0.0)
        values[f"map@{k}"] = precision_at_hits[:, k - 1] / positives
    return values


def _flatten(ranking: Ranking, qrels: Qrels) -> _Judgements:
    row_of = {query: row for row, query in enumerate(ranking.query_ids)}
    missing = [query for query, grades in qrels.items() if query not in row_of and max(grades.values(), default=0) > 0]
    if missing:
        problem = f"{len(missing)} judged queries are not in the ranking, {missing[0]!r} first"
        raise DataError(problem, remedy="Rank every query of the split, or pass the qrels of those ranked")
    place_of = {document: column for column, document in enumerate(ranking.corpus_ids)}
    flat = [
        (row_of[query], place_of.get(document, ABSENT), grade)
        for query, grades in qrels.items()
        if query in row_of
        for document, grade in grades.items()
    ]
    _check_grades(qrels)
    row, column, grade = np.array(flat, dtype=np.int64).reshape(-1, 3).T
    return _Judgements(row, column, np.maximum(grade, 0))


def _check_grades(qrels: Qrels) -> None:
    for query, grades in qrels.items():
        for document, grade in grades.items():
            if not (abs(grade) <= MAX_GRADE and grade == int(grade)):
                problem = f"a grade must be a whole number of at most {MAX_GRADE:,}, got {grade}"
                remedy = "Use 0 for not relevant, 1 or more for relevant"
                raise DataError(problem, remedy=remedy, field=f"query {query}, document {document}")


def _grades_by_rank(ranking: Ranking, judgements: _Judgements, depth: int) -> np.ndarray:
    """Grades (Q, depth) of the documents found, by rank; 0 where unjudged or nothing was found."""
    indices = np.take_along_axis(ranking.indices, _trec_order(ranking), 1)[:, :depth]
    width = len(ranking.corpus_ids)
    in_corpus = judgements.column != ABSENT
    keys = judgements.row[in_corpus] * width + judgements.column[in_corpus]
    order = keys.argsort()
    # The sentinel keeps the lookup inside the arrays, and gives unjudged documents their grade of 0.
    keys, grades = np.append(keys[order], -1), np.append(judgements.grade[in_corpus][order], 0)
    lookup = np.arange(len(indices))[:, None] * width + indices
    at = np.searchsorted(keys[:-1], lookup)
    judged = (keys[at] == lookup) & (indices != ABSENT)
    by_rank = np.where(judged, grades[at], 0)
    return np.pad(by_rank, ((0, 0), (0, depth - by_rank.shape[1])))


def _trec_order(ranking: Ranking) -> np.ndarray:
    """Column order (Q, k) by descending score, ties by descending document id, as trec_eval sorts a run."""
    order = np.argsort(-ranking.scores, axis=1, kind="stable")
    ordered = np.take_along_axis(ranking.scores, order, 1)
    tied = ((ordered[:, 1:] == ordered[:, :-1]) & np.isfinite(ordered[:, 1:])).any(1)
    if tied.any():
        used, inverse = np.unique(ranking.indices[tied], return_inverse=True)
        names = [ranking.corpus_ids[index] for index in used]
        name_rank = np.empty(len(used), dtype=np.int64)
        name_rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
        ids = name_rank[inverse.reshape(ranking.indices[tied].shape)]
        order[tied] = np.lexsort((-ids, -ranking.scores[tied]))
    return order


def _ideal_grades(judgements: _Judgements, queries: int, depth: int) -> np.ndarray:
    """Grades (Q, depth) of the best possible ranking: every judged document by descending grade."""
    order = np.lexsort((-judgements.grade, judgements.row))
    row, grade = judgements.row[order], judgements.grade[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    ideal = np.zeros((queries, depth), dtype=np.int64)
    in_depth = rank < depth
    ideal[row[in_depth], rank[in_depth]] = grade[in_depth]
    return ideal


def _check_cutoffs(ranking: Ranking, cutoffs: Sequence[int]) -> None:
    if not cutoffs or min(cutoffs) < 1:
        raise ParameterError(f"The cutoffs are {tuple(cutoffs)}", remedy="Give ranks from 1 on", field="cutoffs")
    if ranking.depth < min(max(cutoffs), len(ranking.corpus_ids)):
        problem = f"The ranking holds {ranking.depth} documents per query, too few to score rank {max(cutoffs)}"
        raise ParameterError(problem, remedy="Search deeper or lower the cutoffs", field="cutoffs")
