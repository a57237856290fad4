"""Queries on which two systems differ, with the documents that both rank highest, for people to read and judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedlab.data.dataset import Dataset
from embedlab.errors import DataError
from embedlab.evaluation.comparison import require_same_queries
from embedlab.evaluation.metrics import Evaluation
from embedlab.search.exact import ABSENT, Ranking

WIN, TIE, LOSS = "win", "tie", "loss"
TOP, PER_OUTCOME = 5, 100  # documents shown per system; at most this many wins, ties and losses each


@dataclass(frozen=True)
class Found:
    """A ranked document; `grade` is None if nobody judged it for this query."""

    document: str
    text: str
    grade: int | None


@dataclass(frozen=True)
class Case:
    """One query with the answers of both systems.

    Attributes:
        query: its id.
        text: its text.
        outcome: win, tie or loss of the first system.
        of_a, of_b: the metric of both systems.
        answers: the documents judged relevant, ranked or not.
        found_a, found_b: the documents that each system ranks highest.
        fields: metadata of the query.
    """

    query: str
    text: str
    outcome: str
    of_a: float
    of_b: float
    answers: tuple[Found, ...]
    found_a: tuple[Found, ...]
    found_b: tuple[Found, ...]
    fields: Mapping[str, str]


def side_by_side(
    dataset: Dataset,
    split: str,
    rankings: tuple[Ranking, Ranking],
    evaluations: tuple[Evaluation, Evaluation],
    *,
    metric: str = "ndcg@10",
    fields: Mapping[str, Mapping[str, str]] | None = None,
) -> list[Case]:
    """Return the queries of a split as cases, largest differences first, without queries that have no positive.

    There are at most 100 wins, ties and losses each, with the first five documents of both systems.
    Documents are in the order of the search. If scores are equal, the metric may have counted them in another order.

    Args:
        dataset: texts and judgements.
        split: the split that was evaluated.
        rankings, evaluations: of system a, then of system b, for the same queries in the same order.
        metric: what decides between win and loss.
        fields: query id -> metadata; the dataset's own when not given.

    Raises:
        DataError: rankings and evaluations are not of the same queries.
    """
    require_same_queries(*evaluations)
    if any(ranking.query_ids != evaluations[0].query_ids for ranking in rankings):
        raise DataError("The rankings are not of the evaluated queries", remedy="Rank the split that was evaluated")
    of_a, of_b = (evaluation.of(metric) for evaluation in evaluations)
    rows = _largest_first(of_a - of_b)
    fields = dataset.fields if fields is None else fields
    return [_case(dataset, split, row, rankings, (float(of_a[row]), float(of_b[row])), fields) for row in rows]


def outcome_of(difference: float) -> str:
    """Return "win", "tie" or "loss" of the first system."""
    return WIN if difference > 0 else LOSS if difference < 0 else TIE


def _largest_first(differences: np.ndarray) -> list[int]:
    order = np.argsort(-np.abs(np.nan_to_num(differences)), kind="stable")
    rows_of: dict[str, list[int]] = {WIN: [], TIE: [], LOSS: []}
    for row in order[~np.isnan(differences[order])]:
        rows_of[outcome_of(differences[row])].append(int(row))
    selected = {row for rows in rows_of.values() for row in rows[:PER_OUTCOME]}
    return [int(row) for row in order if row in selected]


def _case(
    dataset: Dataset,
    split: str,
    row: int,
    rankings: tuple[Ranking, Ranking],
    values: tuple[float, float],
    fields: Mapping[str, Mapping[str, str]],
) -> Case:
    query = rankings[0].query_ids[row]
    grades = dataset.qrels[split].get(query, {})
    listed = [
        [
            ranking.corpus_ids[row_of_document]
            for row_of_document in ranking.indices[row, :TOP]
            if row_of_document != ABSENT
        ]
        for ranking in rankings
    ]
    positives = [document for document, grade in grades.items() if grade > 0]
    answers, found_a, found_b = (
        tuple(Found(document, dataset.corpus.get(document, ""), grades.get(document)) for document in documents)
        for documents in (positives, *listed)
    )
    outcome = outcome_of(values[0] - values[1])
    return Case(query, dataset.queries[query], outcome, *values, answers, found_a, found_b, dict(fields.get(query, {})))


def pooled(cases: Sequence[Case]) -> dict[str, list[str]]:
    """Return query id -> documents that either system shows, each once, as `data.review.export_sheet` takes them."""
    return {
        case.query: list(dict.fromkeys(ranked.document for ranked in (*case.found_a, *case.found_b))) for case in cases
    }


def counts(cases: Sequence[Case]) -> dict[str, int]:
    """Return outcome -> number of cases."""
    return {outcome: sum(case.outcome == outcome for case in cases) for outcome in (WIN, TIE, LOSS)}
