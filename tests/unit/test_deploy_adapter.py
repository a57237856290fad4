"""Adapters recover the maps they can and raise for spaces they were not fitted for."""

from __future__ import annotations

import numpy as np
import pytest

from embedlab.deploy import adapter as adapter_module
from embedlab.deploy.adapter import KINDS, AdaptedEncoder, compare_adapters, fit_adapter
from embedlab.deploy.build import Source, build_version
from embedlab.deploy.indexes import IndexSpec
from embedlab.deploy.serve import open_version
from embedlab.deploy.space import Space, SpaceMismatch
from embedlab.errors import DataError, EmbedlabError
from tests.unit.test_deploy_space import FakeEncoder

NEW, OLD = Space("new", 12), Space("old", 12)


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def rotation(rng, rows, columns):
    return np.linalg.qr(rng.normal(size=(max(rows, columns), min(rows, columns))))[0]


def mean_cosine(adapter, new, old):
    return float((adapter.map(new, adapter.source) * old).sum(axis=1).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_a_rotation_is_recovered(kind, rng):
    turn = rotation(rng, 12, 12)
    new = unit(rng.normal(size=(400, 12)))
    adapter = fit_adapter(kind, new[:300], unit(new[:300] @ turn), NEW, OLD, ridge=1e-6)
    mapped = adapter.map(new[300:], NEW)
    np.testing.assert_allclose(mapped, new[300:] @ turn, atol=1e-5 if kind == "procrustes" else 0.03)
    np.testing.assert_allclose(np.linalg.norm(mapped, axis=1), 1, atol=1e-6)


def test_procrustes_is_orthogonal_whatever_it_is_given(rng):
    new, old = unit(rng.normal(size=(50, 12))), unit(rng.normal(size=(50, 12)))
    matrix = fit_adapter("procrustes", new, old, NEW, OLD).matrix
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(12), atol=1e-5)


def test_models_of_different_dimension(rng):
    new = unit(rng.normal(size=(300, 20)))
    old = unit(new @ rotation(rng, 20, 12))
    for kind in KINDS:
        adapter = fit_adapter(kind, new, old, Space("new", 20), OLD)
        assert adapter.map(new, adapter.source).shape == (300, 12)
        assert mean_cosine(adapter, new, old) > 0.9


def test_an_affine_map_is_recovered_and_a_rotation_is_not_enough(rng):
    new = unit(rng.normal(size=(500, 12)))
    old = unit(new @ rng.normal(size=(12, 12)) + 2 * rng.normal(size=12))
    affine, turned = (fit_adapter(kind, new, old, NEW, OLD, ridge=1e-3) for kind in ("affine", "procrustes"))
    assert mean_cosine(affine, new, old) > 0.97 > mean_cosine(turned, new, old)


def test_rank_limits_the_correction_and_ridge_leaves_the_rotation(rng):
    new, old = unit(rng.normal(size=(200, 12))), unit(rng.normal(size=(200, 12)))
    turned = fit_adapter("procrustes", new, old, NEW, OLD).matrix
    corrected = fit_adapter("affine", new, old, NEW, OLD, rank=3).matrix
    assert np.linalg.matrix_rank(corrected - turned, tol=1e-4) == 3
    np.testing.assert_allclose(fit_adapter("affine", new, old, NEW, OLD, ridge=1e9).matrix, turned, atol=1e-4)


def test_rank_32_and_a_penalty_of_a_tenth_are_the_defaults(rng):
    new, old = unit(rng.normal(size=(200, 40))), unit(rng.normal(size=(200, 40)))
    fitted = [fit_adapter("affine", new, old, Space("new", 40), Space("old", 40), **options).matrix
              for options in ({}, {"rank": 32, "ridge": 0.1}, {"rank": 33}, {"ridge": 0.2})]  # fmt: skip
    assert [np.array_equal(fitted[0], other) for other in fitted[1:]] == [True, False, False]


def test_the_network_learns_what_no_line_does(rng):
    new = unit(rng.normal(size=(1500, 12)))
    old = unit(np.abs(new @ rng.normal(size=(12, 12))))
    fitted = {kind: fit_adapter(kind, new[:1200], old[:1200], NEW, OLD) for kind in KINDS}
    quality = {kind: mean_cosine(adapter, new[1200:], old[1200:]) for kind, adapter in fitted.items()}
    assert quality["mlp"] > quality["affine"] + 0.02 > quality["procrustes"]


def test_the_network_depends_on_its_seed_and_on_nothing_else(rng, monkeypatch):
    monkeypatch.setattr(adapter_module, "EPOCHS", 2)
    new, old = unit(rng.normal(size=(40, 12))), unit(rng.normal(size=(40, 12)))
    once, again, other = (fit_adapter("mlp", new, old, NEW, OLD, seed=seed).hidden for seed in (0, 0, 1))
    assert set(once) == {"inner", "bias", "outer"}
    assert all(np.array_equal(once[name], again[name]) for name in once)
    assert not any(np.array_equal(once[name], other[name]) for name in once)
    default = fit_adapter("mlp", new, old, NEW, OLD).hidden
    assert np.array_equal(default["inner"], once["inner"])


def test_only_the_fitted_spaces_are_served(rng, tmp_path):
    old_model, new_model, other = (FakeEncoder(seed, 12) for seed in range(3))
    texts = [f"text {i}" for i in range(300)]
    pair = new_model.encode_queries(texts), old_model.encode_queries(texts)
    adapter = fit_adapter("procrustes", *pair, new_model.space, old_model.space)
    documents = Source([(text, text) for text in texts])
    served = open_version(tmp_path, build_version(tmp_path, old_model, documents, IndexSpec(kind="flat"))[0])
    adapted = AdaptedEncoder(new_model, adapter)
    assert served.rank(adapted, {"q": "text 7"}, 3).depth == 3
    with pytest.raises(SpaceMismatch):
        served.rank(new_model, {"q": "text 7"}, 3)
    with pytest.raises(SpaceMismatch):
        AdaptedEncoder(other, adapter)
    with pytest.raises(SpaceMismatch):
        adapter.map(pair[1], old_model.space)
    with pytest.raises(EmbedlabError, match="does not embed documents"):
        adapted.encode_documents(["text 7"])


def test_every_kind_is_fitted_on_every_sample(tmp_path):
    old_model, new_model = FakeEncoder(0, 12), FakeEncoder(1, 12)
    texts = [f"text {i}" for i in range(300)]
    served = open_version(
        tmp_path, build_version(tmp_path, old_model, Source([(t, t) for t in texts]), IndexSpec(kind="flat"))[0]
    )
    samples = {"all": (new_model.encode_documents(texts), old_model.encode_documents(texts))}
    rankings = compare_adapters(served, new_model, samples, {"q": "text 7"})
    assert list(rankings) == [f"{kind}, all" for kind in KINDS]
    assert all(ranking.query_ids == ("q",) and ranking.depth == 100 for ranking in rankings.values())


def test_samples_that_do_not_fit_together_raise(rng):
    with pytest.raises(DataError, match="not of the same texts"):
        fit_adapter("affine", np.ones((3, 12)), np.ones((4, 12)), NEW, OLD)
