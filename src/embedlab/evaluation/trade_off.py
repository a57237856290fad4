"""How much general ability does a gain in the domain cost, and which mixture stays within a budget?"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedlab.data.dataset import Dataset
from embedlab.errors import ParameterError
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.probes import ProbeScore, Scorer, compare_probe
from embedlab.evaluation.retrieval import Encode, encode_split, sample_corpus
from embedlab.evaluation.significance import PairedDifference, bootstrap_ci
from embedlab.progress import track

if TYPE_CHECKING:
    import pandas as pd
    from sentence_transformers import SentenceTransformer

METRIC = "ndcg@10"


@dataclass(frozen=True)
class Point:
    """One model on the trade-off.

    Attributes:
        name: of the model or mixture.
        gain: in the domain, against the base model on the same items.
        change: of general ability, against the base model on the same items; negative is forgotten.
    """

    name: str
    gain: PairedDifference
    change: PairedDifference


@dataclass(frozen=True)
class Judged:
    """One model on one task: its score, and what the same items say about it against the base model."""

    task: str
    model: str
    score: ProbeScore
    difference: PairedDifference

    def ends(self) -> dict[str, float]:
        """`ci_low` and `ci_high` of a score that is a mean over items; empty for a correlation, which is none."""
        if self.score.gold is not None or not len(self.score.items):
            return {}
        found = bootstrap_ci(self.score.items)
        return {"ci_low": found.low, "ci_high": found.high}


def judge_models(
    tasks: Mapping[str, Scorer],
    models: Mapping[str, SentenceTransformer],
    base: SentenceTransformer,
    *,
    encode: Encode | None = None,
) -> list[Judged]:
    """Every model on every task, the base model, called "base", among them and first.

    Args:
        tasks: name -> `split_scorer` or `probes.open_probe`.
        models: name -> model.
        base: what they are compared with.
        encode: stands in for `embedlab.models.encode.encode` for the base model, e.g. a cache's.
    """
    judged = []
    for task, score in track(list(tasks.items()), "judge"):
        with warnings.catch_warnings(action="ignore"):  # mteb warns of its own calls, and of classes it did not draw
            before = score(base, encode)
            scores = {"base": before, **{name: score(model) for name, model in models.items()}}
        judged += [Judged(task, name, found, compare_probe(found, before)) for name, found in scores.items()]
    return judged


def split_scorer(dataset: Dataset, split: str, *, max_docs: int | None = None) -> Scorer:
    """nDCG@10 per query of a split, as a probe scores its test split; see `sample_corpus` for `max_docs`."""
    data = dataset if max_docs is None else sample_corpus(dataset, split, max_docs)

    def score(model: SentenceTransformer, encode: Encode | None = None) -> ProbeScore:
        ranking = encode_split(model, data, split, encode=encode).rank(10)
        items = evaluate(ranking, data.qrels[split], [10]).of(METRIC)
        return ProbeScore(METRIC, float(np.nanmean(items)), items)

    return score


def trade_off(
    models: Iterable[tuple[str, SentenceTransformer]],
    base: SentenceTransformer,
    domain: Scorer,
    general: Scorer,
    *,
    encode: Encode | None = None,
) -> list[Point]:
    """Every model against the base model, in the domain and in general.

    Args:
        models: name and model; a generator keeps one of them in memory at a time.
        base: what gain and change are measured from.
        domain, general: `split_scorer` or `probes.open_probe`.
        encode: stands in for `embedlab.models.encode.encode` for the base model, e.g. a cache's.
    """
    before = domain(base, encode), general(base, encode)
    points = []
    for name, model in models:
        gain, change = (compare_probe(score(model), was) for score, was in zip((domain, general), before, strict=True))
        points.append(Point(name, gain, change))
    return points


def within_budget(points: Sequence[Point], budget: float) -> Point:
    """The point with the largest domain gain among those that lose at most `budget` in general.

    Of equal gains the one that forgets least. The choice is one of many looks: make it on dev and report it on test.

    Raises:
        ParameterError: none stays within the budget; the base model itself always does.
    """
    affordable = [point for point in points if point.change.mean >= -budget]
    if not affordable:
        least = max(point.change.mean for point in points) if points else float("nan")
        problem = f"no mixture stays within {budget}: the best changes {least:+.4f}"
        raise ParameterError(problem, remedy="Add mixtures nearer to the base model", field="forgetting_budget")
    return max(affordable, key=lambda point: (point.gain.mean, point.change.mean))


def trade_off_table(points: Iterable[Point]) -> pd.DataFrame:
    """Columns name, and of gain and change the mean, both ends of the interval, and n."""
    import pandas as pd

    rows = []
    for point in points:
        row: dict[str, object] = {"name": point.name}
        for what, found in (("gain", point.gain), ("change", point.change)):
            ends = {f"{what}_low": found.low, f"{what}_high": found.high, f"{what}_n": found.n}
            row |= {what: found.mean, **ends}
        rows.append(row)
    return pd.DataFrame(rows)
