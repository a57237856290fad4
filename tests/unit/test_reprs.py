"""Objects with many texts or numbers show themselves in one short line, because a notebook cell may end with them."""

from __future__ import annotations

import pytest

from embedlab.data.load import load_dataset
from embedlab.evaluation.metrics import evaluate
from embedlab.search.encoded import EncodedSplit
from embedlab.search.late_interaction import TokenIndex
from embedlab.search.sparse import SparseVectors
from embedlab.search.vectors import Vectors, encode_split
from tests.conftest import tiny_model


def test_large_objects_are_one_short_line():
    data = load_dataset("icd10cm:smoke", max_examples=60)
    vectors = encode_split(tiny_model(), data, "dev")
    ranking = vectors.rank(10)
    queries, documents = len(data.qrels["dev"]), len(data.corpus)
    assert repr(vectors) == f"Vectors({queries} queries, {documents} documents)"
    assert repr(ranking) == f"Ranking({queries} queries, 10 of {documents} documents)"
    assert repr(evaluate(ranking, data.qrels["dev"], [10])) == f"Evaluation({queries} queries, 5 metrics)"
    assert repr(data).startswith(f"Dataset('icd10cm:smoke', {documents} documents, queries: train ")


@pytest.mark.parametrize("kind", [Vectors, SparseVectors, TokenIndex])
def test_every_kind_of_encoded_split_has_the_short_line(kind):
    assert kind.__repr__ is EncodedSplit.__repr__
