"""Vectors that cannot work are noticed; good ones are not."""

from __future__ import annotations

import numpy as np
import pytest

from embedlab.search.collapse import mean_cosine, vector_problems


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_mean_cosine_by_hand():
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    assert mean_cosine(vectors) == pytest.approx((0 + 0.6 + 0.8) / 3)
    assert np.isnan(mean_cosine(vectors[:1]))


@pytest.mark.parametrize(("noise", "collapsed"), [(0.0, True), (0.01, True), (0.1, False), (1.0, False)])
def test_vectors_around_one_direction(noise, collapsed):
    """With noise 0.1 in 64 dimensions the mean cosine is about 1 / (1 + 64 * 0.01) = 0.61, with 0.01 it is 0.994."""
    rng = np.random.default_rng(0)
    vectors = unit(np.eye(64)[0] + noise * rng.normal(size=(200, 64)))
    problems = vector_problems(vectors)
    assert bool(problems) == collapsed
    if collapsed:
        assert "the vectors of different texts are nearly the same" in problems[0]


def test_few_texts_may_be_similar():
    assert vector_problems(unit(np.ones((3, 8)))) == []


def test_zeros_are_counted():
    vectors = unit(np.random.default_rng(0).normal(size=(50, 8)))
    vectors[:2] = 0
    assert vector_problems(vectors)[0].startswith("2 of 50 vectors are all zeros.")
