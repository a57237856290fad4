"""Curves over the splits, and how often a test split was scored."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from embedlab.data.dataset import Dataset
from embedlab.errors import ParameterError
from embedlab.evaluation import curves as curves_module
from embedlab.evaluation.curves import SplitCurves
from embedlab.evaluation.test_set_reuse import optimism, reuse_warning, runs_that_scored

WORDS = [f"w{i}" for i in range(12)]


def one_hot(model, texts, *, stage="", prompt=None):
    """A word's own axis; queries of the splits `model` has learnt point at their document, others at a wrong one."""
    vectors = np.zeros((len(texts), len(WORDS)), dtype=np.float32)
    for row, text in enumerate(texts):
        split, _, word = text.rpartition(":")
        place = WORDS.index(word)
        vectors[row, place if not split or split in model.learnt else (place + 1) % len(WORDS)] = 1
    return vectors


@pytest.fixture
def data():
    corpus = {word: word for word in WORDS}
    qrels = {s: {f"{s}:{w}": {w: 1} for w in WORDS[4 * i : 4 * i + 4]} for i, s in enumerate(("train", "dev", "test"))}
    return Dataset("x", corpus, {query: query for part in qrels.values() for query in part}, qrels)


def test_every_split_is_scored_and_dev_is_returned(data, monkeypatch):
    monkeypatch.setattr(curves_module, "K", 1)
    curves = SplitCurves(data, encode=one_hot)
    assert curves(SimpleNamespace(learnt={"train"}), steps=0) == {"ndcg@1": 0.0}
    assert curves(SimpleNamespace(learnt={"train", "dev"}), steps=7) == {"ndcg@1": 1.0}
    assert [(row["step"], row["split"], row["value"], row["n"]) for row in curves.rows] == [
        (0, "train", 1, 4),
        (0, "dev", 0, 4),
        (0, "test", 0, 4),
        (7, "train", 1, 4),
        (7, "dev", 1, 4),
        (7, "test", 0, 4),
    ]
    assert curves.primary_metric == "ndcg@1"


def test_samples_keep_every_positive_of_every_split(data, monkeypatch):
    monkeypatch.setattr(curves_module, "MAX_QUERIES", 2)
    monkeypatch.setattr(curves_module, "MAX_DOCUMENTS", 7)
    curves = SplitCurves(data, encode=one_hot)
    assert {split: len(part) for split, part in curves.dataset.qrels.items()} == {"train": 2, "dev": 2, "test": 2}
    positives = {document for part in curves.dataset.qrels.values() for grades in part.values() for document in grades}
    assert positives <= curves.dataset.corpus.keys() and len(curves.dataset.corpus) == 7


def test_every_split_needs_queries(data):
    with pytest.raises(ParameterError, match="no dev queries to watch"):
        SplitCurves(replace(data, qrels={**data.qrels, "dev": {}}))


def record(run_id, *, dataset="d", fingerprint="f", splits=("test",)):
    rows = [SimpleNamespace(split=split) for split in splits]
    return SimpleNamespace(run_id=run_id, parameters={"dataset": dataset}, data_fingerprint=fingerprint, metrics=rows)


def test_runs_that_scored_this_split_of_this_data():
    records = [
        record("yes"),
        record("other spec", dataset="d:full"),
        record("other bytes", fingerprint="g"),
        record("dev only", splits=("dev",)),
        record("too", splits=("dev", "test")),
    ]
    assert runs_that_scored(records, "d", "f") == ["yes", "too"]


def test_the_warning_comes_past_the_limit():
    assert reuse_warning(20) is None
    assert "21 runs" in reuse_warning(21)


def test_optimism_bounds_the_luck_of_the_best():
    rng = np.random.default_rng(0)
    for runs in (2, 10, 100):
        luck = rng.normal(0, 0.01, (4000, runs)).max(1).mean()
        assert 0.7 * luck < optimism(runs, 0.01) and luck <= optimism(runs, 0.01)
    assert optimism(0, 0.01) == optimism(1, 0.01) == 0
