"""Data card, closeness and filters, by hand-computed values."""

from dataclasses import replace

import numpy as np
import pytest

from embedlab.data.dataset import Dataset, Triplet
from embedlab.data.quality import closeness, data_card, drop_noisy, drop_repeats
from embedlab.errors import DataError, ParameterError

QUERIES = {
    "q1": "pain in the left knee",
    "q2": "Pain in the left knee!",
    "q3": "pain in the right knee joint",
    "q4": "broken arm",
    "q5": "sore throat",
}
CORPUS = {"a": "Knee pain", "b": "Fracture of arm", "c": "Pharyngitis", "d": "knee pain."}


def dataset(**changes):
    train = {"q1": {"a": 1}, "q2": {"a": 1}, "q3": {"a": 1, "b": 1}, "q4": {"b": 1}}
    qrels = {"train": train, "dev": {}, "test": {"q5": {"c": 1}}}
    return replace(Dataset("toy", CORPUS, QUERIES, qrels), **changes)


class TestCloseness:
    def test_by_hand(self):
        table = closeness([("Pain in the knee", "knee pain"), ("sore throat", "pharyngitis"), ("!", "a")])
        np.testing.assert_allclose(table["containment"], [0.5, 0, np.nan])
        np.testing.assert_allclose(table["jaccard"], [0.5, 0, 0])
        np.testing.assert_allclose(table["length"], [4, 2, 0])


class TestCard:
    def test_by_hand(self):
        table = data_card(dataset()).table
        assert list(table.columns) == ["train", "test"]
        train = table["train"]
        assert (train["queries"], train["pairs"], train["relevant documents"]) == (4, 5, 2)
        assert train["positives per query"] == 1.25
        assert train["words per query, median"] == 5
        # q1, q2: 2 of 5 words in a; q3: 2 of 6 in a, 0 of 6 in b; q4: 1 of 2 in b
        assert train["query words in the positive, mean"] == pytest.approx((2 / 5 + 2 / 5 + 2 / 6 + 0 + 1 / 2) / 5)
        assert train["pairs without a common word"] == 0.2
        assert train["near-identical queries"] == 2
        assert table.loc["pairs without a common word", "test"] == 1

    def test_warnings(self):
        few, twins = data_card(dataset(triplets=(Triplet("a", "b", "c"),))).warnings
        assert few.startswith("5 training pairs are few") and "1,000" in few
        assert twins.startswith("2 of 4 documents")

    def test_copied_queries_are_called_out(self):
        qrels = {"train": {"q": {"a": 1}}}
        card = data_card(Dataset("copy", {"a": "knee pain"}, {"q": "pain, knee"}, qrels))
        assert any("BM25" in warning for warning in card.warnings)

    def test_enough_data_does_not_warn(self):
        numbers = range(3000)
        corpus = {f"d{i}": f"answer {i}" for i in numbers}
        queries = {f"q{i}": f"question {i}" for i in numbers}
        data = Dataset("large", corpus, queries, {"train": {f"q{i}": {f"d{i}": 1} for i in numbers}})
        assert data_card(data).warnings == ()

    def test_nothing_judged(self):
        card = data_card(Dataset("none", {}, {}, {}))
        assert card.table.empty and card.warnings == ()


class TestRepeats:
    def test_the_first_of_each_is_kept_and_others_need_the_same_positives(self):
        clean, dropped = drop_repeats(dataset())
        assert list(dropped) == ["q2"] and "q1" in dropped["q2"]
        assert list(clean.qrels["train"]) == ["q1", "q3", "q4"]
        assert "q2" not in clean.queries and "q5" in clean.queries

    def test_near_repeats(self):
        queries = {"x": "one two three four five", "y": "two one three five four six", "z": "one two three four"}
        data = Dataset("toy", {"a": "t"}, queries, {"train": {q: {"a": 1} for q in queries}})
        # y shares 5 of 6 words with x and z 4 of 5, but y and z only 4 of 6: both repeat x.
        assert set(drop_repeats(data)[1]) == {"y", "z"}
        reversed_order = replace(data, qrels={"train": {q: {"a": 1} for q in ("z", "y", "x")}})
        assert set(drop_repeats(reversed_order)[1]) == {"x"}

    def test_a_word_apart_for_another_document_stays(self):
        text = "type {} diabetes mellitus with moderate nonproliferative retinopathy and macular edema"
        queries = {"1": text.format(1), "2": text.format(2)}
        data = Dataset("toy", {"a": "t", "b": "u"}, queries, {"train": {"1": {"a": 1}, "2": {"b": 1}}})
        assert drop_repeats(data)[1] == {}
        assert set(drop_repeats(replace(data, qrels={"train": {"1": {"a": 1}, "2": {"a": 1}}}))[1]) == {"2"}

    def test_twice_is_once(self):
        clean, _ = drop_repeats(dataset())
        assert drop_repeats(clean) == (clean, {})


class TestNoise:
    SCORES = {("q1", "a"): 0.9, ("q2", "a"): 0.8, ("q3", "a"): 0.1, ("q3", "b"): 0.7, ("q4", "b"): -0.2}

    def test_share_takes_the_worst_best_positive(self):
        clean, dropped = drop_noisy(dataset(), self.SCORES, share=0.25)
        assert list(dropped) == ["q4"] and "-0.200" in dropped["q4"]
        assert list(clean.qrels["train"]) == ["q1", "q2", "q3"] and list(clean.qrels["test"]) == ["q5"]

    def test_scores_from_a_function(self):
        _, dropped = drop_noisy(dataset(), lambda pairs: {pair: self.SCORES[pair] for pair in pairs}, share=0.5)
        assert set(dropped) == {"q3", "q4"}

    def test_the_best_positive_counts(self):
        scores = {**self.SCORES, ("q3", "a"): 0.99, ("q3", "b"): -1.0}
        assert set(drop_noisy(dataset(), scores, share=0.5)[1]) == {"q2", "q4"}

    def test_zero_share_drops_nothing(self):
        assert drop_noisy(dataset(), self.SCORES, share=0)[1] == {}

    def test_a_missing_score_is_named(self):
        with pytest.raises(DataError, match="'q4' and document 'b'"):
            drop_noisy(dataset(), {**self.SCORES, ("q4", "b"): float("nan")}, share=0.1)

    def test_share_outside_0_to_1(self):
        with pytest.raises(ParameterError, match="share must be between 0 and 1, got 1.5"):
            drop_noisy(dataset(), self.SCORES, share=1.5)
