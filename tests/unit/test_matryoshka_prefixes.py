"""Fitting prefixes of finished vectors: the loss by hand, what it finds, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from embedlab.errors import ParameterError
from embedlab.models.layers import project
from embedlab.search.exact import search
from embedlab.search.vectors import truncate
from embedlab.training.contrastive import matryoshka_adaptor
from embedlab.training.contrastive.matryoshka_adaptor import fit_prefixes, map_vectors, prefix_loss
from tests.conftest import TEXTS, tiny_model
from tests.unit.test_funnel import unit


def test_loss_by_hand():
    """Cosines 1 and 0 at t = 1; the target is sure of the first document, then of the second."""
    query, documents = torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    for target, value in (([[1.0, 0.0]], math.log(1 + 1 / math.e)), ([[0.0, 1.0]], math.log(1 + math.e))):
        assert prefix_loss(query, documents, torch.tensor(target), [2], 1.0).item() == pytest.approx(value)


def test_loss_sees_every_prefix():
    """At one dimension the two documents are alike, which costs log 2."""
    query, documents = torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    target = torch.tensor([[1.0, 0.0]])
    one, two = (prefix_loss(query, documents, target, [dim], 1.0).item() for dim in (1, 2))
    assert one == pytest.approx(math.log(2))
    assert prefix_loss(query, documents, target, [1, 2], 1.0).item() == pytest.approx((one + two) / 2)


def recall_at(dim, queries, corpus, wanted):
    _, found = search(truncate(queries, dim), truncate(corpus, dim), 10)
    return np.mean([np.isin(a, b).mean() for a, b in zip(wanted, found, strict=True)])


def test_prefixes_find_more_of_what_the_whole_finds(monkeypatch):
    """Vectors whose last numbers matter most: the plain cut is nearly blind, the fitted one is not."""
    flipped = [np.ascontiguousarray(unit(rows, seed=seed)[:, ::-1]) for rows, seed in ((60, 1), (30, 2), (400, 3))]
    training, queries, corpus = flipped
    _, wanted = search(queries, corpus, 10)
    for name, value in {"BATCH": 64, "CANDIDATES": 200, "LEARNING_RATE": 3e-2}.items():
        monkeypatch.setattr(matryoshka_adaptor, name, value)
    linear = fit_prefixes(training, corpus, [6, 24], steps=60)
    mapped = [map_vectors(vectors, linear) for vectors in (queries, corpus)]
    assert recall_at(6, *mapped, wanted) > recall_at(6, queries, corpus, wanted) + 0.15
    assert recall_at(24, *mapped, wanted) > 0.8


def test_seeded():
    first, again, other = (fit_prefixes(unit(9), unit(50), [4], steps=3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("dims", [[], [0, 4], [25]])
def test_impossible_dimensions_are_refused(dims):
    with pytest.raises(ParameterError):
        fit_prefixes(unit(9), unit(50), dims)


def test_mapped_vectors_are_those_of_the_projected_model():
    """A map that is no rotation: lengths change and must be put right again."""
    model = tiny_model()
    linear = torch.diag(torch.linspace(0.5, 2.0, model.get_embedding_dimension()))
    expected = map_vectors(model.encode(TEXTS), linear)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(project(model, linear).encode(TEXTS), expected, atol=1e-5)
