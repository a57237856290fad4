"""Encode once, truncate, search, score; the evaluator the Trainer calls."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from embedlab.data.dataset import Dataset
from embedlab.errors import DataError, ParameterError
from embedlab.evaluation.retrieval import (
    DevEvaluator,
    encode_split,
    evaluate_retrieval,
    evaluate_vectors,
    near_corpus,
    sample_corpus,
)
from embedlab.search.vectors import Vectors, truncate

VECTORS = {  # d1 and d2 agree in the first two numbers and differ in the others
    "one": [0.6, 0.0, 0.8, 0.0],
    "two": [0.6, 0.0, 0.0, 0.8],
    "three": [0.0, 1.0, 0.0, 0.0],
    "ask one": [0.6, 0.0, 0.8, 0.0],
    "ask two": [0.6, 0.0, 0.0, 0.8],
    "ask three": [0.0, 0.6, 0.0, 0.8],
}


class FakeEncoder:
    """Looks vectors up and remembers what it was asked for."""

    def __init__(self):
        self.calls = []

    def __call__(self, model, texts, *, stage, prompt=None):
        self.calls.append((stage, list(texts), prompt))
        return np.array([VECTORS.get(text, [0.5, -0.5, -0.5, -0.5]) for text in texts], dtype=np.float32)


@pytest.fixture
def dataset():
    return Dataset(
        name="toy",
        corpus={"d1": "one", "d2": "two", "d3": "three"},
        queries={"q1": "ask one", "q2": "ask two", "q3": "ask three"},
        qrels={"train": {}, "dev": {"q3": {"d3": 1}}, "test": {"q1": {"d1": 1}, "q2": {"d2": 1}}},
    )


def test_truncate_by_hand():
    vectors = np.array([[3.0, 4.0, 12.0], [0.0, 0.0, 1.0], [-2.0, 0.0, 5.0]])
    cut = truncate(vectors, 2)
    np.testing.assert_allclose(cut, [[0.6, 0.8], [0, 0], [-1, 0]], rtol=1e-6)
    assert cut.dtype == np.float32
    np.testing.assert_allclose(truncate(vectors, 3)[0], [3 / 13, 4 / 13, 12 / 13], rtol=1e-6)
    np.testing.assert_array_equal(vectors[0], [3, 4, 12])


@pytest.mark.parametrize("dim", [0, 4])
def test_truncate_refuses_other_dimensions(dim):
    with pytest.raises(ParameterError, match=f"dim must be between 1 and 3, got {dim}. Choose 1 to 3"):
        truncate(np.ones((2, 3)), dim)


def test_every_dimension_comes_from_one_encoding(dataset):
    encode = FakeEncoder()
    results = evaluate_retrieval(None, dataset, dims=(4, 2), encode=encode)
    assert [stage for stage, _, _ in encode.calls] == ["encode corpus", "encode queries"]
    assert results[4].means()["ndcg@1"] == 1
    # At two dimensions d1 and d2 are the same vector: the tie goes to the larger id, so q1 loses and q2 wins.
    assert results[2].of("mrr@10").tolist() == [0.5, 1]
    assert results[2].mean("ndcg@10") == pytest.approx((1 / math.log2(3) + 1) / 2)


def test_without_dimensions_the_full_one_is_scored_and_only_the_split(dataset):
    results = evaluate_retrieval(None, dataset, encode=FakeEncoder(), k=1)
    assert list(results) == [4]
    assert results[4].query_ids == ("q1", "q2")
    assert list(results[4].values) == ["ndcg@1", "recall@1", "precision@1", "mrr@1", "map@1"]


def test_given_corpus_vectors_are_not_encoded_again(dataset):
    first = encode_split(None, dataset, "test", encode=FakeEncoder())
    encode = FakeEncoder()
    again = evaluate_vectors(
        encode_split(None, dataset, corpus_vectors=first.corpus, encode=encode), dataset.qrels["test"]
    )
    assert [texts for _, texts, _ in encode.calls] == [["ask one", "ask two"]]
    assert again[4].mean("ndcg@10") == 1
    with pytest.raises(DataError, match="2 encoded documents for 2 queries and 3 documents"):
        encode_split(None, dataset, corpus_vectors=first.corpus[:2], encode=encode)


def test_the_model_s_own_prompts_are_used(dataset):
    class Model:
        prompts = {"query": "query: ", "passage": "passage: ", "document": None}

    encode = FakeEncoder()
    encode_split(Model(), dataset, "test", encode=encode)
    assert [prompt for _, _, prompt in encode.calls] == ["passage: ", "query: "]


def test_a_split_without_queries_is_named(dataset):
    with pytest.raises(ParameterError, match="toy has no train queries. Splits with queries: dev, test"):
        evaluate_retrieval(None, dataset, "train", encode=FakeEncoder())
    with pytest.raises(ParameterError):
        DevEvaluator(dataset, "validation")


def test_vectors_rank_and_score_pairs(dataset):
    vectors = encode_split(None, dataset, "test", encode=FakeEncoder())
    assert vectors.rank(2).doc_ids.tolist() == [["d1", "d2"], ["d2", "d1"]]
    pairs = [("q1", "d1"), ("q1", "d2"), ("q2", "d3")]
    assert vectors.pair_scores(pairs) == pytest.approx(dict(zip(pairs, [1.0, 0.36, 0.0], strict=True)))
    assert vectors.truncated(1).pair_scores(pairs[:2]) == pytest.approx(dict.fromkeys(pairs[:2], 1.0))
    assert vectors.truncated(4) is vectors


def test_pair_scores_of_many_pairs_agree_with_a_loop():
    rng = np.random.default_rng(0)
    queries, corpus = rng.random((200, 3), dtype=np.float32), rng.random((100, 3), dtype=np.float32)
    vectors = Vectors(tuple(f"q{i}" for i in range(200)), tuple(f"d{i}" for i in range(100)), queries, corpus)
    scores = vectors.pair_scores((f"q{q}", f"d{d}") for q in range(200) for d in range(100))
    np.testing.assert_allclose(np.reshape(list(scores.values()), (200, 100)), queries @ corpus.T, rtol=1e-5)


def test_sample_corpus_keeps_positives_and_order(dataset):
    large = Dataset(
        name="large",
        corpus={f"d{number}": f"text {number}" for number in range(100)},
        queries={"q1": "a", "q2": "b"},
        qrels={"dev": {"q1": {"d90": 1, "d5": 2}, "q2": {"d50": 1}}},
    )
    small = sample_corpus(large, "dev", 10)
    assert len(small.corpus) == 10
    assert {"d5", "d50", "d90"} <= set(small.corpus)
    assert list(small.corpus) == [document for document in large.corpus if document in small.corpus]
    assert sample_corpus(large, "dev", 10) == small
    assert sample_corpus(large, "dev", 10, seed=1).corpus != small.corpus
    assert set(sample_corpus(large, "dev", 1).corpus) == {"d5", "d50", "d90"}
    assert sample_corpus(large, "dev", 1000) == large


def test_near_corpus_takes_the_first_of_every_query_before_any_second():
    corpus = {f"d{number}": f"filler{number} words" for number in range(50)}
    corpus |= {"hip": "hip fracture", "hip2": "hip fracture pain somewhere else", "eye": "eye", "eye2": "eye pain"}
    queries, qrels = {"q1": "hip fracture", "q2": "eye"}, {"dev": {"q1": {"d7": 1}, "q2": {"eye": 1}}}
    data = Dataset(name="large", corpus=corpus, queries=queries, qrels=qrels)
    assert [*near_corpus(data, "dev", 3).corpus] == ["d7", "hip", "eye"]  # eye, the best for q2, is there already
    assert {*near_corpus(data, "dev", 5).corpus} == {"d7", "eye", "hip", "hip2", "eye2"}
    assert near_corpus(data, "dev", 20) == near_corpus(data, "dev", 20)
    assert len(near_corpus(data, "dev", 20).corpus) == 20  # BM25 finds four; the rest is drawn
    assert near_corpus(data, "dev", 99) == data
    assert DevEvaluator(data, max_docs=3).dataset == near_corpus(data, "dev", 3)
    wordless = replace(data, corpus=dict.fromkeys(corpus, "1"))
    assert len(near_corpus(wordless, "dev", 9).corpus) == 9


def test_dev_evaluator_speaks_the_trainer_s_protocol(dataset):
    from sentence_transformers.base.evaluation import BaseEvaluator

    evaluator = DevEvaluator(dataset, encode=FakeEncoder())
    values = evaluator(None, output_path="unused", epoch=0.5, steps=10)
    assert isinstance(evaluator, BaseEvaluator)
    assert evaluator.greater_is_better
    assert evaluator.primary_metric == "ndcg@10"
    # q3 is nearer to d2 (0.64) than to d3 (0.6): second place.
    assert values == pytest.approx({"ndcg@10": 1 / math.log2(3), "recall@10": 1, "mrr@10": 0.5})
    assert all(isinstance(value, float) for value in values.values())


def test_dev_evaluator_samples_many_queries_and_says_so(dataset, caplog):
    judged = dataset.qrels["test"]
    caplog.set_level("INFO")
    evaluator = DevEvaluator(dataset, "test", max_queries=1, encode=FakeEncoder())
    kept = evaluator.dataset.qrels["test"]
    assert len(kept) == 1 < len(judged)
    assert kept.items() <= judged.items()
    assert f"a sample of 1 of {len(judged)} test queries" in caplog.text
    assert DevEvaluator(dataset, "test", max_queries=len(judged)).dataset == dataset


def test_dev_evaluator_searches_the_same_sample_every_time(dataset):
    encode = FakeEncoder()
    evaluator = DevEvaluator(dataset, max_docs=2, k=1, encode=encode)
    first, second = evaluator(None), evaluator(None)
    assert first == second
    assert set(first) == {"ndcg@1", "recall@1", "mrr@1"}
    corpora = [texts for stage, texts, _ in encode.calls if stage == "encode corpus"]
    assert len(corpora[0]) == 2
    assert corpora[0] == corpora[1]
    assert len(dataset.corpus) == 3
