"""Search against a full sort, its tie rule, its memory bound; the ranking it leaves."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch

from embedlab.errors import DataError, ParameterError
from embedlab.search.exact import Ranking, require_depth, search


def slow_search(queries, corpus, k):
    """Every score, sorted in full: by score descending, then index ascending."""
    scores = queries.astype(np.float32) @ corpus.astype(np.float32).T
    order = np.lexsort((np.broadcast_to(np.arange(len(corpus)), scores.shape), -scores))[:, :k]
    return np.take_along_axis(scores, order, 1), order


def small_integers(rng, rows, dim, top=2):
    """Vectors whose dot products are exact and often equal."""
    return rng.integers(-top, top + 1, (rows, dim)).astype(np.float32)


@pytest.mark.parametrize(("block_docs", "block_queries"), [(1, 1), (7, 3), (50, 100), (64, 2), (1000, 1000)])
@pytest.mark.parametrize("k", [1, 5, 60])
def test_same_as_a_full_sort_with_ties_whatever_the_blocks(block_docs, block_queries, k):
    rng = np.random.default_rng(k)
    queries, corpus = small_integers(rng, 11, 3), small_integers(rng, 150, 3)
    scores, indices = search(queries, corpus, k, block_docs=block_docs, block_queries=block_queries)
    expected_scores, expected_indices = slow_search(queries, corpus, k)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_array_equal(scores, expected_scores)
    assert scores.dtype == np.float32
    assert indices.dtype == np.int64


def test_finds_the_nearest_and_not_the_farthest():
    corpus = np.array([[-1, 0], [0.6, 0.8], [1, 0], [0, 1]], dtype=np.float32)
    scores, indices = search(np.array([[1.0, 0.0]]), corpus, 4)
    assert indices.tolist() == [[2, 1, 3, 0]]
    np.testing.assert_allclose(scores, [[1, 0.6, 0, -1]], atol=1e-6)


def test_random_unit_vectors_against_a_full_sort():
    rng = np.random.default_rng(0)
    corpus, queries = rng.standard_normal((3000, 24)), rng.standard_normal((40, 24))
    scores, indices = search(queries, corpus, 100, block_docs=512, block_queries=16)
    expected_scores, expected_indices = slow_search(queries, corpus, 100)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5)
    assert (indices == expected_indices).mean() > 0.999  # float32 sums may swap two all but equal scores


@pytest.mark.parametrize("order", [1, -1])
def test_a_corpus_in_order_of_similarity(order):
    """Worst first hands on every document of every block, best first none."""
    corpus = np.linspace(0, 1, 400)[::order, None] * np.ones(3)
    queries = np.array([[1.0, 1, 1], [1, 2, 0]])
    _, indices = search(queries, corpus, 5, block_docs=50)
    np.testing.assert_array_equal(indices, slow_search(queries, corpus, 5)[1])


def test_identical_documents_come_in_index_order():
    corpus = np.tile([[1.0, 2.0]], (50, 1))
    _, indices = search(np.array([[3.0, 1.0], [-1.0, 0.0]]), corpus, 7, block_docs=16)
    assert indices.tolist() == [list(range(7))] * 2


def test_k_shrinks_to_the_corpus_and_empty_inputs_work():
    corpus = np.eye(3, dtype=np.float32)
    assert search(corpus, corpus, 10)[1].shape == (3, 3)
    assert search(corpus[:0], corpus, 2)[1].shape == (0, 2)
    assert search(corpus, corpus[:0], 2)[0].shape == (3, 0)


def test_half_precision_memory_map_is_read_in_blocks_and_left_as_it_was(tmp_path, monkeypatch):
    rng = np.random.default_rng(3)
    stored = small_integers(rng, 200_000, 8, top=9).astype(np.float16)
    np.save(tmp_path / "corpus.npy", stored)
    corpus = np.load(tmp_path / "corpus.npy", mmap_mode="r")
    queries = small_integers(rng, 20, 8, top=9).astype(np.float16)
    seen, original = [], torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b, out: seen.append(out.shape) or original(a, b, out=out))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns when handed a read-only array
        scores, indices = search(queries, corpus, 10, block_docs=4096, block_queries=8)
    expected_scores, expected_indices = slow_search(queries, stored, 10)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_array_equal(scores, expected_scores)
    assert max(rows * columns for rows, columns in seen) == 8 * 4096
    assert sum(rows * columns for rows, columns in seen) == 20 * 200_000
    np.testing.assert_array_equal(corpus, stored)


def test_read_only_float32_memory_map(tmp_path):
    np.save(tmp_path / "corpus.npy", np.eye(4, dtype=np.float32))
    corpus = np.load(tmp_path / "corpus.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert search(corpus, corpus, 1)[1].ravel().tolist() == [0, 1, 2, 3]


def test_the_corpus_may_come_in_any_order():
    rng = np.random.default_rng(5)
    queries, corpus = rng.standard_normal((6, 8)), rng.standard_normal((90, 8))
    shuffle = rng.permutation(90)
    _, plain = search(queries, corpus, 10, block_docs=32)
    _, shuffled = search(queries, corpus[shuffle], 10, block_docs=32)
    np.testing.assert_array_equal(shuffle[shuffled], plain)


@pytest.mark.parametrize(
    ("queries", "corpus"),
    [(np.ones(3), np.ones((2, 3))), (np.ones((2, 3)), np.ones((2, 4))), (np.ones((2, 3)), np.ones(3))],
)
def test_shapes_that_do_not_fit_are_named(queries, corpus):
    with pytest.raises(DataError, match=r"expected queries \(Q, d\)"):
        search(queries, corpus, 1)


def test_k_below_one_is_refused():
    with pytest.raises(ParameterError, match="k must be at least 1, got 0"):
        search(np.eye(2), np.eye(2), 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused(bad):
    corpus = np.eye(5)
    corpus[3, 3] = bad
    with pytest.raises(DataError, match="NaN or infinity"):
        search(np.ones((2, 5)), corpus, 2, block_docs=2)


def test_progress_names_the_stage(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_PROGRESS", str(tmp_path / "progress.jsonl"))
    search(np.eye(2), np.eye(2), 1, block_docs=1, stage="look up")
    last = json.loads((tmp_path / "progress.jsonl").read_text().splitlines()[-1])
    assert (last["stage"], last["step"], last["total"]) == ("look up", 2, 2)


def test_ranking_names_what_search_found():
    ranking = Ranking.from_search(["q"], ["a", "b", "c"], np.array([[0.5, 0.25]]), np.array([[2, 0]]))
    assert ranking.doc_ids.tolist() == [["c", "a"]]
    assert ranking.depth == 2
    assert ranking.as_candidates() == {"q": [("c", 0.5), ("a", 0.25)]}


def test_ranking_from_scores_sorts_cuts_and_leaves_gaps():
    run = {"q1": {"a": 1.0, "b": 3.0, "c": 2.0}, "q2": {}, "q3": {"c": -1.0}}
    ranking = Ranking.from_scores(run, depth=2)
    assert ranking.doc_ids.tolist() == [["b", "c"], [None, None], ["c", None]]
    assert ranking.as_candidates() == {"q1": [("b", 3.0), ("c", 2.0)], "q2": [], "q3": [("c", -1.0)]}
    assert Ranking.from_scores(run).depth == 3


@pytest.mark.parametrize(
    ("query_ids", "indices", "scores"),
    [
        (["q"], np.zeros((1, 2)), np.zeros((1, 3))),
        (["q", "r"], np.zeros((1, 2)), np.zeros((1, 2))),
        (["q"], np.array([[2]]), np.zeros((1, 1))),
        (["q", "q"], np.zeros((2, 1)), np.zeros((2, 1))),
    ],
    ids=["widths", "rows", "outside", "twice"],
)
def test_ranking_refuses_what_does_not_fit(query_ids, indices, scores):
    with pytest.raises(DataError):
        Ranking.from_search(query_ids, ["a", "b"], scores, indices)


def test_without_its_own_document_a_query_keeps_the_order_of_the_others():
    documents = [f"d{number}" for number in range(60)]
    ranking = Ranking.from_search(["d3"], documents, np.linspace(1, 0, 60)[None], np.arange(60)[None])
    found = ranking.without_own({"d3"}, 59).doc_ids[0].tolist()
    assert found == [name for name in documents if name != "d3"]


def test_a_depth_of_zero_is_refused_by_name():
    with pytest.raises(ParameterError, match=r"k must be at least 1, got 0") as refused:
        require_depth(0)
    assert refused.value.field == "k"
