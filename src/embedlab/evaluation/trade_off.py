"""The trade-off between a gain in the domain and a loss of general ability, and the best model within a budget."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedlab.data.dataset import Dataset
from embedlab.data.tasks import Task
from embedlab.errors import ParameterError
from embedlab.evaluation.metrics import Evaluation, evaluate
from embedlab.evaluation.probes import ProbeScore, Scorer, compare_probe, open_probe
from embedlab.evaluation.retrieval import evaluate_retrieval, sample_corpus
from embedlab.evaluation.significance import PairedDifference, bootstrap_ci, paired_difference
from embedlab.progress import track
from embedlab.search.vectors import Encode, encode_split

if TYPE_CHECKING:
    import pandas as pd
    from sentence_transformers import SentenceTransformer

METRIC = "ndcg@10"
PROBE_QUERIES = 200  # of a task that is a retrieval dataset
BASE = "base"  # name of the base model among the scores


@dataclass(frozen=True)
class Point:
    """One model on the trade-off curve.

    Attributes:
        name: of the model or mixture.
        gain: in the domain, against the base model on the same items.
        change: of general ability, against the base model on the same items; below 0 is forgetting.
    """

    name: str
    gain: PairedDifference
    change: PairedDifference


@dataclass(frozen=True)
class TaskScore:
    """One model on one task.

    Attributes:
        task: name of the task.
        system: name of the model; "base" is the base model.
        score: value of the task's metric.
        difference: to the base model, on the same items.
    """

    task: str
    system: str
    score: ProbeScore
    difference: PairedDifference

    def interval(self) -> dict[str, float]:
        """Return `ci_low`, `ci_high` and `n` of a score that is a mean over items; only `n` for a correlation."""
        n = len(self.score.items)
        if self.score.gold is not None or not n:
            return {"n": n}
        interval = bootstrap_ci(self.score.items)
        return {"ci_low": interval.low, "ci_high": interval.high, "n": n}


@dataclass(frozen=True, eq=False)
class RetrievalScore:
    """One model on the test queries of the domain.

    Attributes:
        system: name of the model; "base" is the base model.
        dim: dimensions of its embeddings.
        evaluation: all metrics per query.
        difference: nDCG@10 against the base model, on the same queries.
    """

    system: str
    dim: int
    evaluation: Evaluation
    difference: PairedDifference


def score_retrieval(
    models: Mapping[str, SentenceTransformer], base: SentenceTransformer, data: Dataset, *, seed: int = 0
) -> list[RetrievalScore]:
    """Evaluate every model on the test queries; the base model comes first.

    Args:
        models: name -> model.
        base: the model to compare with.
        data: queries, corpus and qrels.
        seed: of intervals and tests.
    """
    scores: list[RetrievalScore] = []
    for system, model in {BASE: base, **models}.items():
        ((dim, evaluation),) = evaluate_retrieval(model, data).items()
        reference = scores[0].evaluation if scores else evaluation
        difference = paired_difference(evaluation.of(METRIC), reference.of(METRIC), seed=seed)
        scores.append(RetrievalScore(system, dim, evaluation, difference))
    return scores


def task_scorers(tasks: Iterable[Task], general: Dataset, *, max_docs: int) -> dict[str, Scorer]:
    """Open the probe of every task, and the test split of a general dataset.

    Args:
        tasks: from `task_files.load_tasks`.
        general: a dataset of another domain with a test split; it gets the key of its own name.
        max_docs: documents of the general dataset to search; see `sample_corpus`.

    Returns:
        Task name -> scorer.
    """
    scorers = {task.name: open_probe(task.probe, max_queries=PROBE_QUERIES) for task in tasks}
    return {**scorers, general.name: split_scorer(general, "test", max_docs=max_docs)}


def score_models(
    scorers: Mapping[str, Scorer], models: Mapping[str, SentenceTransformer], base: SentenceTransformer
) -> list[TaskScore]:
    """Score every model on every task; the base model comes first in every task.

    Args:
        scorers: task name -> `split_scorer` or `probes.open_probe`.
        models: name -> model.
        base: the model to compare with.

    Returns:
        Scores in the order of tasks, then models.
    """
    results = []
    for task, score in track(list(scorers.items()), "score tasks"):
        with warnings.catch_warnings(action="ignore"):  # mteb warns about its own calls and about unused classes
            base_score = score(base)
            scores = {BASE: base_score, **{name: score(model) for name, model in models.items()}}
        results += [
            TaskScore(task, system, value, compare_probe(value, base_score)) for system, value in scores.items()
        ]
    return results


def split_scorer(dataset: Dataset, split: str, *, max_docs: int | None = None) -> Scorer:
    """Return a function that scores a model by nDCG@10 on a split, as a probe does on its test split.

    Args:
        dataset: queries, corpus and qrels.
        split: whose queries.
        max_docs: search at most so many documents; see `sample_corpus`.
    """
    data = dataset if max_docs is None else sample_corpus(dataset, split, max_docs)

    def score(model: SentenceTransformer, encode: Encode | None = None) -> ProbeScore:
        ranking = encode_split(model, data, split, encode=encode).rank(10)
        items = evaluate(ranking, data.qrels[split], [10]).of(METRIC)
        return ProbeScore(METRIC, float(np.nanmean(items)), items)

    return score


def trade_off(
    models: Iterable[tuple[str, SentenceTransformer]], base: SentenceTransformer, domain: Scorer, general: Scorer
) -> list[Point]:
    """Compare every model with the base model, in the domain and in general.

    Args:
        models: (name, model); a generator keeps only one of them in memory.
        base: the model that gain and change are measured from.
        domain, general: `split_scorer` or `probes.open_probe`.
    """
    base_domain, base_general = domain(base), general(base)
    return [
        Point(name, compare_probe(domain(model), base_domain), compare_probe(general(model), base_general))
        for name, model in models
    ]


def within_budget(points: Sequence[Point], budget: float) -> Point:
    """Choose the point with the largest domain gain among those that lose at most `budget` in general.

    Of equal gains, the one that forgets least is chosen. Choose on dev and report the choice on test.

    Args:
        points: from `trade_off`.
        budget: tolerated loss of general ability, in points of the metric.

    Raises:
        ParameterError: no point is within the budget; the base model itself always is.
    """
    affordable = [point for point in points if point.change.mean >= -budget]
    if not affordable:
        best = max(point.change.mean for point in points) if points else float("nan")
        problem = f"No model stays within a budget of {budget}: the best one changes by {best:+.4f}"
        raise ParameterError(problem, remedy="Add mixtures closer to the base model", field="forgetting_budget")
    return max(affordable, key=lambda point: (point.gain.mean, point.change.mean))


def trade_off_table(points: Iterable[Point]) -> pd.DataFrame:
    """Return one row per point: name, and mean, interval and n of gain and change.

    Returns:
        Columns name, gain, gain_low, gain_high, gain_n, change, change_low, change_high, change_n.
    """
    import pandas as pd

    rows = []
    for point in points:
        row: dict[str, object] = {"name": point.name}
        for column, outcome in (("gain", point.gain), ("change", point.change)):
            ends = {f"{column}_low": outcome.low, f"{column}_high": outcome.high, f"{column}_n": outcome.n}
            row |= {column: outcome.mean, **ends}
        rows.append(row)
    return pd.DataFrame(rows)
