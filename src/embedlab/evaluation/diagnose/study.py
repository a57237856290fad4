"""Remedies compared with the base model on the same queries: chosen on dev, measured on test once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd

from embedlab.data.dataset import Dataset
from embedlab.errors import DataError
from embedlab.evaluation.diagnose.failures import missed_queries
from embedlab.evaluation.diagnose.verdict import Evidence, Finding, Thresholds, Verdict, decide
from embedlab.evaluation.metrics import Evaluation, evaluate
from embedlab.evaluation.retrieval import encode_split, sample_corpus
from embedlab.evaluation.significance import bootstrap_ci, minimum_detectable_effect, paired_difference
from embedlab.models.encoders import Encoder
from embedlab.search.bm25 import bm25_ranking
from embedlab.search.exact import Ranking
from embedlab.search.vectors import Vectors

DEPTH = 100  # documents ranked per query
METRIC = "ndcg@10"
HELD_OUT = ("dev", "test")


@dataclass(frozen=True)
class Candidate:
    """One setting of a remedy: a name, and how it ranks a split."""

    setting: str
    rank: Callable[[str], Ranking]


@dataclass(frozen=True)
class Remedy:
    """Something to try: its kind (a key of `verdict.ACTIONS`) and its settings, the plainest first."""

    kind: str
    candidates: Sequence[Candidate]


@dataclass(frozen=True, eq=False)
class Outcome:
    """A remedy with the setting that was best on dev.

    Attributes:
        finding: what the verdict needs.
        test: its evaluation on test.
        trials: setting -> mean on dev.
    """

    finding: Finding
    test: Evaluation
    trials: Mapping[str, float]

    @property
    def name(self) -> str:
        """What tables call it: the kind; of a model its name."""
        return self.finding.setting if self.finding.kind == "model" else self.finding.kind


@dataclass(eq=False)
class Study:
    """A base model on a dataset, and what every remedy tried on top of it brought.

    Attributes:
        data: the dataset, `within` max_docs; its dev queries choose, its test queries measure.
        base: the base model.
        max_docs: search at most so many documents; 0 searches all.
        outcomes: one per remedy compared, in order.
        train_pairs: training pairs of the whole dataset.
        sampled: whether `max_docs` left documents out.
    """

    data: Dataset
    base: Encoder
    max_docs: int = 0
    outcomes: list[Outcome] = field(default_factory=list, init=False)
    train_pairs: int = field(init=False)
    sampled: bool = field(init=False)

    def __post_init__(self) -> None:
        self.train_pairs = len(self.data.pairs("train"))
        documents = len(self.data.corpus)
        self.data = within(self.data, self.max_docs)
        self.sampled = len(self.data.corpus) < documents
        if self.train_pairs and not self.data.pairs("train"):
            warnings.warn(
                f"max_docs={self.max_docs:,} leaves out every training pair's document, so that no fine-tune is tried: "
                f"the answers of dev and test alone are {len(self.data.corpus):,} documents. Take more, or 0 for all.",
                stacklevel=2,
            )
        for split in HELD_OUT:
            if not self.data.qrels.get(split):
                remedy = "A diagnosis chooses on dev and measures on test: give the dataset both"
                raise DataError(f"{self.data.name} has no {split} queries", remedy=remedy, field="dataset")

    @cached_property
    def vectors(self) -> dict[str, Vectors]:
        """Dev and test under the base model; the corpus is encoded once."""
        return held_out_vectors(self.base, self.data)

    @cached_property
    def train_vectors(self) -> Vectors:
        """Training queries and the corpus under the base model."""
        return encode_split(self.base, self.data, "train", corpus_vectors=self.corpus_vectors, encode=Encoder.encode)

    @property
    def corpus_vectors(self) -> np.ndarray:
        """The documents (N, d) under the base model."""
        return self.vectors["test"].corpus

    @cached_property
    def rankings(self) -> dict[str, Ranking]:
        """The base model's."""
        return {split: vectors.rank(DEPTH) for split, vectors in self.vectors.items()}

    @cached_property
    def bm25(self) -> dict[str, Ranking]:
        """BM25's."""
        return {split: bm25_ranking(self.data.corpus, self.data.split_queries(split), DEPTH) for split in HELD_OUT}

    @cached_property
    def evaluations(self) -> dict[str, Evaluation]:
        """The base model's, by split."""
        return {split: evaluate(self.rankings[split], self.data.qrels[split]) for split in HELD_OUT}

    @cached_property
    def missed(self) -> pd.DataFrame:
        """The test queries that the base model misses, with their causes; see `failures.missed_queries`."""
        return missed_queries(self.data, "test", self.rankings["test"], self.base)

    def compare(self, remedy: Remedy) -> Outcome:
        """`measure` a remedy and keep the outcome for the table and the verdict."""
        outcome = self.measure(remedy)
        self.outcomes.append(outcome)
        return outcome

    def measure(self, remedy: Remedy) -> Outcome:
        """Choose the remedy's best setting on dev (of equals the first) and evaluate that one on test.

        Raises:
            DataError: the remedy has no setting.
        """
        if not remedy.candidates:
            raise DataError(f"There is nothing to try for {remedy.kind}", remedy="Leave it out")
        trials = {candidate.setting: self._mean(candidate, "dev") for candidate in remedy.candidates}
        chosen = max(remedy.candidates, key=lambda candidate: trials[candidate.setting])
        test = evaluate(chosen.rank("test"), self.data.qrels["test"])
        ours, base = test.of(METRIC), self.evaluations["test"].of(METRIC)
        finding = Finding(
            kind=remedy.kind,
            setting=chosen.setting,
            dev_gain=trials[chosen.setting] - self.evaluations["dev"].mean(METRIC),
            gain=paired_difference(ours, base),
            detectable=minimum_detectable_effect(ours - base),
        )
        return Outcome(finding, test, trials)

    def _mean(self, candidate: Candidate, split: str) -> float:
        return evaluate(candidate.rank(split), self.data.qrels[split]).mean(METRIC)

    def verdict(self, thresholds: Thresholds | None = None) -> Verdict:
        """What to do, from everything compared so far."""
        evidence = Evidence(
            base=bootstrap_ci(self.evaluations["test"].of(METRIC)),
            findings=[outcome.finding for outcome in self.outcomes],
            train_pairs=self.train_pairs,
            causes=self.missed["cause"].value_counts().to_dict(),
            sampled=self.sampled,
        )
        return decide(evidence, thresholds)

    def table(self) -> pd.DataFrame:
        """The base model and every remedy on test.

        Returns:
            Columns system, setting (chosen on dev), dev (mean nDCG@10 there), ndcg@10 with ci_low and ci_high,
            recall@10, recall@100, n (queries with answers), then the paired gain over the base model: gain, gain_low,
            gain_high, p_value, wins and losses (queries).
        """
        base = self.evaluations["test"]
        dev = self.evaluations["dev"].mean(METRIC)
        rows = [{"system": "base", "setting": self.base.name, "dev": dev, **_numbers(base)}]
        for outcome in self.outcomes:
            gain = outcome.finding.gain
            compared = {"gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high, "p_value": gain.p_value}
            named = {"system": outcome.name, "setting": outcome.finding.setting}
            row = {**named, "dev": max(outcome.trials.values()), **_numbers(outcome.test), **compared}
            rows.append({**row, "wins": gain.wins, "losses": gain.losses})
        frame = pd.DataFrame(rows)
        whole = {name: "Int64" for name in ("wins", "losses") if name in frame}
        return frame.astype(whole)

    def trials(self) -> pd.DataFrame:
        """The base model and every setting tried, with its mean on dev: columns kind, setting, dev, chosen."""
        base = {"kind": "base", "setting": self.base.name, "dev": self.evaluations["dev"].mean(METRIC), "chosen": True}
        tried = [
            {"kind": o.finding.kind, "setting": setting, "dev": mean, "chosen": setting == o.finding.setting}
            for o in self.outcomes
            for setting, mean in o.trials.items()
        ]
        return pd.DataFrame([base, *tried])


def held_out_vectors(encoder: Encoder, data: Dataset, corpus: np.ndarray | None = None) -> dict[str, Vectors]:
    """Dev and test under a model, by split; the corpus is encoded once, not at all where `corpus` (N, d) is given."""
    vectors: dict[str, Vectors] = {}
    for split in HELD_OUT:
        vectors[split] = encode_split(encoder, data, split, corpus_vectors=corpus, encode=Encoder.encode)
        corpus = vectors[split].corpus
    return vectors


def within(data: Dataset, max_docs: int) -> Dataset:
    """`data` with at most `max_docs` documents, every answer of dev and test among them; 0 keeps all.

    Training pairs whose document is gone are dropped. Fewer documents make the task easier: the values hold for this
    sample.
    """
    if not max_docs or len(data.corpus) <= max_docs:
        return data
    held_out = {query: grades for split in HELD_OUT for query, grades in data.qrels.get(split, {}).items()}
    corpus = sample_corpus(replace(data, qrels={"held out": held_out}), "held out", max_docs).corpus
    known = {
        query: {document: grade for document, grade in grades.items() if document in corpus}
        for query, grades in data.qrels.get("train", {}).items()
    }
    train = {query: grades for query, grades in known.items() if grades}
    return replace(data, corpus=corpus, qrels={**data.qrels, "train": train})


def _numbers(evaluation: Evaluation) -> dict[str, float]:
    interval = bootstrap_ci(evaluation.of(METRIC))
    recalls = {metric: evaluation.mean(metric) for metric in ("recall@10", "recall@100")}
    return {METRIC: interval.mean, "ci_low": interval.low, "ci_high": interval.high, **recalls, "n": interval.n}
