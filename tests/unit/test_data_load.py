"""Specs: what is understood, and what the nearest valid name is when it is not."""

import json

import pytest

from embedlab.data.load import (
    MIN_TRAIN_PAIRS,
    Spec,
    few_pairs_advice,
    load_dataset,
    parse_spec,
    source_fingerprint,
)
from embedlab.errors import DataError, ParameterError
from embedlab.evaluation.diagnose.verdict import Thresholds


@pytest.mark.parametrize(
    ("spec", "parsed"),
    [
        ("icd10cm", Spec("icd10cm")),
        ("icd10cm:small:terms", Spec("icd10cm", "small:terms")),
        ("beir:a/b c", Spec("beir", "a/b c")),
        ("pairs:x.csv?split_by=query&repair=true", Spec("pairs", "x.csv", {"split_by": "query", "repair": "true"})),
        ("hf:org/name:config", Spec("hf", "org/name:config")),
        ("pairs:x.csv?query=Q+A&positive=a%20b", Spec("pairs", "x.csv", {"query": "Q+A", "positive": "a b"})),
        ("pairs:x.csv?extra=pairs:a+b.csv", Spec("pairs", "x.csv", {"extra": "pairs:a+b.csv"})),
    ],
)
def test_specs(spec, parsed):
    assert parse_spec(spec) == parsed


@pytest.mark.parametrize(
    ("spec", "problem", "remedy"),
    [
        ("icd10", "unknown dataset 'icd10'", "'icd10cm'"),
        ("Pairs:x.csv", "unknown dataset", "'pairs'"),
        ("bier:folder", "unknown dataset", "'beir'"),
        ("data/x.jsonl", "unknown dataset", "pairs:FILE"),
        ("", "unknown dataset ''", "icd10cm, pydocs"),
        ("beir", "does not say what to load", "beir:PATH"),
        ("pairs:", "does not say what to load", "pairs:PATH"),
        ("pairs:x.csv?splitby=query", "no option 'splitby'", "'split_by'"),
        ("pairs:x.csv?repair", "repair must be true or false, got ''", "repair=true"),
        ("pairs:x.csv?split_by=querys", "must be document or query", "split_by=query."),
        ("pairs:x.csv?repair=true&repair=false", "the option 'repair' is given twice", "Keep one"),
        ("icd10cm?split_by=query", "no option 'split_by'", "repair"),
    ],
)
def test_bad_specs(spec, problem, remedy):
    for call in (load_dataset, source_fingerprint):
        with pytest.raises(DataError, match=problem) as caught:
            call(spec)
        assert remedy in caught.value.remedy
        assert caught.value.field == "dataset"


def test_two_question_marks_say_how_options_are_separated(tmp_path):
    (tmp_path / "x.csv").touch()
    with pytest.raises(DataError, match=r"two question marks.*Write \?split_by=query&repair=true"):
        parse_spec(f"pairs:{tmp_path / 'x.csv'}?split_by=query?repair=true")


def test_a_path_without_a_scheme_names_the_spec(tmp_path):
    (tmp_path / "faq.csv").touch()
    beir = tmp_path / "beir"
    beir.mkdir()
    for name in ("corpus.jsonl", "queries.jsonl"):
        (beir / name).touch()
    for path, scheme in [(tmp_path / "faq.csv", "pairs"), (tmp_path, "docs"), (beir, "beir")]:
        with pytest.raises(DataError, match="unknown dataset") as caught:
            parse_spec(str(path))
        assert f"Write {scheme}:{path}" in caught.value.remedy


def pairs_spec(tmp_path, count):
    records = [{"query": f"question {i}", "positive": f"answer {i}"} for i in range(count)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return f"pairs:{tmp_path / 'x.jsonl'}"


def test_few_pairs_are_followed_by_advice_once(tmp_path, caplog):
    load_dataset(pairs_spec(tmp_path, 200))
    (message,) = (message for message in caplog.messages if "pairs are few" in message)
    assert "150 training pairs are few" in message and "1,000 or more" in message and "interval" in message


def test_enough_pairs_need_no_advice_even_when_capped(tmp_path, caplog):
    """You chose the cap; the advice is about the data."""
    dataset = load_dataset(pairs_spec(tmp_path, 2_000), max_examples=10)
    assert not caplog.messages
    assert {split: len(part) for split, part in dataset.qrels.items()} == {"train": 10, "dev": 200, "test": 300}


def test_diagnosis_and_loader_share_one_threshold():
    assert Thresholds().min_train_pairs == MIN_TRAIN_PAIRS
    assert few_pairs_advice(MIN_TRAIN_PAIRS - 1)
    assert not few_pairs_advice(MIN_TRAIN_PAIRS) and not few_pairs_advice(0)


def test_impossible_cap(tmp_path):
    with pytest.raises(ParameterError) as caught:
        load_dataset(pairs_spec(tmp_path, 20), max_examples=0)
    assert caught.value.field == "max_examples"


def test_the_name_is_the_spec(tmp_path):
    spec = pairs_spec(tmp_path, 20)
    assert load_dataset(f"{spec}?split_by=query").name == f"{spec}?split_by=query"
    assert load_dataset(f"{spec}?split_by=query").split_by == "query"
