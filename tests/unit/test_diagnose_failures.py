"""One miss of every cause, built by hand; the precedence where several rules hold."""

from __future__ import annotations

import numpy as np
import pytest

from embedlab.data.dataset import Dataset
from embedlab.evaluation.diagnose.failures import (
    CAUSES,
    NAMES,
    _acronyms,
    _identifiers,
    count_causes,
    missed_queries,
    recovered,
)
from embedlab.evaluation.metrics import Evaluation
from embedlab.models.encoders import Encoder
from embedlab.models.load import load_model
from embedlab.search.exact import Ranking

FILLER = {f"filler {n}": f"filler number {n * 'i'}" for n in range(1, 40)}
LONG = "The liver stores sugar and makes bile for the gut. " * 40  # over 400 tokens


@pytest.fixture(scope="module")
def encoder():
    model = load_model()
    return Encoder("base", embed=None, prompts={}, tokenizer=model.tokenizer, limit=64)


def miss(encoder, query, answers, above=(), *, rank=None, related=None, other_queries=()):
    """The row of a query whose `answers` {id: text} are ranked at `rank`, with the texts `above` ranked first."""
    fillers = list(FILLER)
    corpus = {**FILLER, **{f"above {n}": text for n, text in enumerate(above)}, **answers}
    found = ([f"above {n}" for n in range(len(above))] + fillers)[: 20 if rank is None else rank - 1]
    found += [next(iter(answers))] if rank is not None else []
    queries = {"q": query, **{f"other {n}": text for n, (text, _) in enumerate(other_queries)}}
    others = {f"other {n}": {answer: 1} for n, (_, answer) in enumerate(other_queries)}
    qrels = {"test": {"q": dict.fromkeys(answers, 1)}, "train": others}
    data = Dataset("made up", corpus, queries, qrels, related=related or {})
    places = [list(corpus).index(document) for document in found]
    ranking = Ranking(("q",), tuple(corpus), np.array([places]), -np.arange(len(places), dtype=np.float32)[None])
    missed = missed_queries(data, "test", ranking, encoder)
    assert len(missed) == 1
    return missed.iloc[0]


CASES = {
    "truncated or missing": {"query": "role of magnesium", "answers": {"a": LONG + "It needs magnesium."}},
    "ambiguous": {"query": "sugar high", "answers": {"a": "High sugar"}, "above": ["high SUGAR."], "rank": 11},
    "identifier": {"query": "what is E11.9", "answers": {"a": "Diabetes, code E11.9"}},
    "sibling above": {"query": "sugar", "answers": {"a": "high sugar in blood"}, "above": ["low sugar in blood"]},
    "rare word or acronym": {"query": "COPD in adults", "answers": {"a": "lung disease of adults"}},
    "no shared word": {"query": "heart attack", "answers": {"a": "myocardial infarction"}},
    "close": {"query": "high sugar", "answers": {"a": "sugar that is high"}, "rank": 12},
    "far": {"query": "high sugar", "answers": {"a": "sugar that is high"}},
}


@pytest.mark.parametrize("cause", NAMES)
def test_every_cause_has_its_case(encoder, cause):
    row = miss(encoder, **CASES[cause])
    assert row["cause"] == cause
    assert row[cause]


def test_earlier_causes_win_and_the_others_are_kept(encoder):
    row = miss(encoder, "heart attack", {"a": "myocardial infarction"}, rank=12)
    assert (row["cause"], row["close"], row["rank"]) == ("no shared word", True, 12)
    row = miss(encoder, "B12 low", {"a": "B12 is low"}, above=["B12 is high"])
    assert (row["cause"], row["sibling above"]) == ("identifier", False)  # 2 of 4 words, 50 %
    assert not row["far"]


class TestCut:
    def test_only_words_beyond_the_limit_count(self, encoder):
        assert not miss(encoder, "role of bile", {"a": LONG + "It makes bile."})["truncated or missing"]
        assert not miss(encoder, "role of magnesium", {"a": "It needs magnesium. " + LONG})["truncated or missing"]
        assert not miss(encoder, "role of iron", {"a": LONG})["truncated or missing"]

    def test_any_answer_that_is_cut_counts_but_all_must_be_missing(self, encoder):
        assert miss(encoder, "magnesium", {"a": "bile", "b": LONG + "magnesium"})["truncated or missing"]
        assert miss(encoder, "magnesium", {"a": "", "b": " ?"})["truncated or missing"]
        assert not miss(encoder, "magnesium", {"a": "", "b": "bile"})["truncated or missing"]

    def test_an_answer_outside_the_corpus_is_missing(self, encoder):
        data = Dataset("d", dict(FILLER), {"q": "magnesium"}, {"test": {"q": {"gone": 1}}})
        ranking = Ranking(("q",), tuple(FILLER), np.array([[0, 1]]), np.zeros((1, 2), np.float32))
        assert missed_queries(data, "test", ranking, encoder)["cause"].tolist() == ["truncated or missing"]

    def test_the_prompt_takes_its_part_of_the_limit(self, encoder):
        part = encoder.part_read(LONG)
        prompted = encoder.with_prompts("||passage of a book: ").part_read(LONG)
        assert LONG.startswith(part) and LONG.startswith(prompted)
        assert 0 < len(prompted) < len(part) < len(LONG)
        assert encoder.part_read("short") == "short"
        for text in (part, "passage of a book: " + prompted):
            assert len(encoder.tokenizer(text)["input_ids"]) == 64


class TestAmbiguous:
    def test_another_query_that_reads_the_same_with_other_answers(self, encoder):
        answers = {"a": "sugar that is high"}
        same = miss(encoder, "high sugar", answers, other_queries=[("High sugar!", "filler 1")])
        assert same["ambiguous"]
        assert not miss(encoder, "high sugar", answers, other_queries=[("High sugar!", "a")])["ambiguous"]

    def test_a_twin_below_the_first_ten_is_not_why_it_missed(self, encoder):
        corpus = {**FILLER, "twin": "bile", "a": "bile"}
        places = [*range(11), len(corpus) - 2]
        data = Dataset("d", corpus, {"q": "gall"}, {"test": {"q": {"a": 1}}})
        ranking = Ranking(("q",), tuple(corpus), np.array([places]), np.zeros((1, 12), np.float32))
        assert not missed_queries(data, "test", ranking, encoder)["ambiguous"].any()


def test_related_documents_are_siblings_whatever_they_read(encoder):
    case = {"query": "sugar", "answers": {"a": "diabetes"}, "above": ["unlike"]}
    assert not miss(encoder, **case)["sibling above"]
    assert miss(encoder, **case, related={"above 0": frozenset({"a"})})["sibling above"]


def test_rare_words_that_an_answer_has_are_no_cause(encoder):
    assert miss(encoder, "pneumonoultramicroscopy test", {"a": "test of lungs"})["rare word or acronym"]
    assert not miss(encoder, "pneumonoultramicroscopy", {"a": "Pneumonoultramicroscopy!"})["rare word or acronym"]
    assert not miss(encoder, "COPD", {"a": "copd"})["rare word or acronym"]


@pytest.mark.parametrize(
    "text, acronyms",
    [("COPD in adults", {"copd"}), ("NSAIDs and CT", {"nsaids", "ct"}), ("ALL CAPITALS", set()), ("COPD", {"copd"}),
     ("A cold", set()), ("Adult Disease", set()), ("MCADD2", {"mcadd2"}),
     ("HIV感染", {"hiv"}), ("慢性COPDの治療", {"copd"})],
)  # fmt: skip
def test_acronyms(text, acronyms):
    assert _acronyms(text) == acronyms


@pytest.mark.parametrize(
    "text, identifiers",
    [
        ("code E11.9 or B12", {"e11.9", "b12"}),
        ("HIV-2, version 3.5.1", {"hiv-2", "3.5.1"}),
        ("type 2, the 2nd of 12", set()),
        ("order 20456", {"20456"}),
        ("np.argsort_2d fails", {"argsort_2d"}),
        ("well-known", set()),
        ("E11.9型糖尿病", {"e11.9"}),
        ("กลุ่มB12ใหม่", {"b12"}),
    ],
)
def test_identifiers(text, identifiers):
    assert _identifiers(text) == identifiers


def test_hits_and_queries_without_answers_are_no_misses(encoder):
    corpus = {"a": "bile", "b": "gall"}
    qrels = {"test": {"hit": {"a": 1}, "none": {}, "judged not": {"a": 0}, "second": {"gone": 1, "b": 2}}}
    data = Dataset("d", corpus, dict.fromkeys(qrels["test"], "x"), qrels)
    ranking = Ranking(tuple(qrels["test"]), ("a", "b"), np.array([[0, 1]] * 4), np.zeros((4, 2), np.float32))
    missed = missed_queries(data, "test", ranking, encoder)
    assert missed.empty
    counts = count_causes(missed)
    assert counts["n"].sum() == 0 and counts["share"].isna().all() and list(counts["cause"]) == list(NAMES)


def test_the_tenth_place_is_found_and_the_eleventh_is_not(encoder):
    corpus = dict(list(FILLER.items())[:11])
    data = Dataset("d", corpus, {"q": "x", "r": "x"}, {"test": {"q": {"filler 10": 1}, "r": {"filler 11": 1}}})
    places = np.tile(np.arange(11), (2, 1))
    ranking = Ranking(("q", "r"), tuple(corpus), places, np.zeros((2, 11), np.float32))
    missed = missed_queries(data, "test", ranking, encoder)
    assert missed[["query_id", "rank"]].values.tolist() == [["r", 11]]


def test_an_empty_ranking_misses_and_says_so(encoder):
    data = Dataset("d", {"a": "bile"}, {"q": "bile"}, {"test": {"q": {"a": 1}}})
    ranking = Ranking(("q",), ("a",), np.array([[-1]]), np.array([[-np.inf]], np.float32))
    row = missed_queries(data, "test", ranking, encoder).iloc[0]
    assert (row["cause"], row["best_found"]) == ("far", None) and np.isnan(row["rank"])


def test_recovered_by_hand(encoder):
    import pandas as pd

    missed = pd.DataFrame({"query_id": ["q", "r", "s"], "cause": ["far", "close", "far"]})
    better = Evaluation(("q", "r", "s", "t"), {"recall@10": np.array([1.0, 0.0, np.nan, 1.0])}, 1)
    table = recovered(missed, {"hybrid": better})
    assert table.values.tolist() == [["close", 1, 0], ["far", 2, 1]]
    assert recovered(missed.iloc[:0], {"hybrid": better}).empty


def test_counts_add_up(encoder):
    rows = [miss(encoder, **case) for case in CASES.values()]
    import pandas as pd

    counts = count_causes(pd.DataFrame(rows)).set_index("cause")
    assert counts["n"].tolist() == [1] * len(CAUSES)
    assert counts["share"].sum() == pytest.approx(1)
    assert (counts["holds"] >= counts["n"]).all()
