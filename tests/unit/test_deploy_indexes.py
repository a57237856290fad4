"""Indexes find what exact search finds, as far as their parameter lets them; what they cost is measured."""

from __future__ import annotations

import numpy as np
import pytest

from embedlab.deploy.indexes import KINDS, TUNED_BY, IndexSpec, VectorIndex, _coded
from embedlab.deploy.measure import compare_indexes, measure, tuning_curve
from embedlab.errors import ParameterError, StorageError
from embedlab.search.recall import recall_at_k

SPEC = {"code_bytes": 8, "short_dim": 8, "lists": 16}


def unit(rng, *shape):
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    centres = unit(rng, 40, 32)
    noisy = centres[rng.integers(40, size=2000)] + 1.0 * unit(rng, 2000, 32)
    return noisy / np.linalg.norm(noisy, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def queries(vectors):
    noisy = vectors[::50] + 0.6 * unit(np.random.default_rng(1), 40, 32)
    return noisy / np.linalg.norm(noisy, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def exact(vectors, queries):
    scores = queries @ vectors.T
    rows = np.argsort(-scores, axis=1)[:, :10]
    return np.take_along_axis(scores, rows, 1), rows


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_finds_most_of_what_exact_search_finds(kind, vectors, queries, exact, tmp_path):
    index = VectorIndex.build(IndexSpec(kind=kind, **SPEC), vectors)
    scores, rows = index.search(queries, 10)
    assert scores.shape == rows.shape == (40, 10)
    assert (np.diff(scores, axis=1) <= 1e-6).all()
    least = {"flat": 1.0, "binary": 0.6, "matryoshka": 0.5}.get(kind, 0.85)  # 32 bits and 8 numbers say little
    assert recall_at_k(rows, queries, vectors, exact[0]).mean() >= least
    index.save(tmp_path / "index.bin")
    again = VectorIndex.load(index.spec, tmp_path / "index.bin", vectors).search(queries, 10)
    np.testing.assert_array_equal(again[1], rows)


@pytest.mark.parametrize("kind", ["flat", "binary", "matryoshka", "ivfpq"])
def test_scores_are_exact_inner_products(kind, vectors, queries):
    scores, rows = VectorIndex.build(IndexSpec(kind=kind, **SPEC), vectors).search(queries, 5)
    np.testing.assert_allclose(scores, np.einsum("qd,qkd->qk", queries, vectors[rows]), atol=1e-5)


@pytest.mark.parametrize("kind", TUNED_BY)
def test_at_its_widest_the_parameter_gives_everything_back(kind, vectors, queries, exact):
    index = VectorIndex.build(IndexSpec(kind=kind, **SPEC), vectors)
    widest = {"ef_search": 2000, "nprobe": 16, "shortlist": 2000}[TUNED_BY[kind]]
    curve = tuning_curve(index, [1, widest], queries, exact[0])
    assert list(curve["parameter"]) == [TUNED_BY[kind]] * 2
    narrow, wide = curve["recall@10"]
    assert wide >= (0.95 if kind == "ivfpq" else 0.999)  # product codes lose a little before the shortlist is scored
    assert narrow < wide - 0.05 or kind == "hnsw"
    assert index.spec == IndexSpec(kind=kind, **SPEC)  # the index itself was not changed


def test_a_shortlist_shorter_than_k_still_gives_k(vectors, queries):
    index = VectorIndex.build(IndexSpec(kind="binary", shortlist=2), vectors)
    assert (index.search(queries, 10)[1] >= 0).all()


def test_missing_answers_are_marked():
    """One list of two is searched, and it holds fewer than k vectors."""
    vectors = np.repeat(np.eye(8, dtype=np.float32)[:2], 40, axis=0)
    index = VectorIndex.build(IndexSpec(kind="ivf", lists=2, nprobe=1), vectors)
    scores, rows = index.search(vectors[:1], 60)
    assert (rows[0, :40] >= 0).all() and (rows[0, 40:] == -1).all()
    assert np.isneginf(scores[0, 40:]).all()


def test_a_missing_candidate_is_not_scored_as_the_last_vector():
    """The last vector, in the list that is not searched, would beat every candidate if -1 were taken for its row."""
    vectors = np.repeat(np.eye(8, dtype=np.float32)[:2], 40, axis=0)
    vectors[-1, :2] = 0.70, 0.714
    query = np.array([[0.9, 0.436, 0, 0, 0, 0, 0, 0]], dtype=np.float32)
    assert query[0] @ vectors[-1] > query[0] @ vectors[0]
    rows = VectorIndex.build(IndexSpec(kind="ivf", lists=2, nprobe=1, shortlist=60), vectors).search(query, 10)[1]
    assert set(rows[0]) <= set(range(40))


def test_bits_are_signs():
    vectors = np.array([[0.01, -0.01, 0.9, -0.9, 0.1, 0.1, 0.1, 0.1]], dtype=np.float32)
    assert _coded(IndexSpec(kind="binary"), vectors).tolist() == [[0b10101111]]


def test_k_beyond_the_corpus():
    vectors = np.eye(8, dtype=np.float32)
    assert VectorIndex.build(IndexSpec(kind="hnsw"), vectors).search(vectors, 99)[1].shape == (8, 8)


def test_recall_by_hand_counts_ties_as_found():
    """Documents 0 and 1 are equal: returning 1 for 0 loses nothing, returning 2 does."""
    vectors = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    queries = np.array([[1, 0], [1, 0], [1, 0]], dtype=np.float32)
    exact = np.array([[1.0], [1.0], [1.0]])
    np.testing.assert_array_equal(recall_at_k(np.array([[1], [2], [-1]]), queries, vectors, exact), [1, 0, 0])


def test_smaller_codes_are_smaller(vectors, queries, exact):
    specs = {kind: IndexSpec(kind=kind, **SPEC) for kind in ("flat", "int8", "binary", "matryoshka")}
    table, built = compare_indexes(specs, vectors, queries, exact[0])
    size = table.set_index("index")["megabytes"]
    assert size["flat"] * 1e6 == pytest.approx(2000 * 32 * 4, rel=0.01)
    assert size["int8"] * 1e6 == pytest.approx(2000 * 32, rel=0.01)
    assert size["binary"] * 1e6 == pytest.approx(2000 * 4, rel=0.01)
    assert size["matryoshka"] * 1e6 == pytest.approx(2000 * 8 * 4, rel=0.01)
    assert (table["build_s"] > 0).all() and (table["p50_ms"] <= table["p99_ms"]).all()
    assert measure(built["flat"], queries, exact[0])["build_s"] is None


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"kind": "ivfpq", "code_bytes": 5}, "must divide the 32 dimensions, got 5"),
        ({"kind": "matryoshka", "short_dim": 99}, "1 to 32"),
    ],
)
def test_a_spec_that_does_not_fit_is_refused(spec, problem, vectors):
    with pytest.raises(ParameterError, match=problem):
        VectorIndex.build(IndexSpec(**spec), vectors)


def test_nothing_to_index_and_nothing_to_tune(vectors, queries, exact):
    with pytest.raises(ParameterError, match="no vector"):
        VectorIndex.build(IndexSpec(), vectors[:0])
    with pytest.raises(ParameterError, match="kind 'flat' has no parameter to tune"):
        tuning_curve(VectorIndex.build(IndexSpec(kind="flat"), vectors), [1], queries, exact[0])


def test_a_file_that_is_no_index_is_refused(tmp_path, vectors):
    (tmp_path / "index.bin").write_bytes(b"no index")
    with pytest.raises(StorageError, match="cannot be read"):
        VectorIndex.load(IndexSpec(), tmp_path / "index.bin", vectors)
    VectorIndex.build(IndexSpec(kind="flat"), vectors).save(tmp_path / "index.bin")
    with pytest.raises(StorageError, match="holds 2000 vectors, the version 7"):
        VectorIndex.load(IndexSpec(kind="flat"), tmp_path / "index.bin", vectors[:7])


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_hardly_any_vectors(kind, count):
    vectors, spec = np.eye(64, dtype=np.float32)[:count], IndexSpec(kind=kind, code_bytes=8, short_dim=64)
    if kind == "ivfpq" and count == 1:
        with pytest.raises(ParameterError, match="at least 2 vectors"):
            VectorIndex.build(spec, vectors)
        return
    index = VectorIndex.build(spec, vectors)
    scores, rows = index.search(vectors, 10)
    assert scores.shape == rows.shape == (count, count)
    assert rows[:, 0].tolist() == list(range(count))


def test_more_lists_than_vectors_are_refused():
    vectors = np.eye(64, dtype=np.float32)
    for kind in ("ivf", "ivfpq"):
        with pytest.raises(ParameterError, match="lists must be at most the 64 vectors, got 65.*lists=0"):
            VectorIndex.build(IndexSpec(kind=kind, lists=65, code_bytes=8), vectors)
