"""Click logs: what clicks become when the truth is known, and one clear error for each malformed log."""

import json

import numpy as np
import pandas as pd
import pytest

from embedlab.data import click_model, clicks
from embedlab.data.click_log import ClickLog, read_log
from embedlab.data.click_model import examination, judge, relevance
from embedlab.data.click_simulation import attraction_from_qrels, kendall_by_query, simulate_clicks
from embedlab.data.load import load_dataset, source_fingerprint
from embedlab.errors import DataError

THETA = [1 / place for place in range(1, 9)]


def adverse_truth(queries=60, documents=8, seed=0):
    """The better a document, the lower the search engine ranks it more often than not."""
    rng = np.random.default_rng(seed)
    scores = {f"q{q}": np.sort(rng.uniform(0.05, 0.9, documents))[rng.permutation(documents)] for q in range(queries)}
    return {q: {f"{q}d{i}": float(gamma) for i, gamma in enumerate(values)} for q, values in scores.items()}


def simulated(truth, **options):
    queries = {query: f"query {query}" for query in truth}
    documents = {document: f"text {document}" for scored in truth.values() for document in scored}
    return simulate_clicks(queries, documents, truth, THETA, **{"sessions": 400, "seed": 1, **options})


def log_of(*rows):
    events = pd.DataFrame(rows, columns=["query", "document", "position", "impressions", "clicks"])
    queries, documents = dict.fromkeys(events["query"], "a query"), dict.fromkeys(events["document"], "a text")
    return ClickLog.from_events(queries, documents, events)


def bernoulli_em(counts, rounds=4000):
    """Textbook EM of the position-based model without a prior, as a slow reference."""
    pair = counts.groupby(["query", "document"]).ngroup().to_numpy()
    place = counts["position"].to_numpy() - 1
    shown, clicked = counts["impressions"].to_numpy(float), counts["clicks"].to_numpy(float)
    theta, gamma = np.linspace(1, 0.3, place.max() + 1), np.full(pair.max() + 1, 0.3)
    for _ in range(rounds):
        t, g = theta[place], gamma[pair]
        missed = (shown - clicked) / (1 - t * g)
        theta = np.bincount(place, clicked + missed * t * (1 - g)) / np.bincount(place, shown)
        gamma = np.bincount(pair, clicked + missed * g * (1 - t)) / np.bincount(pair, shown)
        theta /= theta[0]
    return theta


class TestModel:
    def test_examination_by_hand(self):
        # Twice the clicks in place 1 for the same documents, and place 3 half of place 2, only through document b.
        log = log_of(
            ("q", "a", 1, 1000, 400), ("q", "a", 2, 1000, 200), ("q", "b", 2, 1000, 100), ("q", "b", 3, 1000, 50)
        )
        assert examination(log).to_dict() == pytest.approx({1: 1.0, 2: 0.5, 3: 0.25}, abs=1e-5)

    def test_examination_is_recovered(self):
        estimated = examination(simulated(adverse_truth()))
        np.testing.assert_allclose(estimated, THETA, rtol=0.12)
        assert estimated.index.tolist() == list(range(1, 9)) and estimated.max() == 1

    def test_examination_agrees_with_textbook_em(self):
        log = simulated(adverse_truth(20), sessions=2000, shuffle=3)
        np.testing.assert_allclose(examination(log), bernoulli_em(log.counts), rtol=0.05)

    def test_corrected_clicks_recover_the_order_that_plain_ones_lose(self):
        truth = adverse_truth()
        log = simulated(truth)
        known = pd.Series(THETA, index=range(1, 9))
        naive, corrected, best = (
            kendall_by_query(truth, relevance(log, theta)).mean() for theta in (None, examination(log), known)
        )
        assert corrected > 0.75 > naive + 0.15
        assert corrected == pytest.approx(best, abs=0.03)

    def test_nothing_to_compare_is_nan_and_said(self, caplog):
        estimated = examination(simulated(adverse_truth(5), shuffle=0))
        assert estimated.notna().sum() == 1 and len(estimated) == 8
        assert "no estimate for positions" in caplog.text

    def test_impressions_at_places_without_estimate_do_not_count(self):
        log = log_of(("q", "a", 1, 100, 50), ("q", "a", 2, 100, 25), ("q", "b", 9, 100, 1))
        assert relevance(log, examination(log))["document"].tolist() == ["a"]

    def test_what_is_never_clicked_links_nothing(self):
        log = log_of(("q", "a", 1, 100, 50), ("q", "a", 2, 100, 25), ("q", "b", 2, 100, 0), ("q", "b", 3, 100, 0))
        assert examination(log).fillna(-1).to_dict() == pytest.approx({1: 1, 2: 0.5, 3: -1})

    def test_a_place_nobody_saw_links_nothing(self):
        log = log_of(("q", "a", 1, 100, 50), ("q", "a", 2, 0, 0), ("q", "b", 2, 90, 9))
        assert examination(log).fillna(-1).to_dict() == {1: 1, 2: -1}

    def test_few_good_documents_on_top_do_not_bend_theta(self):
        # The case that a prior on attraction gets wrong: what is ranked low is also worse than the average.
        truth = {f"q{q}": {f"q{q}d{i}": 0.7 if i == 0 else 0.05 for i in range(8)} for q in range(150)}
        np.testing.assert_allclose(examination(simulated(truth, sessions=1000)) / THETA, 1, atol=0.15)

    def test_no_clicks_at_all(self):
        log = log_of(("q", "a", 1, 100, 0), ("q", "a", 2, 100, 0))
        assert examination(log).isna().all()
        assert set(judge(log)["verdict"]) <= {""}
        assert set(judge(log, correct_position=False)["verdict"]) == {""}

    def test_smoothing_by_hand(self):
        log = log_of(("q", "a", 1, 30, 15), ("q", "b", 1, 70, 5))
        # The log's own rate is 20 / 100; ten examinations of prior: (10 * 0.2 + 15) / (10 + 30).
        assert relevance(log)["relevance"].tolist() == pytest.approx([17 / 40, 7 / 80])
        halved = relevance(log, pd.Series({1: 0.5}))
        assert halved["examined"].tolist() == [15, 35]
        assert halved["relevance"].tolist() == pytest.approx([19 / 25, 9 / 45])

    def test_a_rate_is_never_above_one(self):
        table = relevance(log_of(("q", "a", 1, 50, 50)), pd.Series({1: 0.1}))
        assert table["relevance"].tolist() == [1.0]

    def test_verdicts_need_evidence(self, monkeypatch):
        rows = [
            ("q", "liked", 1, 200, 100),
            ("q", "shown", 1, 400, 2),
            ("q", "rare", 1, 9, 9),
            ("q", "middle", 1, 40, 7),
        ]
        verdicts = judge(log_of(*rows)).set_index("document")["verdict"].to_dict()
        assert verdicts == {"liked": "positive", "shown": "negative", "rare": "", "middle": ""}
        monkeypatch.setattr(click_model, "MIN_IMPRESSIONS", 9)
        lower = judge(log_of(*rows)).set_index("document")["verdict"]
        assert lower["rare"] == "positive"

    def test_order_of_rows_does_not_matter(self):
        log = simulated(adverse_truth(10))
        mixed = ClickLog(log.queries, log.documents, log.counts.sample(frac=1, random_state=0))
        keys = ["query", "document"]
        first, other = (judge(each).sort_values(keys).reset_index(drop=True) for each in (log, mixed))
        pd.testing.assert_frame_equal(first, other, rtol=1e-4)


class TestSimulation:
    def test_counts_and_rates(self):
        truth = {"q": {"a": 0.5, "b": 0.2}}
        log = simulate_clicks({"q": "x"}, {"a": "y", "b": "z"}, truth, [1.0, 0.4], sessions=20_000, shuffle=0, seed=2)
        counts = log.counts.set_index("document")
        assert counts["impressions"].tolist() == [20_000, 20_000] and counts["position"].tolist() == [1, 2]
        np.testing.assert_allclose(counts["clicks"] / 20_000, [0.5, 0.08], atol=0.01)

    def test_only_so_many_places_are_shown(self):
        log = simulate_clicks({"q": "x"}, {}, {"q": dict.fromkeys("abcd", 0.5)}, [1.0, 0.5], sessions=50, shuffle=5)
        assert log.counts["position"].max() == 2 and log.counts["impressions"].sum() == 100
        assert set(log.counts["document"]) == set("abcd")

    def test_seed(self):
        truth = adverse_truth(3)
        pd.testing.assert_frame_equal(simulated(truth).counts, simulated(truth).counts)
        assert not simulated(truth).counts.equals(simulated(truth, seed=9).counts)

    def test_attraction_ranks_answers_over_relatives_over_the_rest(self):
        page = {"q": [(d, 0.0) for d in ("other", "near", "answer")]}
        truth = attraction_from_qrels(page, {"q": {"answer": 1}}, {"answer": frozenset({"near"})})
        assert list(truth["q"]) == ["other", "near", "answer"]
        assert 0.3 <= truth["q"]["answer"] <= 0.9
        assert 0.125 <= truth["q"]["near"] <= 0.375
        assert 0.025 <= truth["q"]["other"] <= 0.075

    def test_kendall_by_hand(self):
        truth = {"q": {"a": 0.1, "b": 0.2, "c": 0.3}, "lonely": {"a": 0.1}}
        table = pd.DataFrame({"query": "q", "document": list("abc"), "relevance": [1, 3, 2]})
        np.testing.assert_allclose(kendall_by_query(truth, table), [1 / 3, np.nan])


def write(path, rows):
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def aggregated(queries=30):
    """Each query's first document is clicked, its second is not."""
    return [
        {"query": f"how to {q}", "document": f"{kind} text {q}", "position": place, "impressions": 100, "clicks": count}
        for q in range(queries)
        for kind, counts in (("good", (60, 30)), ("bad", (2, 1)))
        for place, count in enumerate(counts, start=1)
    ]


class TestFiles:
    def test_dataset(self, tmp_path):
        path = write(tmp_path / "log.csv", aggregated())
        data = load_dataset(f"clicks:{path}")
        assert len(data.corpus) == 60 and len(data.queries) == 30
        assert all(data.corpus[d].startswith("good") for split in data.qrels for _, d in data.pairs(split))
        assert {len(part) for part in data.qrels.values()} == {23, 3, 4}
        assert len(data.triplets) == 23
        assert all(t.negative == t.positive.replace("good", "bad") for t in data.triplets)

    def test_small_logs_are_followed_by_advice(self, tmp_path, caplog):
        load_dataset(f"clicks:{write(tmp_path / 'log.csv', aggregated())}")
        assert "training pairs are few" in caplog.text

    def test_events_add_up_to_the_same_log_in_every_format(self, tmp_path):
        events = [
            {"query": "x", "document_id": 7, "document": "a text", "position": 1, "clicks": flag}
            for flag in (True, False, False, True)
        ]
        totals = [{"query": "x", "document_id": 7, "document": "a text", "position": 1, "impressions": 4, "clicks": 2}]
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
        pd.DataFrame(events).to_parquet(tmp_path / "b.parquet")
        write(tmp_path / "c.csv", events)
        write(tmp_path / "d.csv", totals)
        logs = [read_log(path) for path in sorted(tmp_path.iterdir())]
        assert all(log.counts.to_dict("list") == logs[0].counts.to_dict("list") for log in logs)
        assert logs[0].counts.loc[0, ["impressions", "clicks"]].tolist() == [4, 2]
        assert logs[0].documents == {"7": "a text"} and logs[0].queries == {"q0": "x"}

    def test_spellings_of_a_query_add_up(self, tmp_path):
        spellings = ["水泵 ABC", "水泵ＡＢＣ？", "Café pump", "CAFE\u0301 PUMP!", "C++", "C#"]
        rows = [{"query": text, "document": "d", "clicks": 1} for text in spellings]
        log = read_log(write(tmp_path / "log.csv", rows))
        assert list(log.queries.values()) == ["水泵 ABC", "Café pump", "C++", "C#"]
        assert log.counts["clicks"].tolist() == [2, 2, 1, 1]

    def test_texts_from_the_corpus_beside_it(self, tmp_path):
        lines = [{"_id": "d1", "title": "A", "text": "one"}, {"_id": "d2", "text": "two"}]
        (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        path = write(tmp_path / "log.csv", [{"query": "x", "document_id": "d1", "clicks": 1}])
        assert read_log(path).documents == {"d1": "A one", "d2": "two"}
        before = source_fingerprint(f"clicks:{path}")
        (tmp_path / "corpus.jsonl").write_text(json.dumps({"_id": "d1", "text": "other"}))
        assert source_fingerprint(f"clicks:{path}") != before

    def test_without_positions_clicks_stand_as_they_are(self, tmp_path):
        rows = [{"query": "x", "document": d, "impressions": 50, "clicks": c} for d, c in (("a", 40), ("b", 2))]
        log = read_log(write(tmp_path / "log.csv", rows))
        assert examination(log).to_dict() == {1: 1.0}
        assert judge(log)["verdict"].tolist() == ["positive", "negative"]

    def test_most_hard_negatives_are_the_most_shown(self):
        rows = [("q", "good", 1, 500, 400), *(("q", f"bad{i}", 1, 100 * (i + 1), 0) for i in range(5))]
        rows += [(f"other{i}", f"answer{i}", 1, 500, 400) for i in range(5)]
        log = ClickLog.from_events(
            {q: f"{q} words" for q, *_ in rows}, {d: d for _, d, *_ in rows},
            pd.DataFrame(rows, columns=["query", "document", "position", "impressions", "clicks"]),
        )  # fmt: skip
        verdicts = judge(log)
        data = clicks.to_dataset(log, verdicts, name="n")
        triplets = [t for t in data.triplets if t.query == "q words"]
        expected = [("q words", "good", f"bad{i}") for i in (4, 3, 2)] if "q" in data.qrels["train"] else []
        assert triplets == expected

    def test_no_document_answers_in_two_splits(self, tmp_path):
        shared = [{**row, "query": f"also {row['query']}"} for row in aggregated()]
        data = load_dataset(f"clicks:{write(tmp_path / 'log.csv', [*aggregated(), *shared])}")
        answers = [{d for _, d in data.pairs(split)} for split in ("train", "dev", "test")]
        assert len(set.union(*answers)) == sum(map(len, answers)) == 30
        assert sum(len(part) for part in data.qrels.values()) == 60


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"clicks": 5}, "clicks", "5 clicks are more than the 2 impressions"),
        ({"clicks": "many"}, "clicks", "clicks must be a whole number, 0 or more, got 'many'"),
        ({"clicks": -1}, "clicks", "must be a whole number"),
        ({"clicks": 0.5}, "clicks", "must be a whole number"),
        ({"impressions": "1.000"}, "impressions", "'1.000' can be read in two ways"),
        ({"impressions": "1,000"}, "impressions", "'1,000' can be read in two ways"),
        ({"position": 0}, "position", "must be 1 or more, got 0"),
        ({"position": ""}, "position", "must be a whole number"),
        ({"query": ""}, "query", "is empty"),
        ({"document": "", "document_id": ""}, "document", "is empty"),
        ({"document": "", "document_id": "d9"}, "document_id", "'d9' has no text"),
        ({"document": "another text"}, "document", "has two different texts"),
    ],
)
def test_malformed_rows_are_named(tmp_path, change, field, message):
    good = {"query": "x", "document_id": "d1", "document": "text", "position": 1, "impressions": 2, "clicks": 1}
    path = write(tmp_path / "log.csv", [good, {**good, **change}])
    with pytest.raises(DataError, match=message) as caught:
        read_log(path)
    assert (caught.value.file, caught.value.line, caught.value.field) == (path, 3, field)
    assert caught.value.remedy


def test_missing_columns_are_named(tmp_path):
    with pytest.raises(DataError, match="'clicks' is missing"):
        read_log(write(tmp_path / "log.csv", [{"query": "x", "document": "y"}]))
    with pytest.raises(DataError, match="'query' is missing"):
        read_log(write(tmp_path / "log.csv", [{"document": "y", "clicks": 1}]))


def test_pages_that_never_vary_say_what_to_do(tmp_path):
    rows = [row for row in aggregated() if (row["position"] == 1) == row["document"].startswith("bad")]
    path = write(tmp_path / "log.csv", rows)
    with pytest.raises(DataError, match="always shows its documents in the same order"):
        load_dataset(f"clicks:{path}")
    without = write(tmp_path / "plain.csv", [{**row, "position": 1} for row in rows])
    assert len(load_dataset(f"clicks:{without}").queries) == 30


def test_a_log_that_decides_nothing(tmp_path):
    path = write(tmp_path / "log.csv", [{"query": "x", "document": "y", "position": 1, "clicks": 1}])
    with pytest.raises(DataError, match="clearly more often") as caught:
        load_dataset(f"clicks:{path}")
    assert caught.value.file == path
