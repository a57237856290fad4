"""Overlap measures by hand and by their definition; every reason to hold, one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from embedlab.deploy.build import Source, build_version
from embedlab.deploy.indexes import IndexSpec
from embedlab.deploy.serve import open_version
from embedlab.deploy.shadow import (
    Limits,
    QueryLog,
    Side,
    compare_rankings,
    overlap_at_k,
    rbo,
    read_query_log,
    shadow_test,
)
from embedlab.deploy.space import SpaceMismatch
from embedlab.errors import DataError
from embedlab.search.exact import Ranking
from tests.unit.test_deploy_space import FakeEncoder


def test_overlap_by_hand():
    assert overlap_at_k(["a", "b", "c"], ["c", "a", "x"], 3) == pytest.approx(2 / 3)
    assert overlap_at_k(["a", "b", "c"], ["c", "a", "x"], 1) == 0
    assert overlap_at_k(["a", None], ["a", "b"], 2) == 0.5
    assert math.isnan(overlap_at_k([None], [None], 1))


def test_rbo_by_hand():
    """Agreements at depths 1, 2, 3: 1, 1/2, 2/3; the last one goes on for ever."""
    p = 0.5
    expected = (1 - p) * (1 + 1 / 2 * p + 2 / 3 * p**2) + 2 / 3 * p**3
    assert rbo(["a", "b", "c"], ["a", "c", "d"], p) == pytest.approx(expected)


def slow_rbo(long, short, p, depth=4000):
    """Definition: (1 - p) Σ p^(d-1) A_d, unseen ranks go on agreeing as the last seen one does."""
    s, total = len(short), 0.0
    overlap = [len(set(long[:d]) & set(short[:d])) for d in range(len(long) + 1)]
    at_s = overlap[s] / s
    for d in range(1, depth + 1):
        if d <= s:
            agreement = overlap[d] / d
        elif d <= len(long):
            agreement = (overlap[d] + at_s * (d - s)) / d
        else:
            last = len(long)
            agreement = (overlap[last] + at_s * (last - s)) / last
        total += (1 - p) * p ** (d - 1) * agreement
    return total


@pytest.mark.parametrize("p", [0.5, 0.9, 0.98])
def test_rbo_is_its_definition_for_lists_of_any_length(p):
    rng = np.random.default_rng(0)
    for _ in range(50):
        pool = [str(number) for number in range(15)]
        long = list(rng.permutation(pool)[: rng.integers(4, 12)])
        short = list(rng.permutation(pool)[: rng.integers(1, len(long) + 1)])
        assert rbo(long, short, p) == pytest.approx(slow_rbo(long, short, p), abs=1e-9)
        assert rbo(short, long, p) == pytest.approx(rbo(long, short, p))
        assert 0 <= rbo(long, short, p) <= 1


def test_rbo_properties():
    letters = list("abcdefgh")
    assert rbo(letters, letters) == pytest.approx(1)
    assert rbo(letters, letters[:3]) == pytest.approx(1)  # nothing seen disagrees
    assert rbo(letters, list("ijklmnop")) == 0
    assert rbo(letters, list("bacdefgh")) < rbo(letters, list("abcdefhg"))  # the top weighs most
    assert rbo(["a", "b", None], ["a", "b"]) == pytest.approx(1)
    assert math.isnan(rbo([None], ["a"]))


QUERIES = {f"q{i}": f"query {i}" for i in range(60)}
LOG = QueryLog(QUERIES, frozenset(["q0"]))
DOCS = tuple(f"d{i}" for i in range(60)) + ("x", "y", "z")


def ranking(first):
    """Row i answers with document first(i), then x, y, z; None leaves the row empty."""
    indices = np.array([[first(i) if first(i) is not None else -1, 60, 61, 62] for i in range(60)])
    indices[indices[:, 0] < 0] = -1
    return Ranking.from_search(list(QUERIES), DOCS, np.where(indices < 0, -np.inf, [[4.0, 3, 2, 1]]), indices)


RIGHT = {f"q{i}": {f"d{i}": 1} for i in range(60)}
GOOD, BAD = ranking(lambda i: i), ranking(lambda i: (i + 1) % 60)


def compare(current, candidate, *, latency=(1.0, 1.0), qrels=RIGHT, **limits):
    return compare_rankings(current, candidate, LOG, latency=latency, qrels=qrels, k=4, limits=Limits(**limits))


def test_better_is_promoted_with_its_grounds():
    report = compare(BAD, GOOD)
    assert report.verdict == "promote" and report.difference.mean == pytest.approx(1)
    assert "nDCG@4 changes by +1.000" in report.grounds[0] and len(report.grounds) == 4
    assert (report.per_query["overlap"] == 0.75).all()


def test_worse_is_held_and_so_is_a_loss_within_the_interval():
    report = compare(GOOD, BAD)
    assert report.verdict == "hold" and "nDCG@4 changes by -1.000" in report.holds[0]
    slightly = ranking(lambda i: i if i not in (5, 9) else 62 - i)  # 2 of 60 lost: -0.033, interval beyond -0.05
    report = compare(GOOD, slightly, margin=0.05)
    assert report.difference.low < -0.05 < report.difference.mean < 0 and report.verdict == "hold"
    assert compare(GOOD, slightly, margin=0.15).verdict == "promote"


def test_newly_empty_answers_hold():
    report = compare(GOOD, ranking(lambda i: None if i == 7 else i), margin=0.5)
    assert report.holds == ("1 queries lose all their answers",)
    assert report.per_query.loc[report.per_query["newly_empty"], "query_id"].tolist() == ["q7"]
    empty_before = ranking(lambda i: None if i == 7 else i)
    assert compare(empty_before, GOOD).verdict == "promote"
    assert compare(empty_before, empty_before).verdict == "promote"


def test_a_high_risk_query_may_change_only_for_the_better():
    changed = ranking(lambda i: 33 if i == 0 else i)
    assert any("1 high-risk" in reason for reason in compare(GOOD, changed, margin=0.5).holds)
    assert compare(changed, GOOD).verdict == "promote"
    unjudged = {query: grades for query, grades in RIGHT.items() if query != "q0"}
    assert any("1 high-risk" in reason for reason in compare(changed, GOOD, qrels=unjudged).holds)


def test_slower_is_held():
    report = compare(GOOD, GOOD, latency=(1.0, 1.6))
    assert report.holds == ("p95 latency 1.60 ms is 1.60 times the current one",)
    assert compare(GOOD, GOOD, latency=(1.0, 1.5), slowdown=1.5).verdict == "promote"


def test_without_judgements_only_agreement_counts():
    assert compare(GOOD, GOOD, qrels=None).verdict == "promote"
    report = compare(GOOD, BAD, qrels=None, min_overlap=0.8)
    assert "nothing is judged and the mean overlap@4 is 0.75" in report.holds
    assert report.difference is None and report.per_query["current"].isna().all()


def test_replay_of_two_versions(tmp_path):
    documents = {f"d{i}": f"text {i}" for i in range(50)}
    encoders = FakeEncoder(), FakeEncoder(1)
    sides = []
    for encoder in encoders:
        version, _ = build_version(tmp_path, encoder, Source(documents.items()), IndexSpec(kind="flat"))
        sides.append(Side(open_version(tmp_path, version), encoder))
    log = QueryLog({f"q{i}": f"text {i}" for i in range(50)}, frozenset())
    qrels = {f"q{i}": {f"d{i}": 1} for i in range(50)}
    report = shadow_test(*sides, log, qrels=qrels, limits=Limits(slowdown=1e9))
    assert report.verdict == "promote" and report.difference.mean == 0
    assert 0.05 < report.per_query["overlap"].mean() < 0.5  # the answer itself, and chance
    assert (report.per_query["rbo"] > report.per_query["overlap"]).mean() > 0.9
    strict = Side(sides[1].served, encoders[1], floor=1.1)
    assert shadow_test(sides[0], strict, log).per_query["newly_empty"].all()
    with pytest.raises(SpaceMismatch):
        shadow_test(sides[0], Side(sides[1].served, encoders[0]), log)
    with pytest.raises(DataError, match="empty"):
        shadow_test(*sides, QueryLog({}, frozenset()))


def test_a_query_that_finds_itself_keeps_its_last_rank(tmp_path):
    """The query's own document comes first and its answer second: at k=1 the answer is what counts."""

    class TwoTexts(FakeEncoder):
        def encode_queries(self, texts):
            return np.array([[1, 0.0] if "query" in text else [0.8, 0.6] for text in texts], np.float32)

    encoder = TwoTexts(dimension=2)
    version, _ = build_version(
        tmp_path, encoder, Source([("q", "the query"), ("d", "its answer")]), IndexSpec(kind="flat")
    )
    side = Side(open_version(tmp_path, version), encoder)
    log, qrels = QueryLog({"q": "the query"}, frozenset()), {"q": {"d": 1}}
    report = shadow_test(side, side, log, qrels=qrels, k=1, limits=Limits(slowdown=1e9))
    assert report.per_query["current"].tolist() == [1.0]


def test_an_answer_at_the_floor_stays(tmp_path):
    """The floor is the lowest score that counts as an answer."""
    encoder = FakeEncoder()
    version, _ = build_version(tmp_path, encoder, Source([("d0", "text 0"), ("d1", "text 1")]), IndexSpec(kind="flat"))
    served, log = open_version(tmp_path, version), QueryLog({"q": "query"}, frozenset())
    best, second = served.rank(encoder, log.queries, 2).scores[0].tolist()
    for floor, kept in ((second, 2), (best, 1), (np.nextafter(np.float32(best), np.float32(2)), 0)):
        report = shadow_test(Side(served, encoder), Side(served, encoder, floor=float(floor)), log, k=2)
        assert report.per_query["overlap"].tolist() == [kept / 2]
        assert report.per_query["newly_empty"].tolist() == [kept == 0]


def test_query_log_from_a_file(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("query,high_risk\nfracture,no\ncholera,yes\nfracture,TRUE\n")
    assert read_query_log(path) == QueryLog(
        {"fracture": "fracture", "cholera": "cholera"}, frozenset({"cholera", "fracture"})
    )
    path.write_text("text\nfracture\n")
    with pytest.raises(DataError, match=r"log.csv:2 \[query\]"):
        read_query_log(path)
