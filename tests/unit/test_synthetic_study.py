"""The study of queries that a language model writes: its training sets by hand, and the tables in the log."""

from __future__ import annotations

import json

import pytest

from embedlab.data.dataset import Dataset
from embedlab.data.synthetic import SyntheticQuery
from embedlab.paths import results_dir
from experiments import synthetic_queries as study

CORPUS = {f"d{number}": f"disease number{number}" for number in range(12)}


def dataset() -> Dataset:
    queries = {"r1": "real one", "r2": "real two", "v1": "real dev", "t1": "cure of fever", "t2": "what is gout"}
    qrels = {"train": {"r1": {"d0": 1}, "r2": {"d1": 1}}, "dev": {"v1": {"d2": 1}}}
    return Dataset("x", CORPUS, queries, {**qrels, "test": {"t1": {"d10": 1}, "t2": {"d11": 1}}})


def test_synthetic_arms_use_no_real_judgement_but_those_of_test():
    written = [SyntheticQuery(f"symptoms of number{number}", f"d{number}", "llm") for number in range(10)]
    written += [SyntheticQuery("What is gout?", "d11", "llm"), SyntheticQuery("the cause of gout", "d11", "llm")]
    found = study.with_synthetic(dataset(), written)
    assert found.qrels["test"] == dataset().qrels["test"]
    train, dev = (found.split_queries(split) for split in ("train", "dev"))
    assert (len(train), len(dev)) == (8, 3) and not train.keys() & dev.keys()  # without the query that is in test
    assert {*train.values(), *dev.values()} == {query.text for query in written if query.text != "What is gout?"}
    assert not {"r1", "r2", "v1"} & found.queries.keys()


def test_the_same_documents_for_real_and_written_queries(monkeypatch):
    written = [SyntheticQuery(f"symptoms of number{number}", f"d{number}", "llm") for number in range(1, 11)]
    monkeypatch.setattr(study.Study, "__init__", lambda self: None)
    monkeypatch.setattr(study.Study, "_queries", lambda self, arm: written)
    made = study.Study()
    made.name, made.data = "MedQuAD", dataset()
    real, synthetic = (made.training_data(study.Arm(source, 10, same=True)) for source in (study.REAL, study.SHOWN))
    assert dict(real.qrels["train"]) == {"r2": {"d1": 1}}  # d0 has no written query
    judged = {
        document for split in ("train", "dev") for grades in synthetic.qrels[split].values() for document in grades
    }
    assert judged == {"d1"}


def test_rows_by_hand():
    row = {"dataset": "MedQuAD", "recipe": study.LINEAR, "documents": 0, "train": 1126, "dev": 150, "test": 0.8526}
    row |= {"gain": [0.034, 0.0151, 0.055], "share": [1.0, 1.0, 1.0]}
    base = {"dataset": "MedQuAD", "recipe": "", "arm": "base", "test": 0.8184, "interval": [0.78, 0.86]}
    part = {**row, "arm": "rules", "documents": 400, "share": [-0.5, -1.0, 0.25]}
    shown = study.tables([base, {**row, "arm": study.REAL}, part])
    assert shown.startswith("MedQuAD, linear map. Without training: base 0.818 [0.780, 0.860].")
    assert "| all real pairs |  | 1,126 | 150 | 0.853 | +0.034 [+0.015, +0.055] | 1 |" in shown
    assert "| rules | 400 | 1,126 | 150 | 0.853 | +0.034 [+0.015, +0.055] | -0.50 [-1.00, 0.25] |" in shown


def test_the_log_holds_the_tables_of_the_committed_results():
    """After new measurements, run `python -m experiments.synthetic_queries --tables`."""
    rows = json.loads((results_dir() / "synthetic_queries.json").read_text(encoding="utf-8"))
    page = study.LOG.read_text(encoding="utf-8")
    assert study.with_tables(page, rows) == page
    with pytest.raises(ValueError, match="substring"):
        study.with_tables("no markers", rows)
