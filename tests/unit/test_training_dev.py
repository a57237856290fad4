"""A dev evaluation costs a tenth of its training."""

from __future__ import annotations

import pytest

from embedlab.data.dataset import Dataset
from embedlab.training.dev import dev_size
from embedlab.training.fit import FitSettings
from tests.conftest import tiny_model

QUERY, DOCUMENT = "q" * 10, "d" * 40


@pytest.fixture
def data():
    """200 dev queries of 10 characters, 2,000 documents of 40."""
    corpus = {f"d{number}": DOCUMENT for number in range(2_000)}
    queries = {f"q{number}": QUERY for number in range(200)}
    qrels = {"dev": {f"q{number}": {f"d{number}": 1} for number in range(200)}}
    return Dataset(name="data", corpus=corpus, queries=queries, qrels=qrels)


@pytest.fixture
def model():
    model = tiny_model()
    model.max_seq_length = 16
    return model


def sizes(size):
    return size["max_queries"], size["max_docs"]


def test_all_evaluations_cost_a_tenth_of_the_training(data, model):
    rows, settings = [(QUERY, DOCUMENT, DOCUMENT)] * 1_000, FitSettings(epochs=2, batch_size=100, evaluations=4)
    # Training: 3 x 2 epochs x 1,000 rows x 90 characters = 540,000. A tenth, in five evaluations: 10,800 each.
    # With four documents a query costs 10 + 4 x 40 = 170: 63 queries. (10,800 - 630) / 40: 254 documents.
    assert sizes(dev_size(model, data, rows, settings)) == (63, 254)
    assert 63 * 10 + 254 * 40 <= 10_800


def test_the_number_of_steps_counts_and_not_the_epochs(data, model):
    rows, settings = [(QUERY, DOCUMENT, DOCUMENT)] * 1_000, FitSettings(epochs=2, batch_size=100, evaluations=4)
    whole = dev_size(model, data, rows, settings)
    limited = FitSettings(epochs=9, batch_size=100, evaluations=4, max_steps=20)
    assert sizes(dev_size(model, data, rows, limited)) == sizes(whole)
    at_least = FitSettings(epochs=1, batch_size=100, evaluations=4, min_steps=20)
    assert sizes(dev_size(model, data, rows, at_least)) == sizes(whole)


def test_long_texts_count_as_far_as_the_model_reads(data, model):
    settings = FitSettings(epochs=2, batch_size=100, evaluations=4)
    cut = [(QUERY, "d" * 64, "d" * 64)] * 1_000  # 16 tokens of about four characters
    long = [(QUERY, "d" * 9_999, "d" * 64)] * 1_000
    assert sizes(dev_size(model, data, cut, settings)) == sizes(dev_size(model, data, long, settings))


def test_a_short_training_keeps_enough_queries_and_a_long_one_uses_them_all(data, model):
    settings = FitSettings(epochs=1, batch_size=100, evaluations=4)
    assert sizes(dev_size(model, data, [(QUERY, DOCUMENT)], settings)) == (30, 120)
    assert sizes(dev_size(model, data, [(QUERY, DOCUMENT)] * 100_000, settings)) == (200, 3_000)


def test_it_uses_another_share(data, model):
    rows, settings = [(QUERY, DOCUMENT, DOCUMENT)] * 1_000, FitSettings(epochs=2, batch_size=100, evaluations=4)
    assert sizes(dev_size(model, data, rows, settings, share=0.05))[0] == 31
