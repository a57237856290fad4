"""Compare remedies with the base model on the same queries: settings are chosen on dev and measured once on test."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd

from embedlab.data.dataset import Dataset
from embedlab.errors import DataError
from embedlab.evaluation.diagnose.failures import missed_queries
from embedlab.evaluation.diagnose.verdict import Evidence, RemedyGain, Thresholds, Verdict, decide
from embedlab.evaluation.metrics import Evaluation, evaluate
from embedlab.evaluation.retrieval import sample_corpus
from embedlab.evaluation.significance import bootstrap_ci, minimum_detectable_effect, paired_difference
from embedlab.models.encoders import Encoder
from embedlab.search.bm25 import bm25_ranking
from embedlab.search.exact import Ranking
from embedlab.search.vectors import Vectors, encode_split

DEPTH = 100  # documents ranked per query
METRIC = "ndcg@10"
HELD_OUT = ("dev", "test")


@dataclass(frozen=True)
class Candidate:
    """One setting of a remedy.

    Attributes:
        setting: name of the setting.
        rank: split name -> ranking.
        unchanged: this setting is the base model itself, for example a probe that stopped at step 0.
    """

    setting: str
    rank: Callable[[str], Ranking]
    unchanged: bool = False


@dataclass(frozen=True)
class Remedy:
    """Something to try before fine-tuning.

    Attributes:
        kind: a key of `verdict.ACTIONS`.
        candidates: its settings, the simplest first.
        preparation: seconds that it took to prepare the settings, such as the training of the probe.
    """

    kind: str
    candidates: Sequence[Candidate]
    preparation: float = 0.0


@dataclass(frozen=True, eq=False)
class Outcome:
    """A remedy with the setting that was best on dev.

    Attributes:
        finding: gain and setting, for the verdict.
        test: its evaluation on test.
        trials: setting -> mean on dev.
        seconds: time to prepare and try all settings; what an earlier remedy or a cache provides is not counted.
    """

    finding: RemedyGain
    test: Evaluation
    trials: Mapping[str, float]
    seconds: float

    @property
    def name(self) -> str:
        """Name in tables: the kind, or the model's name for another model."""
        return self.finding.setting if self.finding.kind == "model" else self.finding.kind

    @property
    def system(self) -> str:
        """Name in the run's record, see `runs.systems`; another model is declared under its own name."""
        return "linear-probe" if self.finding.kind == "fine-tune" else self.name


@dataclass(eq=False)
class Study:
    """A base model on a dataset, and the remedies compared with it.

    Attributes:
        data: the dataset, reduced to `max_docs`; dev queries choose settings, test queries measure. Without dev
            queries, every remedy uses its first setting.
        base: the base model.
        max_docs: maximum number of documents to search; 0 searches all.
        outcomes: one per compared remedy, in order.
        left_out: kind of remedy -> why `remedies.applicable` did not yield it, although it was not switched off.
        train_pairs: training pairs of the full dataset.
        sampled: whether `max_docs` removed documents.

    Raises:
        DataError: the dataset has no test queries.
    """

    data: Dataset
    base: Encoder
    max_docs: int = 0
    outcomes: list[Outcome] = field(default_factory=list, init=False)
    left_out: dict[str, str] = field(default_factory=dict, init=False)
    train_pairs: int = field(init=False)
    sampled: bool = field(init=False)

    def __post_init__(self) -> None:
        self.train_pairs = len(self.data.pairs("train"))
        documents = len(self.data.corpus)
        self.data = within(self.data, self.max_docs)
        self.sampled = len(self.data.corpus) < documents
        if self.train_pairs and not self.data.pairs("train"):
            warnings.warn(
                f"max_docs={self.max_docs:,} removes the documents of all training pairs, so the linear probe is "
                f"skipped. The answers of dev and test are {len(self.data.corpus):,} documents. Increase max_docs "
                "or set it to 0 for all documents.",
                stacklevel=2,
            )
        if not self.data.qrels.get("test"):
            remedy = "A diagnosis measures on test queries: add them"
            raise DataError(f"{self.data.name} has no test queries", remedy=remedy, field="dataset")

    @property
    def splits(self) -> list[str]:
        """The held-out splits that have queries."""
        return _held_out(self.data)

    @cached_property
    def vectors(self) -> dict[str, Vectors]:
        """Vectors of dev and test under the base model, by split; the corpus is encoded once."""
        return held_out_vectors(self.base, self.data)

    @cached_property
    def train_vectors(self) -> Vectors:
        """Vectors of the training queries and the corpus under the base model."""
        return encode_split(self.base, self.data, "train", corpus_vectors=self.corpus_vectors, encode=Encoder.encode)

    @property
    def corpus_vectors(self) -> np.ndarray:
        """Vectors of the documents (N, d) under the base model."""
        return self.vectors["test"].corpus

    @cached_property
    def rankings(self) -> dict[str, Ranking]:
        """Rankings of the base model, by split."""
        return {split: vectors.rank(DEPTH) for split, vectors in self.vectors.items()}

    @cached_property
    def bm25(self) -> dict[str, Ranking]:
        """Rankings of BM25, by split."""
        return {
            split: bm25_ranking(
                self.data.corpus,
                self.data.split_queries(split),
                DEPTH,
                own_documents=self.data.own_documents(split),
            )
            for split in self.splits
        }

    @cached_property
    def evaluations(self) -> dict[str, Evaluation]:
        """Evaluations of the base model, by split."""
        return {split: evaluate(self.rankings[split], self.data.qrels[split]) for split in self.splits}

    @cached_property
    def missed(self) -> pd.DataFrame:
        """Test queries that the base model misses, with their causes; see `failures.missed_queries`."""
        return missed_queries(self.data, "test", self.rankings["test"], self.base)

    def compare(self, remedy: Remedy) -> Outcome:
        """Measure a remedy and add the outcome to the table and the verdict; see `measure`."""
        outcome = self.measure(remedy)
        self.outcomes.append(outcome)
        return outcome

    def measure(self, remedy: Remedy) -> Outcome:
        """Choose the remedy's best setting on dev (the first if several are equal) and evaluate it on test.

        Raises:
            DataError: the remedy has no settings.
        """
        if not remedy.candidates:
            raise DataError(f"the remedy {remedy.kind!r} has no settings to try", remedy="Add a setting or skip it")
        start = time.perf_counter()
        trials = {candidate.setting: self._dev_mean(candidate) for candidate in remedy.candidates}
        best = max(remedy.candidates, key=lambda candidate: trials[candidate.setting])
        test = evaluate(best.rank("test"), self.data.qrels["test"])
        values, base = test.of(METRIC), self.evaluations["test"].of(METRIC)
        finding = RemedyGain(
            kind=remedy.kind,
            setting=best.setting,
            dev_gain=trials[best.setting] - self.base_on_dev,
            gain=paired_difference(values, base),
            detectable=minimum_detectable_effect(values - base),
            unchanged=best.unchanged,
        )
        return Outcome(finding, test, trials, remedy.preparation + time.perf_counter() - start)

    @property
    def base_on_dev(self) -> float:
        """Mean of the base model on dev; NaN without dev queries."""
        return self.evaluations["dev"].mean(METRIC) if "dev" in self.splits else float("nan")

    def _dev_mean(self, candidate: Candidate) -> float:
        if "dev" not in self.splits:
            return float("nan")
        return evaluate(candidate.rank("dev"), self.data.qrels["dev"]).mean(METRIC)

    def verdict(self, thresholds: Thresholds | None = None) -> Verdict:
        """Decide what to do next from the remedies compared so far; see `verdict.decide`."""
        evidence = Evidence(
            base=bootstrap_ci(self.evaluations["test"].of(METRIC)),
            findings=[outcome.finding for outcome in self.outcomes],
            train_pairs=self.train_pairs,
            causes=self.missed["cause"].value_counts().to_dict(),
            sampled=self.sampled,
            dataset=self.data.name,
            model=self.base.name,
        )
        return decide(evidence, thresholds)

    def table(self) -> pd.DataFrame:
        """Tabulate the base model and every remedy on test.

        Returns:
            Columns system, setting (chosen on dev), dev (mean nDCG@10 on dev), ndcg@10 with ci_low and ci_high,
            recall@10, recall@100, n (queries with answers), and the paired gain over the base model: gain, gain_low,
            gain_high, p_value, wins and losses (queries), and seconds (to try all settings).
        """
        base = self.evaluations["test"]
        rows = [{"system": "base", "setting": self.base.name, "dev": self.base_on_dev, **_summary(base)}]
        for outcome in self.outcomes:
            gain = outcome.finding.gain
            compared = {"gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high, "p_value": gain.p_value}
            names = {"system": outcome.name, "setting": outcome.finding.setting}
            row = {**names, "dev": max(outcome.trials.values()), **_summary(outcome.test), **compared}
            rows.append({**row, "wins": gain.wins, "losses": gain.losses, "seconds": outcome.seconds})
        frame = pd.DataFrame(rows)
        return frame.astype({name: "Int64" for name in ("wins", "losses") if name in frame})

    def trials(self) -> pd.DataFrame:
        """Tabulate the mean on dev of the base model and of every setting: columns kind, setting, dev, chosen."""
        base = {"kind": "base", "setting": self.base.name, "dev": self.base_on_dev, "chosen": True}
        settings = [
            {"kind": o.finding.kind, "setting": setting, "dev": mean, "chosen": setting == o.finding.setting}
            for o in self.outcomes
            for setting, mean in o.trials.items()
        ]
        return pd.DataFrame([base, *settings])


def held_out_vectors(encoder: Encoder, data: Dataset, corpus: np.ndarray | None = None) -> dict[str, Vectors]:
    """Encode dev and test with a model and return the vectors by split.

    Args:
        encoder: the model.
        data: queries and corpus.
        corpus: the corpus (N, d), if it is already encoded.
    """
    vectors: dict[str, Vectors] = {}
    for split in _held_out(data):
        vectors[split] = encode_split(encoder, data, split, corpus_vectors=corpus, encode=Encoder.encode)
        corpus = vectors[split].corpus
    return vectors


def _held_out(data: Dataset) -> list[str]:
    return [split for split in HELD_OUT if data.qrels.get(split)]


def within(data: Dataset, max_docs: int) -> Dataset:
    """Reduce a dataset to at most `max_docs` documents, always including all answers of dev and test; 0 keeps all.

    Training pairs without their document are removed. Fewer documents make the task easier, so values only compare on
    the same sample.
    """
    if not max_docs or len(data.corpus) <= max_docs:
        return data
    held_out = {query: grades for split in HELD_OUT for query, grades in data.qrels.get(split, {}).items()}
    corpus = sample_corpus(replace(data, qrels={"held out": held_out}), "held out", max_docs).corpus
    in_corpus = {
        query: {document: grade for document, grade in grades.items() if document in corpus}
        for query, grades in data.qrels.get("train", {}).items()
    }
    train = {query: grades for query, grades in in_corpus.items() if grades}
    return replace(data, corpus=corpus, qrels={**data.qrels, "train": train})


def _summary(evaluation: Evaluation) -> dict[str, float]:
    interval = bootstrap_ci(evaluation.of(METRIC))
    recalls = {metric: evaluation.mean(metric) for metric in ("recall@10", "recall@100")}
    return {METRIC: interval.mean, "ci_low": interval.low, "ci_high": interval.high, **recalls, "n": interval.n}
