"""BM25 against its formula; fusion against hand-computed scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedlab.errors import DataError, ParameterError
from embedlab.search import bm25
from embedlab.search.bm25 import bm25_ranking
from embedlab.search.exact import Ranking
from embedlab.search.fusion import fuse_rrf, fuse_scores

CORPUS = {
    "d1": "cholera due to vibrio",
    "d2": "typhoid fever with heart involvement",
    "d3": "fever fever of unknown origin",
    "d4": "heart failure",
}


def ranking(*rows, corpus="abcd"):
    """A ranking from rows of (letter, score), in the order given; shorter rows leave places empty."""
    depth = max(map(len, rows))
    indices, scores = np.full((len(rows), depth), -1), np.full((len(rows), depth), -np.inf)
    for row, found in enumerate(rows):
        indices[row, : len(found)] = [corpus.index(letter) for letter, _ in found]
        scores[row, : len(found)] = [score for _, score in found]
    return Ranking.from_search([f"q{row}" for row in range(len(rows))], list(corpus), scores, indices)


def lucene_bm25(frequency, length, mean_length, containing, documents, k1=1.5, b=0.75):
    idf = math.log(1 + (documents - containing + 0.5) / (containing + 0.5))
    return idf * frequency / (frequency + k1 * (1 - b + b * length / mean_length))


def test_bm25_scores_follow_the_formula():
    corpus = {"d1": "fever heart", "d2": "fever fever cholera vibrio", "d3": "cholera"}
    found = dict(bm25_ranking(corpus, {"q": "fever"}, 3).as_candidates()["q"])
    mean_length = (2 + 4 + 1) / 3
    assert found == pytest.approx(
        {"d1": lucene_bm25(1, 2, mean_length, 2, 3), "d2": lucene_bm25(2, 4, mean_length, 2, 3)}, rel=1e-5
    )
    tuned = dict(bm25_ranking(corpus, {"q": "fever"}, 3, k1=0.9, b=0.4).as_candidates()["q"])
    assert tuned["d2"] == pytest.approx(lucene_bm25(2, 4, mean_length, 2, 3, k1=0.9, b=0.4), rel=1e-5)


def test_bm25_finds_only_documents_that_share_a_word():
    queries = {"two": "fever", "stemmed": "hearts failing fevers", "none": "xylophone", "stop": "of the with", "": ""}
    found = bm25_ranking(CORPUS, queries, 4)
    ids = {query: [name for name, _ in row] for query, row in found.as_candidates().items()}
    assert ids["two"] == ["d3", "d2"]
    assert set(ids["stemmed"]) == {"d2", "d3", "d4"}
    assert (ids["none"], ids["stop"], ids[""]) == ([], [], [])
    assert found.depth == 4
    assert found.corpus_ids == tuple(CORPUS)


def test_bm25_cuts_at_k_and_orders_ties_by_place():
    corpus = {f"d{number}": "heart failure" for number in range(300)} | {"other": "cholera"}
    found = bm25_ranking(corpus, {"q": "heart"}, 5)
    assert found.doc_ids.tolist() == [["d0", "d1", "d2", "d3", "d4"]]
    assert bm25_ranking(CORPUS, {"q": "heart"}, 100).depth == 4


def test_bm25_does_not_depend_on_the_order_of_the_corpus():
    queries = {"q": "typhoid heart fever"}
    plain = bm25_ranking(CORPUS, queries, 4).as_candidates()["q"]
    backwards = bm25_ranking(dict(reversed(CORPUS.items())), queries, 4).as_candidates()["q"]
    assert dict(plain) == pytest.approx(dict(backwards))
    assert [name for name, _ in plain] == [name for name, _ in backwards]


@pytest.mark.parametrize("corpus", [{}, {"d": ""}, {"d": "? !"}])
def test_bm25_needs_words(corpus):
    with pytest.raises(DataError, match="no document contains a word"):
        bm25_ranking(corpus, {"q": "fever"}, 3)


def test_rrf_by_hand():
    first = ranking([("a", 9.0), ("b", 8.0), ("c", 1.0)])
    second = ranking([("c", 0.3), ("a", 0.2)])
    fused = fuse_rrf([first, second], 4)
    assert fused.doc_ids.tolist() == [["a", "c", "b", None]]
    expected = [1 / 61 + 1 / 62, 1 / 63 + 1 / 61, 1 / 62, -np.inf]
    np.testing.assert_allclose(fused.scores, [expected], rtol=1e-6)
    assert fuse_rrf([first, second], 1).doc_ids.tolist() == [["a"]]


def test_rrf_uses_ranks_and_not_scores():
    first, second = ranking([("a", 9.0), ("b", 8.0)]), ranking([("b", 5.0), ("d", 1.0)])
    louder = ranking([("b", 5000.0), ("d", 1000.0)])
    np.testing.assert_array_equal(fuse_rrf([first, second], 3).indices, fuse_rrf([first, louder], 3).indices)
    assert fuse_rrf([first, second], 3, c=0).scores[0].tolist() == pytest.approx([1.5, 1.0, 0.5])  # b, a, d


def test_rrf_of_several_queries_keeps_them_apart():
    first = ranking([("a", 1.0)], [], [("d", 1.0)])
    second = ranking([("b", 1.0)], [], [("d", 1.0)])
    assert fuse_rrf([first, second], 2).doc_ids.tolist() == [["a", "b"], [None, None], ["d", None]]


def test_score_fusion_by_hand():
    """a: (10, 6, 2) scales to (1, 0.5, 0); b: (-1, -3) scales to (1, 0)."""
    first, second = ranking([("a", 10.0), ("b", 6.0), ("c", 2.0)]), ranking([("c", -1.0), ("d", -3.0)])
    fused = fuse_scores(first, second, 0.75)
    assert fused.doc_ids.tolist() == [["a", "b", "c"]]
    np.testing.assert_allclose(fused.scores, [[0.75, 0.375, 0.25]])
    deeper = fuse_scores(first, second, 0.75, k=10)
    assert deeper.doc_ids.tolist() == [["a", "b", "c", "d"]]


def test_score_fusion_ignores_shift_and_scale():
    first, second = ranking([("a", 3.0), ("b", 1.0), ("c", 0.0)]), ranking([("c", 7.0), ("b", 6.0), ("a", 1.0)])
    moved = ranking([("c", 17.0 * 4), ("b", 16.0 * 4), ("a", 11.0 * 4)])
    plain, scaled = fuse_scores(first, second, 0.3), fuse_scores(first, moved, 0.3)
    np.testing.assert_array_equal(plain.indices, scaled.indices)
    np.testing.assert_allclose(plain.scores, scaled.scores, rtol=1e-6)


def test_score_fusion_with_full_weight_is_the_one_ranking():
    first, second = ranking([("a", 3.0), ("b", 1.0)]), ranking([("b", 7.0), ("a", 6.0)])
    assert fuse_scores(first, second, 1).doc_ids.tolist() == [["a", "b"]]
    assert fuse_scores(first, second, 0).doc_ids.tolist() == [["b", "a"]]


def test_score_fusion_of_equal_scores_and_of_nothing():
    fused = fuse_scores(ranking([("b", 2.0)], []), ranking([], [("a", 4.0), ("c", 4.0)]), 0.5, k=2)
    assert fused.doc_ids.tolist() == [["b", None], ["a", "c"]]
    np.testing.assert_allclose(fused.scores, [[0.5, -np.inf], [0.5, 0.5]])


def test_fusion_refuses_rankings_of_different_things():
    with pytest.raises(DataError, match="differ in queries or corpus"):
        fuse_rrf([ranking([("a", 1.0)]), ranking([("a", 1.0)], corpus="abce")], 2)
    with pytest.raises(DataError):
        fuse_rrf([], 2)
    with pytest.raises(ParameterError, match="weight must be between 0 and 1, got 1.5"):
        fuse_scores(ranking([("a", 1.0)]), ranking([("a", 1.0)]), 1.5)
    with pytest.raises(ParameterError, match="k must be at least 1, got 0"):
        bm25_ranking(CORPUS, {"q": "fever"}, 0)


def test_many_equal_documents_come_in_corpus_order():
    """Every other one is longer and scores less."""
    corpus = {f"d{number}": "fracture" if number % 2 else "fracture bone density" for number in range(200)}
    expected = [f"d{number}" for number in (*range(1, 200, 2), *range(0, 200, 2))]
    assert bm25_ranking(corpus, {"q": "fracture"}, 200).doc_ids[0].tolist() == expected


def test_queries_without_a_common_word_rank_nothing_and_are_said(caplog):
    """Two of three queries: nothing at -inf; a query's own document leaves room for k others."""
    corpus = {"a": "red apple", "b": "green apple", "c": "apple pie", "q": "apple tree"}
    ranking = bm25_ranking(corpus, {"q": "apple tree", "x": "zzz", "y": "qqq"}, 2, own_documents=frozenset({"q"}))
    assert ranking.indices.shape == (3, 2) and 3 not in ranking.indices[0]
    assert np.isneginf(ranking.scores[1:]).all() and (ranking.indices[1:] == -1).all()
    assert "BM25 found no common word in 2 of 3 queries. As a baseline it is weak here." in caplog.text


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]), min_size=1, max_size=60), st.integers(1, 12))
def test_best_matches_equal_those_of_a_stable_sort(scores, k):
    by_score = sorted((-score, row) for row, score in enumerate(scores) if score > 0)[:k]
    rows, best = bm25._best_matches(np.array(scores, dtype=np.float32), k)
    assert list(zip(-best, rows, strict=True)) == by_score
