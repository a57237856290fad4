"""Data as people really have them: each folder of tests/cases with the value that is right for it."""

import logging
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from embedlab.data.load import load_dataset
from embedlab.errors import LeakageError
from embedlab.evaluation.metrics import evaluate
from embedlab.models.load import BASE_MODEL, load_model
from embedlab.search.bm25 import bm25_ranking
from embedlab.search.vectors import encode_split

CASES = Path(__file__).parents[1] / "cases"


def _bm25(spec):
    data = load_dataset(spec)
    queries = {query: text for split in data.qrels for query, text in data.split_queries(split).items()}
    qrels = {query: grades for judged in data.qrels.values() for query, grades in judged.items()}
    return evaluate(bm25_ranking(data.corpus, queries, 10), qrels, [1])


def test_a_query_in_the_corpus_does_not_find_itself(caplog):
    data = load_dataset(f"beir:{CASES / '07_arguana_self'}", training=False)
    vectors = encode_split(load_model(BASE_MODEL), data, "test")
    evaluation = evaluate(vectors.rank(10), data.qrels["test"], [10])
    assert evaluation.mean("ndcg@10") == 1.0 and evaluation.n == 20
    notices = [message for message in caplog.messages if "same id" in message]
    assert len(notices) == 1 and "20 test queries" in notices[0]


def test_ids_of_whole_numbers_are_no_own_documents(caplog):
    data = load_dataset(f"beir:{CASES / '08a_int_ids'}")
    assert not any(data.own_documents(split) for split in data.qrels)
    assert not [message for message in caplog.messages if "same id" in message]


def test_a_published_test_split_stays_whole(caplog):
    data = load_dataset(f"beir:{CASES / '06_only_test'}", training=False)
    assert {split: len(queries) for split, queries in data.qrels.items()} == {"train": 0, "dev": 0, "test": 40}
    assert not [message for message in caplog.messages if "divided" in message]
    assert len(load_dataset(f"beir:{CASES / '06_only_test'}?divide=false").qrels["test"]) == 40


def test_dividing_a_test_split_is_said(caplog):
    data = load_dataset(f"beir:{CASES / '06_only_test'}")
    assert {split: len(queries) for split, queries in data.qrels.items()} == {"train": 30, "dev": 4, "test": 6}
    (notice,) = (record for record in caplog.records if "divided" in record.message)
    assert notice.levelno == logging.WARNING
    assert "test was divided: 30 train, 4 dev, 6 test" in notice.message and "?divide=false" in notice.message
    assert any("test has 6 queries: expect 95 % intervals of about ±0.32" in message for message in caplog.messages)


def test_evaluate_uses_all_of_test(monkeypatch):
    from embedlab.cli.main import app

    used = {}

    def compare_models(candidate, base, data, **_):
        used.update(data.qrels)
        raise LeakageError("stop", remedy="here")

    monkeypatch.setattr("embedlab.evaluation.model_pair.compare_models", compare_models)
    monkeypatch.setattr("embedlab.models.load.load_model", lambda name, **_: name)
    CliRunner().invoke(app, ["evaluate", "tuned", "--dataset", f"beir:{CASES / '06_only_test'}"])
    assert len(used["test"]) == 40


def test_bm25_finds_chinese_words():
    evaluation = _bm25(f"pairs:{CASES / '12_chinese' / 'faq_zh.csv'}")
    assert evaluation.mean("recall@1") == 1.0 and evaluation.n == 40


def test_hindi_vowel_signs_tell_queries_apart():
    data = load_dataset(f"pairs:{CASES / '30_hindi' / 'splits.csv'}")
    assert {split: len(queries) for split, queries in data.qrels.items()} == {"train": 3, "dev": 1, "test": 3}
    assert _bm25(f"pairs:{CASES / '30_hindi' / 'pairs.csv'}").mean("recall@1") == 1.0


def test_symbols_tell_programming_languages_apart():
    data = load_dataset(f"pairs:{CASES / '32_symbols' / 'languages.csv'}")
    assert {split: len(queries) for split, queries in data.qrels.items()} == {"train": 5, "dev": 5, "test": 5}


def test_a_giant_group_is_said_with_its_remedy(caplog):
    data = load_dataset(f"pairs:{CASES / '31_giant' / 'giant.csv'}")
    assert len(data.qrels["dev"]) == 1
    (notice,) = (message for message in caplog.messages if "wanted were" in message)
    assert "95 train, 1 dev, 4 test queries, wanted were 75 train, 10 dev, 15 test" in notice
    assert "?split_by=query" in notice
    assert any("dev has one query" in message for message in caplog.messages)
    caplog.clear()
    data = load_dataset(f"pairs:{CASES / '31_giant' / 'giant.csv'}?split_by=query")
    assert [len(queries) for queries in data.qrels.values()] == [75, 10, 15]
    assert not [message for message in caplog.messages if "wanted were" in message or "dev has" in message]


def _leaking(tmp_path, train, test):
    rows = [f"{query},answer to {query},train" for query in train]
    rows += [f"{query},answer to {query},dev" for query in ("what is north", "what is south")]
    rows += [f"{query},{answer},test" for query, answer in test]
    path = tmp_path / "data.csv"
    path.write_text("\n".join(["query,positive,split", *rows]), "utf-8")
    return f"pairs:{path}"


def test_a_leakage_error_says_what_each_remedy_leaves(tmp_path):
    train = [f"question number {number}" for number in range(10)]
    test = [(f"problem number {n}", f"answer to question number {n}") for n in range(6)] + [
        (train[9], "another answer")
    ]
    spec = _leaking(tmp_path, train, test)
    with pytest.raises(LeakageError) as caught:
        load_dataset(spec)
    message = str(caught.value)
    assert "7 leaking examples (1 identical query, 6 shared document)" in message
    assert f"'{spec}?split_by=query&repair=true' lets splits share documents and keeps 9 of 10 train" in message
    assert f"'{spec}?repair=true' drops the leaks and keeps 3 of 10 train" in message
    assert "\n" not in message
    assert len(load_dataset(f"{spec}?split_by=query&repair=true").qrels["train"]) == 9
    assert len(load_dataset(f"{spec}?repair=true").qrels["train"]) == 3


def test_repair_never_empties_train_without_an_error(tmp_path, caplog):
    train = ["what is east", "what is west"]
    spec = _leaking(tmp_path, train, [(query, f"new answer to {query}") for query in train])
    with pytest.raises(LeakageError, match="train has no query left: 2 leaking examples"):
        load_dataset(f"{spec}?repair=true")
    data = load_dataset(f"{spec}?repair=true", training=False)
    assert not data.qrels["train"] and len(data.qrels["test"]) == 2
    assert any("Left: 0 train" in message for message in caplog.messages)


def test_bm25_between_languages_has_no_value(caplog):
    ranking = bm25_ranking({"d0": "The pump leaks", "d1": "A lamp"}, {"q0": "насос течёт", "q1": "лампа"}, 2)
    assert "BM25 found no common word in 2 of 2 queries" in caplog.text
    assert np.isnan(evaluate(ranking, {"q0": {"d0": 1}, "q1": {"d1": 1}}, [1]).mean("ndcg@1"))
    caplog.clear()
    ranking = bm25_ranking({"d0": "The pump leaks"}, {"q0": "pump", "q1": "лампа"}, 1)
    assert evaluate(ranking, {"q0": {"d0": 1}, "q1": {"d0": 1}}, [1]).mean("ndcg@1") == 0.5
    assert "no common word" not in caplog.text
