"""Sources of hard negatives: who ranks, who scores, and how several are mixed."""

from __future__ import annotations

import numpy as np
import pytest

from embedlab.data.dataset import Dataset
from embedlab.errors import DataError, ParameterError
from embedlab.search.exact import Ranking
from embedlab.search.ranking_file import write_ranking
from embedlab.search.vectors import Vectors as RealVectors
from embedlab.training.contrastive import negative_sources
from embedlab.training.contrastive.negative_sources import Rankers, Rescored, interleave, mine_sources
from embedlab.training.contrastive.train import ContrastiveParams

DOCUMENTS = ("pos", "a", "b", "c", "d")
DATASET = Dataset(
    name="by hand",
    corpus={name: f"text of {name}" for name in DOCUMENTS},
    queries={"q": "a query"},
    qrels={"train": {"q": {"pos": 1}}},
)
BASE = {"pos": 0.8, "a": 0.7, "b": 0.6, "c": 0.5, "d": -0.1}


class Found:
    def __init__(self, scores):
        self.scores = scores

    def as_candidates(self):
        return {"q": list(self.scores.items())}


class Vectors:
    """Stands in for a model's vectors; counts how often it was searched."""

    def __init__(self, scores):
        self.scores, self.asked = scores, 0

    def rank(self, k):
        self.asked += 1
        return Found(dict(sorted(self.scores.items(), key=lambda item: -item[1])[:k]))

    def pair_scores(self, pairs):
        return {(query, document): self.scores[document] for query, document in pairs}


def mine(sources, rankers=None, **settings):
    negatives, reports = mine_sources(DATASET, sources, rankers or Rankers(Vectors(BASE)), **settings)
    return negatives.get(("q", "pos")), reports


def test_base_model_by_hand():
    negatives, reports = mine(["base", "expert"], per_pair=2)
    assert negatives == ("a", "b")
    assert list(reports) == ["base"]


def test_experts_need_no_mining():
    base = Vectors(BASE)
    assert mine(["expert"], Rankers(base)) == (None, {})
    assert base.asked == 0


def test_bm25_keeps_its_order_and_is_judged_by_the_base_model():
    """BM25 does not find the positive at all, and ranks d first; a scores above 0.95 * 0.72 for the base model."""
    base = Vectors({**BASE, "pos": 0.72})
    negatives, reports = mine(
        ["bm25"], Rankers(base, lexical=lambda: Found({"d": 9.0, "a": 5.0, "c": 2.0})), per_pair=3
    )
    assert negatives == ("d", "c")
    assert reports["bm25"].too_close == 1


def ranked_file(folder, documents=("d", "a", "c"), query="q"):
    """A file as other systems write it, with scores of their own."""
    ranking = Ranking((query,), documents, np.arange(len(documents))[None], np.full((1, len(documents)), 9.0))
    write_ranking(ranking, folder / "ranked.parquet")
    return f"ranking:{folder / 'ranked.parquet'}"


def test_a_file_keeps_its_order_and_is_judged_by_the_base_model(tmp_path):
    base = Vectors({**BASE, "pos": 0.72})
    negatives, reports = mine([source := ranked_file(tmp_path)], Rankers(base), per_pair=3)
    assert negatives == ("d", "c")
    assert (reports[source].too_close, base.asked) == (1, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"documents": ("d", "x", "y")}, r"2 ranked documents are not in the corpus, for example 'x'"),
        ({"query": "other"}, r"it lacks 1 training queries, for example 'q'"),
    ],
)
def test_a_file_must_rank_this_corpus_for_these_queries(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        mine([ranked_file(tmp_path, **content)])


def test_cross_encoder_brings_order_and_scores():
    """It reads texts, prefers c, and finds b better than the positive."""
    opinion = {"text of pos": 0.5, "text of a": 0.1, "text of b": 0.9, "text of c": 0.4, "text of d": 0.0}
    read = []

    def load(name):
        assert name == "some/folder"
        return lambda pairs: (read.extend(pairs), np.array([[opinion[text]] for _, text in pairs]))[1]

    negatives, reports = mine(["cross-encoder:some/folder"], Rankers(Vectors(BASE), cross_encoder=load), per_pair=3)
    assert negatives == ("c", "a", "d")
    assert reports["cross-encoder:some/folder"].too_close == 1
    assert ("a query", "text of c") in read


def test_the_model_itself_is_the_base_model_until_it_is_given():
    current = Vectors({"pos": 0.9, "a": 0.1, "b": 0.2, "c": 0.3, "d": 0.8})
    assert mine(["self"])[0] == ("a",)
    assert mine(["self"], Rankers(Vectors(BASE), current=current))[0] == ("d",)
    assert mine(["base"], Rankers(Vectors(BASE), current=current))[0] == ("a",)


def test_base_model_as_guide_of_another_source():
    """The trained model wants a, which the base model ranks above the positive."""
    base, current = Vectors({**BASE, "pos": 0.65}), Vectors({"pos": 0.9, "a": 0.5, "b": 0.4, "c": 0.3, "d": 0.2})
    assert mine(["self"], Rankers(base, current=current))[0] == ("a",)
    negatives, reports = mine(["self"], Rankers(base, current=current), guided=True)
    assert negatives == ("b",)
    assert reports["self"].above_guide == 1


def test_sources_take_turns_and_nobody_comes_twice():
    pair = ("q", "p")
    assert interleave([{pair: ("a", "b")}, {pair: ("a", "c", "d")}], 4)[pair] == ("a", "b", "c", "d")
    assert interleave([{pair: ("a", "b")}, {pair: ("c",)}], 2)[pair] == ("a", "c")
    assert interleave([{pair: ()}, {pair: ("c",)}], 2)[pair] == ("c",)


def test_filters_reach_the_mining():
    assert mine(["base"], per_pair=9, skip_first=2, last_rank=4)[0] == ("b", "c")
    assert mine(["base"], per_pair=9, relative_margin=1.0, absolute_margin=0.25)[0] == ("c", "d")


def test_rescored_changes_no_order():
    doubled = Rescored({"q": [("a", 1.0), ("b", 2.0)]}, lambda pairs: dict.fromkeys(pairs, 3.0))
    assert doubled == {"q": [("a", 3.0), ("b", 3.0)]}


VALUES = {
    "dataset": "icd10cm:smoke",
    "model_name": "all-MiniLM-L6-v2",
    "epochs": 3.0,
    "batch_size": 128,
    "learning_rate": 2e-4,
    "matryoshka_dims": [384],
}


@pytest.mark.parametrize("value", [["base", "expert"], ["self", "bm25"], [], ["cross-encoder:a/folder"]])
def test_known_sources(value):
    assert ContrastiveParams.checked({**VALUES, "negatives": value}).use_triplets is ("expert" in value)


@pytest.mark.parametrize("change", [{"negatives": ["basis"]}, {"negatives": ["cross-encoder:"]}, {"loss": "info_nce"}])
def test_unknown_sources_and_losses_are_refused(change):
    with pytest.raises(ParameterError, match=next(iter(change))):
        ContrastiveParams.checked({**VALUES, **change})


def test_mining_settings_are_what_mining_takes():
    params = ContrastiveParams.checked({**VALUES, "loss": "gist", "hard_negatives": 2})
    assert params.mining() == {
        "per_pair": 2,
        "guided": True,
        "relative_margin": 0.95,
        "absolute_margin": 0.0,
        "skip_first": 0,
        "last_rank": 100,
    }
    assert not ContrastiveParams.checked(VALUES).mining()["guided"]


def test_large_searches_use_a_sample_and_score_every_pair(monkeypatch, caplog):
    """Two of five documents are searched by the model and by BM25; the positive's score needs no search."""
    monkeypatch.setattr(negative_sources, "PRODUCTS", 2)
    monkeypatch.setattr(negative_sources, "FEWEST", 1)
    vectors = real_vectors()
    rankers = Rankers.of(DATASET, vectors, vectors)
    searched = rankers.base.rank(5).as_candidates()["q"]
    assert len(searched) == 2
    assert searched == [pair for pair in vectors.rank(5).as_candidates()["q"] if pair[0] in dict(searched)]
    assert dict(rankers.current.rank(5).as_candidates()["q"]) == dict(searched)
    assert set(rankers.lexical().corpus_ids) == set(dict(searched))
    pairs = [("q", name) for name in DOCUMENTS]
    assert rankers.base.pair_scores(pairs) == vectors.pair_scores(pairs)
    assert "a sample of 2 of 5 documents" in caplog.text


def test_a_search_at_the_limit_uses_all_documents(monkeypatch):
    monkeypatch.setattr(negative_sources, "PRODUCTS", 5)
    monkeypatch.setattr(negative_sources, "FEWEST", 1)
    vectors = real_vectors()
    assert Rankers.of(DATASET, vectors).base is vectors


def real_vectors():
    scores = np.array(list(BASE.values()), dtype=np.float32)
    corpus = np.stack([scores, np.sqrt(1 - scores**2)], axis=1)
    return RealVectors(("q",), DOCUMENTS, np.array([[1, 0]], dtype=np.float32), corpus)


def test_rescored_candidates_are_scored_in_calls_of_many_queries(monkeypatch):
    monkeypatch.setattr(negative_sources, "QUERIES_PER_CALL", 2)
    candidates = {"a": [("x", 1.0), ("y", 0.5)], "b": [], "c": [("x", 0.25)]}
    calls = []

    def score(pairs):
        calls.append(list(pairs))
        return {pair: float(len(calls) + index) for index, pair in enumerate(pairs)}

    assert Rescored(candidates, score) == {"a": [("x", 1.0), ("y", 2.0)], "b": [], "c": [("x", 2.0)]}
    assert calls == [[("a", "x"), ("a", "y")], [("c", "x")]]
