"""Score a model and its base model again, and compare the result with the evidence in the model's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedlab.data.dataset import Dataset, split_fingerprint
from embedlab.errors import DataError, ModelError
from embedlab.evaluation.metrics import Evaluation
from embedlab.evaluation.retrieval import evaluate_retrieval
from embedlab.evaluation.significance import PairedDifference, bootstrap_ci, paired_difference
from embedlab.models.cache import EmbeddingCache
from embedlab.models.evidence import SCORED, Evidence, Score, require_same_files, require_same_model
from embedlab.models.fingerprint import model_fingerprint

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from embedlab.models.api import ApiModel

GAIN = "gain"
MODEL, BASE = "this model", "base model"


@dataclass(frozen=True)
class Check:
    """One value of the evidence, measured again.

    Attributes:
        subject: "this model", "base model" or "gain".
        published: the value of the evidence with its interval.
        value: the value now; NaN if no query counts.
    """

    subject: str
    published: Score
    value: float

    @property
    def is_inside(self) -> bool:
        """Whether the value is inside the published interval."""
        return self.published.contains(self.value)


def require_evidence_of(evidence: Evidence, folder: Path, model: SentenceTransformer | ApiModel) -> None:
    """Check that the evidence belongs to the files and to the loaded model.

    Raises:
        ModelError: it belongs to another model, or to a cross-encoder, which is not scored here.
    """
    if evidence.model.kind not in SCORED:
        problem = "this is a cross-encoder: it scores a shortlist, which depends on another model"
        raise ModelError(problem, remedy="Run its notebook again: embedlab run 07_reranker --force", file=folder)
    require_same_files(evidence, folder)
    require_same_model(evidence, model_fingerprint(model), folder)


def require_same_data(evidence: Evidence, data: Dataset, source: str) -> None:
    """Check that the test split is the one of the evidence.

    Args:
        evidence: of the model.
        data: the dataset.
        source: fingerprint of the files behind it.

    Raises:
        DataError: the test split, or the files, are others.
    """
    expected, remedy = evidence.data, "Use the data of the evidence, or add --other-data to score these"
    if expected.test_fingerprint:
        fingerprint = split_fingerprint(data, "test")
        if fingerprint == expected.test_fingerprint:
            return
        files = (
            " (the files are the same, so the dataset or its options differ)" if source == expected.fingerprint else ""
        )
        problem = (
            f"the fingerprint of the test split is {fingerprint}, and that of the evidence ({expected.name}) is "
            f"{expected.test_fingerprint}{files}"
        )
        raise DataError(problem, remedy=remedy, field="dataset")
    if source != expected.fingerprint:
        problem = f"the fingerprint of the data is {source}, and that of the evidence ({expected.name}) is "
        raise DataError(f"{problem}{expected.fingerprint or 'not known'}", remedy=remedy, field="dataset")


def require_same_base(evidence: Evidence, base: SentenceTransformer | ApiModel, name: str) -> None:
    """Check that a base model is the one of the evidence, if the evidence knows its fingerprint.

    Raises:
        ModelError: it is another model.
    """
    fingerprint = model_fingerprint(base)
    if evidence.base.fingerprint not in ("", fingerprint):
        problem = f"the fingerprint of the base model {name!r} is {fingerprint}, and that of the evidence "
        problem += f"({evidence.base.name}) is {evidence.base.fingerprint}"
        raise ModelError(problem, remedy="Name the right base model with --base", field="--base")


@dataclass(frozen=True, eq=False)
class Rescored:
    """Both models on a test split.

    Attributes:
        model, base: evaluation at full width.
    """

    model: Evaluation
    base: Evaluation

    def gain(self, metric: str) -> PairedDifference:
        """Return the paired difference of a metric, fine-tuned model minus base model."""
        return paired_difference(self.model.of(metric), self.base.of(metric))

    def table(self, metrics: list[str]) -> list[tuple[str, Score]]:
        """Return the scores of both models and the gain, with their intervals."""
        rows = []
        for metric in metrics:
            for subject, evaluation in ((BASE, self.base), (MODEL, self.model)):
                interval = bootstrap_ci(evaluation.of(metric))
                rows.append((subject, _score(metric, interval.mean, interval.low, interval.high, interval.n)))
            gain = self.gain(metric)
            rows.append((GAIN, _score(metric, gain.mean, gain.low, gain.high, gain.n)))
        return rows

    def compare(self, evidence: Evidence) -> list[Check]:
        """Measure every published value with an interval again.

        Raises:
            ModelError: the evidence has no value with an interval, so that nothing can be checked.
        """
        checks = []
        for subject, evaluation, scores in (
            (MODEL, self.model, evidence.scores),
            (BASE, self.base, evidence.base_scores),
        ):
            checks += [
                Check(subject, score, evaluation.mean(score.metric))
                for score in scores
                if score.has_interval and score.metric in evaluation.values
            ]
        checks += [
            Check(GAIN, score, self.gain(score.metric).mean)
            for score in evidence.gains
            if score.has_interval and score.metric in self.model.values
        ]
        if not checks:
            problem = "the evidence has no value with an interval on the test queries"
            raise ModelError(problem, remedy="Add --other-data to score the model without a comparison")
        return checks


def rescore(model: SentenceTransformer | ApiModel, base: SentenceTransformer | ApiModel, data: Dataset) -> Rescored:
    """Score both models on the test split, at full width, with the metrics of every run.

    Args:
        model: the fine-tuned model.
        base: the base model; its embeddings are kept on disk.
        data: queries, corpus and qrels.

    Raises:
        ParameterError: the dataset has no test queries.
    """
    evaluations = [
        next(iter(evaluate_retrieval(scored, data, "test", encode=encode).values()))
        for scored, encode in ((model, None), (base, EmbeddingCache().encode))
    ]
    return Rescored(*evaluations)


def _score(metric: str, value: float, low: float, high: float, n: int) -> Score:
    finite = [None if number != number else float(number) for number in (value, low, high)]
    return Score(metric=metric, value=finite[0], ci_low=finite[1], ci_high=finite[2], n=n)
