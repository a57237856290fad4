"""The funnel against exact search, by hand and in its limits; rescoring; the early-stop rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedlab.errors import DataError, ParameterError
from embedlab.search import funnel as module
from embedlab.search.early_stop import StopRule, margin, stop_early, tune_stop_rule
from embedlab.search.exact import search
from embedlab.search.funnel import Funnel, rank_with
from embedlab.search.rescore import rescore, rescored
from embedlab.search.vectors import Vectors, truncate


def unit(rows: int, dim: int = 24, seed: int = 0) -> np.ndarray:
    """Random unit vectors whose early dimensions carry more, as Matryoshka embeddings do."""
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)) * np.geomspace(1, 0.2, dim)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def by_hand(queries: np.ndarray, corpus: np.ndarray, dims: list[int], shortlists: list[int], k: int) -> np.ndarray:
    """Slow reference: sort everything at every stage."""
    kept = [np.arange(len(corpus))] * len(queries)
    for dim, keep in zip(dims, [*shortlists, k], strict=True):
        scores = truncate(queries, dim).astype(np.float64) @ truncate(corpus, dim).T.astype(np.float64)
        kept = [rows[np.argsort(-scores[q][rows], kind="stable")[:keep]] for q, rows in enumerate(kept)]
    return np.array(kept)


@pytest.mark.parametrize("documents", [1, 31, 32, 33, 500, 3000])  # with few groups every one of them is chosen
def test_one_stage_is_exact_search(documents):
    queries, corpus = unit(40, seed=1), unit(documents)
    expected_scores, expected = search(queries, corpus, 10)
    scores, found = Funnel(corpus, [24])(queries, 10)
    assert found.dtype == np.int64 and scores.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


@pytest.mark.parametrize("dims", [[4, 24], [2, 8, 24]])
def test_shortlists_of_the_whole_corpus_lose_nothing(dims):
    queries, corpus = unit(9, seed=1), unit(333)
    _, expected = search(queries, corpus, 10)
    np.testing.assert_array_equal(Funnel(corpus, dims, [1000] * (len(dims) - 1))(queries, 10)[1], expected)


@settings(max_examples=30, deadline=None)
@given(documents=st.integers(20, 400), first=st.integers(4, 12), keep=st.integers(5, 60), seed=st.integers(0, 99))
def test_every_stage_keeps_what_a_full_sort_keeps(documents, first, keep, seed):
    queries, corpus = unit(4, seed=seed + 1), unit(documents, seed=seed)
    dims, shortlists = [first, 16, 24], [2 * keep, keep]
    np.testing.assert_array_equal(
        Funnel(corpus, dims, shortlists)(queries, 5)[1], by_hand(queries, corpus, dims, shortlists, 5)
    )


def test_blocks_and_groups_change_nothing(monkeypatch):
    queries, corpus = unit(11, seed=1), unit(400)
    whole = Funnel(corpus, [6, 24], [40])(queries, 10)
    monkeypatch.setattr(module, "BLOCK_DOCS", 96)
    monkeypatch.setattr(module, "BLOCK_QUERIES", 4)
    monkeypatch.setattr(module, "GROUP", 8)
    for one, other in zip(whole, Funnel(corpus, [6, 24], [40])(queries, 10), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_narrow_shortlist_loses_what_only_later_dimensions_tell():
    """At two dimensions document 1 looks better; the third shows that it is not."""
    query = np.array([[0.6, 0.0, 0.8]], np.float32)
    corpus = np.array([[0.48, 0.36, 0.8], [0.6, 0.0, -0.8], [0.0, 1.0, 0.0]], np.float32)
    assert Funnel(corpus, [2], [])(query, 1)[1].tolist() == [[1]]
    assert Funnel(corpus, [2, 3], [1])(query, 1)[1].tolist() == [[1]]
    assert Funnel(corpus, [2, 3], [2])(query, 1)[1].tolist() == [[0]]


def test_prefixes_are_scaled_to_unit_length():
    """Without scaling, document 0's larger first number would win at one dimension less than the whole."""
    query = np.array([[0.8, 0.0, 0.6]], np.float32)
    corpus = np.array([[0.7, 0.7, 0.14], [0.1, 0.0, 0.99]], np.float32)
    corpus /= np.linalg.norm(corpus, axis=1, keepdims=True)
    scores, found = Funnel(corpus, [1, 2], [2])(query, 2)
    assert found.tolist() == [[1, 0]]
    np.testing.assert_allclose(scores, [[1.0, 0.5**0.5]], atol=1e-5)


def test_equal_documents_come_in_index_order():
    corpus = np.zeros((70, 24), np.float32)
    corpus[:, 0] = 1  # sums of one number, so that the scores are equal to the last bit
    assert Funnel(corpus, [4, 24], [70])(corpus[:1], 10)[1].tolist() == [list(range(10))]


def test_flops_by_hand():
    """32 numbers of 1,000 documents, 64 of 200, 384 of 50: a multiplication and an addition each."""
    corpus = unit(1000, 384)
    assert Funnel(corpus, [32, 64, 384], [200, 50]).flops() == 2 * (32 * 1000 + 64 * 200 + 384 * 50)
    assert Funnel(corpus, [384]).flops() == 768_000
    assert Funnel(corpus, [32, 384], [5000]).flops() == 2 * (32 + 384) * 1000  # no more than there are


@pytest.mark.parametrize(
    ("dims", "shortlists", "field"),
    [([], [], "dims"), ([8, 8], [5], "dims"), ([0, 8], [5], "dims"), ([8, 25], [5], "dims"), ([8, 4], [5], "dims"),
     ([8, 24], [], "shortlists"), ([24], [5], "shortlists"), ([4, 8, 24], [5, 6], "shortlists"),
     ([8, 24], [0], "shortlists")],
)  # fmt: skip
def test_impossible_funnels_are_refused(dims, shortlists, field):
    with pytest.raises(ParameterError) as error:
        Funnel(unit(30), dims, shortlists)
    assert error.value.field == field


@pytest.mark.parametrize("k", [0, 6])
def test_impossible_depths_are_refused(k):
    with pytest.raises(ParameterError):
        Funnel(unit(30), [4, 24], [5])(unit(2), k)


def test_rescoring_everything_is_exact_search_also_from_disk(tmp_path):
    queries, corpus = unit(70, seed=1), unit(90)
    np.save(tmp_path / "corpus.npy", corpus)
    candidates = np.tile(np.random.default_rng(0).permutation(90), (70, 1))
    expected_scores, expected = search(queries, corpus, 10)
    for store in (corpus, np.load(tmp_path / "corpus.npy", mmap_mode="r")):
        scores, found = rescore(queries, store, candidates, 10)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


def test_rescoring_puts_missing_candidates_last():
    corpus = np.eye(3, dtype=np.float32)
    scores, found = rescore(corpus[:1], corpus, np.array([[-1, 2, 0, -1]]), 3)
    assert found.tolist() == [[0, 2, -1]]
    assert scores.tolist() == [[1.0, 0.0, -np.inf]]


def test_rescoring_orders_equal_documents_by_index():
    corpus = np.ones((4, 1), np.float32)
    assert rescore(corpus[:1], corpus, np.array([[3, 0, 2, 1]]), 3)[1].tolist() == [[0, 1, 2]]


def test_rescoring_more_than_there_is_is_refused():
    with pytest.raises(ParameterError, match="k must be at most 2"):
        rescore(unit(1), unit(5), np.array([[0, 1]]), 3)


def test_rescored_searches_the_shortlist_and_no_more():
    queries, corpus = unit(5, seed=1), unit(200)
    first = Funnel(corpus, [4])
    asked = []

    def spy(vectors, k):
        asked.append(k)
        return first(vectors, k)

    found = rescored(spy, corpus, 30)(queries, 10)[1]
    assert asked == [30]
    np.testing.assert_array_equal(found, Funnel(corpus, [4, 24], [30])(queries, 10)[1])


def test_rank_with_names_what_was_found():
    corpus = np.eye(3, dtype=np.float32)
    vectors = Vectors(("q",), ("a", "b", "c"), corpus[1:2], corpus)
    assert rank_with(Funnel(corpus, [3]), vectors, 2).doc_ids.tolist() == [["b", "a"]]


class TestStopRule:
    scores = np.array([[0.9, 0.5, 0.1], [0.9, 0.8, 0.3], [0.9, 0.9, 0.7], [0.5, 0.5, 0.5]])  # margins .8 .6 .2 0

    def test_margin_by_hand(self):
        np.testing.assert_allclose(margin(self.scores, 3), [0.8, 0.6, 0.2, 0.0])
        np.testing.assert_allclose(margin(self.scores, 2), [0.4, 0.1, 0.0, 0.0])
        for rank in (1, 4):
            with pytest.raises(
                ParameterError, match=rf"\[rank\]: rank must be between 2 and 3, .* got {rank}"
            ) as caught:
                margin(self.scores, rank)
            assert "choose a smaller rank" in str(caught.value)

    @pytest.mark.parametrize(
        ("losses", "tolerance", "share", "threshold"),
        [
            ([0.0, 0.0, 0.0, 0.0], 0.001, 1.0, 0.0),
            ([0.0, 0.0, 0.4, 0.0], 0.001, 0.5, 0.6),
            ([0.0, 0.0, 0.4, 0.0], 0.1, 1.0, 0.0),
            ([0.4, 0.0, -0.4, 0.0], 0.05, 0.0, np.inf),  # later gains do not excuse an early loss
            ([-0.4, 0.0, 0.4, 0.2], 0.01, 0.75, 0.2),
        ],
    )
    def test_tuning_by_hand(self, losses, tolerance, share, threshold):
        full = np.full(4, 0.5)
        rule = tune_stop_rule(self.scores, full - losses, full, rank=3, tolerance=tolerance)
        assert rule.share == share
        assert rule.threshold == pytest.approx(threshold)
        assert rule.stops(self.scores).mean() == share
        assert rule.loss <= tolerance

    def test_queries_of_one_margin_stop_together(self):
        scores = np.array([[0.9, 0.5], [0.9, 0.5], [0.9, 0.9]])
        full = np.array([0.5, 0.5, 0.5])
        rule = tune_stop_rule(scores, np.array([0.5, 0.1, 0.5]), full, rank=2, tolerance=0.01)
        assert rule.share == 0.0 and np.isinf(rule.threshold)

    def test_queries_without_positives_do_not_count(self):
        full = np.array([np.nan, 0.5, 0.5, 0.5])
        assert tune_stop_rule(self.scores, full, full, rank=3).share == 1.0
        with pytest.raises(DataError):
            tune_stop_rule(self.scores, np.full(4, np.nan), full, rank=3)

    def test_only_hard_queries_are_searched_at_full_width(self):
        queries, corpus = unit(40, seed=1), unit(300)
        cheap, full, asked = Funnel(corpus, [4]), Funnel(corpus, [24]), []

        def spy(vectors, k):
            asked.append(len(vectors))
            return full(vectors, k)

        cheap_scores, cheap_found = cheap(queries, 10)
        rule = StopRule(10, float(np.median(margin(cheap_scores, 10))), 0.5, 0.0)
        clear = rule.stops(cheap_scores)
        found = stop_early(cheap, spy, rule)(queries, 5)[1]
        np.testing.assert_array_equal(found[clear], cheap_found[clear, :5])
        np.testing.assert_array_equal(found[~clear], full(queries[~clear], 5)[1])
        assert asked == [(~clear).sum()] and 0 < asked[0] < 40

    @pytest.mark.parametrize(("threshold", "dims"), [(-np.inf, [4]), (np.inf, [24])])
    def test_all_or_none_stop(self, threshold, dims):
        queries, corpus = unit(6, seed=1), unit(100)
        search_early = stop_early(Funnel(corpus, [4]), Funnel(corpus, [24]), StopRule(10, threshold, 0, 0))
        np.testing.assert_array_equal(search_early(queries, 10)[1], Funnel(corpus, dims)(queries, 10)[1])


def test_a_missing_shortlist_is_counted():
    with pytest.raises(ParameterError, match="expected 1 shortlists"):
        Funnel(unit(3), [8, 24])


def test_all_candidates_can_be_rescored():
    corpus, candidates = np.eye(3, dtype=np.float32), np.array([[2, 0, 1]])
    scores, found = rescore(np.array([[0.1, 0.3, 0.2]], np.float32), corpus, candidates, 3)
    assert found.tolist() == [[1, 2, 0]]
    np.testing.assert_allclose(scores, [[0.3, 0.2, 0.1]])
