"""Keys of texts stand for their normal forms, and the form of a long text is computed once."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace

import pytest

from embedlab.data import leakage, splits, text_keys
from embedlab.data.load import load_dataset
from embedlab.data.text_analysis import normalise
from embedlab.data.text_keys import LONG, text_key

WORDS = ("pump", "valve", "Ventil", "Straße", "café", "насос", "水泵", "C++", "5", "%", "> 3", "“leak”", "–")


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch):
    monkeypatch.setattr(text_keys, "_known_keys", {})


def texts(count, words):
    rng = random.Random(count)
    return [" ".join(rng.choices(WORDS, k=words)) + f" n{number}" for number in range(count)]


def write(path, documents):
    """Three queries for every two documents; some documents are written in capitals too."""
    records = []
    for number in range(len(documents) * 3 // 2):
        document = documents[number * 2 // 3]
        positive = document.upper() if number % 4 == 1 else document
        records.append({"query": f"question {number} on {number * 7}", "positive": positive})
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return f"pairs:{path}"


@pytest.mark.parametrize("kept", [1, 3, 1_000])
def test_texts_have_the_same_key_if_they_have_the_same_normal_form(monkeypatch, kept):
    monkeypatch.setattr(text_keys, "KEPT", kept)
    forms = [form for text in texts(30, 3) + texts(30, 90) for form in (text, text.upper(), f"  {text}!", f"{text} x")]
    assert any(len(text) > LONG for text in forms)
    keys = {text: text_key(text) for text in forms}
    assert all((keys[a] == keys[b]) == (normalise(a) == normalise(b)) for a in forms for b in forms)
    assert all(text_key(text) == keys[text] for text in forms)
    assert len(text_keys._known_keys) <= kept


def test_a_long_document_is_normalised_once(tmp_path, monkeypatch):
    counts = Counter()

    def counted(text):
        counts[text] += 1
        return normalise(text)

    for module in (leakage, splits, text_keys):
        if hasattr(module, "normalise"):
            monkeypatch.setattr(module, "normalise", counted)
    data = load_dataset(write(tmp_path / "x.jsonl", texts(20, 90)))
    assert {counts[document] for document in data.corpus.values()} == {1}


def test_groups_and_leaks_are_those_of_the_normal_forms(tmp_path, monkeypatch):
    spec = write(tmp_path / "x.jsonl", texts(24, 60))
    data = load_dataset(spec)
    judged = {query: grades for part in data.qrels.values() for query, grades in part.items()}
    leaky = {split: {q: judged[q] for n, q in enumerate(judged) if n % 3 == k} for k, split in enumerate(data.qrels)}
    report = leakage.check(replace(data, qrels=leaky, groups={}))
    assert report.counts[leakage.SHARED_DOCUMENT]
    for module in (leakage, splits):
        monkeypatch.setattr(module, "text_key", normalise)
    assert load_dataset(spec) == data
    assert leakage.check(replace(data, qrels=leaky, groups={})) == report
