"""Metrics against hand-computed values, pytrec_eval and a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from embedlab.errors import DataError, ParameterError
from embedlab.evaluation.metrics import evaluate
from embedlab.search.exact import Ranking

CUTOFFS = (1, 2, 3, 5, 10, 100)
TREC_NAMES = {"ndcg": "ndcg_cut", "recall": "recall", "precision": "P", "map": "map_cut"}

doc_ids = st.integers(0, 14).map(lambda number: f"d{number}")  # d10 sorts before d9, as strings do
runs = st.dictionaries(doc_ids, st.integers(-4, 4).map(lambda number: number / 8), max_size=15)
judgements = st.dictionaries(doc_ids, st.integers(0, 3), min_size=1, max_size=12)
collections = st.dictionaries(st.integers(0, 9).map(str), st.tuples(runs, judgements), min_size=1, max_size=6)


def trec_values(run, qrels):
    """Our metric name -> query -> value, computed by trec_eval."""
    wanted = {f"{name}.{','.join(map(str, CUTOFFS))}" for name in TREC_NAMES.values()} | {"recip_rank"}
    trec = pytrec_eval.RelevanceEvaluator(qrels, wanted).evaluate(run)
    values = {
        f"{ours}@{k}": {query: trec[query][f"{theirs}_{k}"] for query in trec}
        for ours, theirs in TREC_NAMES.items()
        for k in CUTOFFS
    }
    for k in CUTOFFS:  # trec_eval has no truncated reciprocal rank: a first hit beyond rank k counts 0
        first = {query: trec[query]["recip_rank"] for query in trec}
        values[f"mrr@{k}"] = {q: value if value and round(1 / value) <= k else 0.0 for q, value in first.items()}
    return values


def loop_ndcg(ranked, grades, k):
    gain = sum(grades.get(document, 0) / math.log2(rank + 1) for rank, document in enumerate(ranked[:k], 1))
    best = sorted(grades.values(), reverse=True)[:k]
    return gain / sum(grade / math.log2(rank + 1) for rank, grade in enumerate(best, 1))


def loop_map(ranked, grades, k):
    hits, total = 0, 0.0
    for rank, document in enumerate(ranked[:k], 1):
        if grades.get(document, 0) > 0:
            hits += 1
            total += hits / rank
    return total / sum(grade > 0 for grade in grades.values())


@settings(max_examples=150, deadline=None)
@given(collections)
def test_identical_to_trec_eval(collection):
    run = {query: scored for query, (scored, _) in collection.items()}
    qrels = {query: grades for query, (_, grades) in collection.items()}
    evaluation = evaluate(Ranking.from_scores(run, depth=100), qrels, CUTOFFS)
    answerable = [max(grades.values()) > 0 for grades in qrels.values()]
    assert evaluation.n_without_positives == len(qrels) - sum(answerable)
    for metric, by_query in trec_values(run, qrels).items():
        expected = [by_query[q] if ok else math.nan for q, ok in zip(run, answerable, strict=True)]
        np.testing.assert_allclose(evaluation.of(metric), expected, rtol=0, atol=1e-12, err_msg=metric)


def test_identical_to_trec_eval_on_a_large_run_of_real_valued_scores():
    rng = np.random.default_rng(0)
    corpus_ids = [f"d{number}" for number in range(5000)]
    indices = np.array([rng.choice(5000, 100, replace=False) for _ in range(60)])
    scores = np.sort(rng.standard_normal((60, 100)).astype(np.float32), axis=1)[:, ::-1]
    ranking = Ranking.from_search([f"q{i}" for i in range(60)], corpus_ids, scores, indices)
    qrels = {
        f"q{row}": {f"d{place}": int(rng.integers(0, 4)) for place in {*indices[row, ::7], *range(row, row + 3)}}
        for row in range(60)
    }
    run = {query: dict(found) for query, found in ranking.as_candidates().items()}
    evaluation = evaluate(ranking, qrels, CUTOFFS)
    assert evaluation.n == 60
    for metric, by_query in trec_values(run, qrels).items():
        np.testing.assert_allclose(evaluation.of(metric), list(by_query.values()), rtol=0, atol=1e-12, err_msg=metric)


def test_hand_computed():
    """Grades found by rank: 0, 2, unjudged, 1; one more positive of grade 3 is not found."""
    ranking = Ranking.from_scores({"q": {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6}})
    evaluation = evaluate(ranking, {"q": {"a": 0, "b": 2, "d": 1, "lost": 3}}, (1, 3, 4))
    gain = 2 / math.log2(3) + 1 / math.log2(5)
    ideal = 3 + 2 / math.log2(3) + 1 / math.log2(4)
    expected = {
        "ndcg@1": 0,
        "ndcg@4": gain / ideal,
        "recall@3": 1 / 3,
        "recall@4": 2 / 3,
        "precision@4": 2 / 4,
        "mrr@1": 0,
        "mrr@3": 1 / 2,
        "map@4": (1 / 2 + 2 / 4) / 3,
    }
    assert {metric: evaluation.mean(metric) for metric in expected} == pytest.approx(expected)


def test_gain_is_linear_in_the_grade():
    ranking = Ranking.from_scores({"q": {"low": 2.0, "high": 1.0}})
    ndcg = evaluate(ranking, {"q": {"low": 1, "high": 3}}, (2,)).mean("ndcg@2")
    assert ndcg == pytest.approx((1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)))
    exponential = (1 + 7 / math.log2(3)) / (7 + 1 / math.log2(3))
    assert abs(ndcg - exponential) > 0.05


def test_same_as_a_plain_loop():
    rng = np.random.default_rng(1)
    run = {f"q{q}": {f"d{d}": float(rng.random()) for d in rng.choice(40, 12, replace=False)} for q in range(30)}
    qrels = {f"q{q}": {f"d{d}": int(rng.integers(1, 4)) for d in rng.choice(40, 6, replace=False)} for q in range(30)}
    evaluation = evaluate(Ranking.from_scores(run, depth=40), qrels, (5, 12))
    for row, query in enumerate(run):
        ranked = sorted(run[query], key=lambda document: -run[query][document])
        for k in (5, 12):
            assert evaluation.of(f"ndcg@{k}")[row] == pytest.approx(loop_ndcg(ranked, qrels[query], k))
            assert evaluation.of(f"map@{k}")[row] == pytest.approx(loop_map(ranked, qrels[query], k))


def test_ties_are_broken_by_descending_id_as_a_string():
    ranking = Ranking.from_scores({"q": {"d10": 1.0, "d9": 1.0}})
    assert evaluate(ranking, {"q": {"d9": 1}}, (1,)).mean("recall@1") == 1
    assert evaluate(ranking, {"q": {"d10": 1}}, (1,)).mean("recall@1") == 0


def test_order_of_corpus_and_queries_does_not_matter():
    rng = np.random.default_rng(2)
    scores, indices = np.sort(rng.random((8, 10)))[:, ::-1], np.array([rng.permutation(30)[:10] for _ in range(8)])
    queries, corpus = [f"q{i}" for i in range(8)], [f"d{i}" for i in range(30)]
    qrels = {query: {f"d{d}": 1 for d in rng.choice(30, 4, replace=False)} for query in queries}
    plain = evaluate(Ranking.from_search(queries, corpus, scores, indices), qrels, (1, 10))
    documents, rows = rng.permutation(30), rng.permutation(8)
    shuffled = Ranking.from_search(
        [queries[row] for row in rows],
        [corpus[d] for d in documents],
        scores[rows],
        np.argsort(documents)[indices[rows]],
    )
    moved = evaluate(shuffled, dict(reversed(qrels.items())), (1, 10))
    for metric, values in plain.values.items():
        np.testing.assert_array_equal(moved.of(metric), values[rows])


def test_columns_need_not_be_sorted_by_score():
    scores, indices = np.array([[0.1, 0.9, 0.5]]), np.array([[0, 1, 2]])
    ranking = Ranking.from_search(["q"], ["a", "b", "c"], scores, indices)
    assert evaluate(ranking, {"q": {"b": 1}}, (1,)).mean("mrr@1") == 1


def test_queries_without_positives_are_counted_and_left_out():
    ranking = Ranking.from_scores({"good": {"a": 1.0}, "zero": {"a": 1.0}, "unjudged": {"a": 1.0}})
    evaluation = evaluate(ranking, {"good": {"a": 1}, "zero": {"a": 0}}, (1,))
    assert (evaluation.n, evaluation.n_without_positives) == (1, 2)
    for metric in ("ndcg@1", "recall@1", "precision@1", "mrr@1", "map@1"):
        assert evaluation.mean(metric) == 1
        assert np.isnan(evaluation.of(metric)).tolist() == [False, True, True]


def test_a_query_for_which_nothing_was_found_scores_zero():
    evaluation = evaluate(Ranking.from_scores({"q": {"a": 1.0}, "r": {}}), {"q": {"a": 1}, "r": {"a": 1}}, (1,))
    assert evaluation.of("ndcg@1").tolist() == [1, 0]
    nothing = evaluate(Ranking.from_scores({"q": {}}), {"q": {"a": 1}}, (1, 10))
    assert set(nothing.means().values()) == {0.0}


def test_no_query_with_positives_has_no_mean():
    evaluation = evaluate(Ranking.from_scores({"q": {"a": 1.0}}), {}, (1,))
    assert math.isnan(evaluation.mean("ndcg@1"))
    assert evaluation.n_without_positives == 1


def test_grades_below_one_are_not_relevant():
    ranking = Ranking.from_scores({"q": {"bad": 2.0, "good": 1.0}})
    assert evaluate(ranking, {"q": {"bad": -2, "good": 1}}, (2,)).mean("ndcg@2") == pytest.approx(1 / math.log2(3))


def test_a_judged_query_that_was_not_ranked_is_an_error():
    ranking = Ranking.from_scores({"q": {"a": 1.0}})
    with pytest.raises(DataError, match="1 judged queries are not in the ranking, 'r' first"):
        evaluate(ranking, {"q": {"a": 1}, "r": {"a": 1}}, (1,))
    assert evaluate(ranking, {"q": {"a": 1}, "r": {"a": 0}}, (1,)).n == 1


def test_a_cutoff_deeper_than_the_search_is_an_error():
    ranking = Ranking.from_search(["q"], list("abc"), np.ones((1, 2)), np.array([[0, 1]]))
    with pytest.raises(ParameterError, match="holds 2 documents per query, too few to score rank 10"):
        evaluate(ranking, {"q": {"c": 1}}, (1, 10))
    whole = Ranking.from_search(["q"], list("ab"), np.ones((1, 2)), np.array([[0, 1]]))
    assert evaluate(whole, {"q": {"a": 1}}, (10,)).mean("recall@10") == 1


@pytest.mark.parametrize("cutoffs", [(), (0, 1)])
def test_impossible_cutoffs(cutoffs):
    with pytest.raises(ParameterError, match="cutoffs"):
        evaluate(Ranking.from_scores({"q": {"a": 1.0}}), {"q": {"a": 1}}, cutoffs)


def test_unknown_metric_names_the_known_ones():
    evaluation = evaluate(Ranking.from_scores({"q": {"a": 1.0}}), {"q": {"a": 1}}, (1,))
    with pytest.raises(ParameterError, match="ndcg@1, recall@1"):
        evaluation.mean("ndcg@7")


def test_frame_keeps_every_query():
    evaluation = evaluate(Ranking.from_scores({"q": {"a": 1.0}, "r": {"a": 1.0}}), {"q": {"a": 1}}, (1,))
    frame = evaluation.frame()
    assert list(frame["query_id"]) == ["q", "r"]
    assert frame.columns.tolist() == ["query_id", "ndcg@1", "recall@1", "precision@1", "mrr@1", "map@1"]
    assert frame["ndcg@1"].isna().tolist() == [False, True]


@pytest.mark.parametrize("grade", [10**20, 10**400, 0.5, math.nan, math.inf, -(10**20)])
def test_a_grade_that_is_no_whole_number_or_too_large_is_refused(grade):
    with pytest.raises(DataError, match="query q, document a.*whole number of at most 1,000"):
        evaluate(Ranking.from_scores({"q": {"a": 1.0}}), {"q": {"a": grade}}, (1,))
