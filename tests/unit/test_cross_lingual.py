"""Search across languages: glossary, character n-grams, quality by language, language bias."""

from __future__ import annotations

import numpy as np
import pytest

from embedlab.data.dataset import Dataset
from embedlab.errors import ParameterError
from embedlab.evaluation.cross_lingual import compare_systems, evaluate_systems, language_bias, quality_by_language
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.mteb_tasks import retrieval_task, run_task
from embedlab.evaluation.retrieval import evaluate_retrieval
from embedlab.evaluation.significance import bootstrap_ci
from embedlab.evaluation.slices import slice_means
from embedlab.evaluation.static_share import best_share
from embedlab.reporting.languages_report import draw_by_language, reading
from embedlab.search.across_languages import character_ranking, code_mixed, expand, learn_glossary
from embedlab.search.bm25 import bm25_ranking
from embedlab.search.exact import Ranking
from embedlab.search.vectors import Vectors

PAIRS = [
    ("rote Pumpe", "red pump"),
    ("rote Lampe", "red lamp"),
    ("neue Pumpe", "new pump"),
    ("neue Lampe", "new lamp"),
    ("水泵", "pump"),
]


class TestGlossary:
    def test_first_iteration_by_hand(self):
        """After one step from equal probabilities: each target word is shared equally by the words of its original.

        "pumpe" is in two pairs: red 1/2 + pump 1/2, new 1/2 + pump 1/2; so t(pump | pumpe) = 1/2, the others 1/4.
        """
        glossary = learn_glossary(*zip(*PAIRS, strict=True), iterations=1, min_probability=0)
        assert glossary["pumpe"] == pytest.approx({"pump": 1 / 2, "red": 1 / 4, "new": 1 / 4})
        assert glossary["水泵"] == {"pump": 1.0}
        assert next(iter(glossary["pumpe"])) == "pump"

    def test_equals_a_slow_reference(self):
        rng = np.random.default_rng(0)
        texts = [
            tuple(" ".join(f"{side}{n}" for n in rng.choice(6, 3, replace=False)) for side in "ab") for _ in "x" * 30
        ]
        t = {}
        for _ in range(4):
            counts, totals = {}, {}
            for source, target in texts:
                for e in target.split():
                    norm = sum(t.get((f, e), 1.0) for f in source.split())
                    for f in source.split():
                        counts[f, e] = counts.get((f, e), 0) + t.get((f, e), 1.0) / norm
            for (f, _), count in counts.items():
                totals[f] = totals.get(f, 0) + count
            t = {pair: count / totals[pair[0]] for pair, count in counts.items()}
        glossary = learn_glossary(*zip(*texts, strict=True), iterations=4, most=99, min_probability=0)
        assert {(f, e): p for f, found in glossary.items() for e, p in found.items()} == pytest.approx(t)

    def test_improbable_words_are_left_out(self):
        glossary = learn_glossary(*zip(*PAIRS, strict=True), iterations=20, min_probability=0.5)
        assert {word: list(found) for word, found in glossary.items()} == {
            **{"rote": ["red"], "pumpe": ["pump"], "lampe": ["lamp"], "neue": ["new"], "水泵": ["pump"]}
        }
        assert learn_glossary(["!"], ["?"]) == {} == learn_glossary([], [])

    def test_expansion_finds_the_translation(self):
        glossary = {"pumpe": {"pump": 0.9, "pumps": 0.1}}
        assert expand({"q": "Die Pumpe"}, glossary) == {"q": "Die Pumpe pump pumps"}
        corpus = {"lamp": "a red lamp", "pump": "a red pump"}
        ranking = bm25_ranking(corpus, expand({"q": "Die Pumpe"}, glossary), 2)
        assert ranking.as_candidates()["q"][0][0] == "pump"

    def test_code_mixed_queries(self):
        glossary = {"rote": {"red": 0.9}, "pumpe": {"pump": 0.9, "pumps": 0.1}, "lampe": {"lamp": 1.0}}
        queries = {"a": "Eine rote Pumpe, leckt", "b": "ganz anders"}
        (mixed,) = code_mixed(queries, glossary).values()
        assert mixed in ("Eine red Pumpe, leckt", "Eine rote pump leckt")
        assert code_mixed(queries, glossary, 1.0) == {"a": "Eine red pump leckt"}
        assert code_mixed(queries, glossary, 0.0) == {}


DATA = Dataset(
    "x",
    corpus={"a:en": "acute hepatitis", "b:en": "broken arm", "a:es": "hepatitis aguda", "b:es": "fémur"},
    queries={"a:es": "hepatitis aguda", "b:es": "fémur", "a:fr": "hépatite aiguë"},
    qrels={"test": {"a:es": {"a:en": 1}, "b:es": {"b:en": 1}, "a:fr": {"a:en": 1, "a:es": 1}}},
    fields={key: {"language": key[2:]} for key in ("a:en", "b:en", "a:es", "b:es", "a:fr")},
)


class TestCharacters:
    def test_words_that_look_alike_are_found_and_the_own_text_is_not(self):
        ranking = character_ranking(DATA, "test", 3)
        found = {
            query: [document for document, _ in candidates] for query, candidates in ranking.as_candidates().items()
        }
        assert found["a:es"][0] == "a:en" and "a:es" not in found["a:es"]
        assert set(found["a:fr"]) == {"a:en", "a:es"}  # accents do not matter; nothing is shared with the others
        assert found["b:es"] == []

    def test_scores_are_cosines(self):
        scores = character_ranking(DATA, "test", 4).scores
        assert np.all((scores <= 1 + 1e-6) | np.isneginf(scores)) and scores.max() > 0.2

    def test_depth(self):
        with pytest.raises(ParameterError):
            character_ranking(DATA, "test", 0)


def ranking(indices):
    """Ranks of every query as rows of documents; the others are empty."""
    indices = [row + [-1] * (len(DATA.corpus) - len(row)) for row in indices]
    scores = np.where(np.array(indices) >= 0, 1.0, -np.inf) - np.arange(len(indices[0])) / 10
    return Ranking.from_search(list(DATA.queries), list(DATA.corpus), scores, np.array(indices))


class TestByLanguage:
    def test_means_and_intervals_by_hand(self):
        table = slice_means(
            evaluate(ranking([[0], [0], [0]]), DATA.qrels["test"], [1]), DATA.fields, "language", "ndcg@1"
        )
        assert table[["slice", "n", "mean"]].to_dict("list") == {"slice": ["es", "fr"], "n": [2, 1], "mean": [0.5, 1.0]}
        interval = bootstrap_ci(np.array([1.0, 0.0]))
        assert (table["ci_low"][0], table["ci_high"][0]) == (interval.low, interval.high)

    def test_a_language_for_which_nothing_is_found_has_no_value(self):
        rankings = {"both": ranking([[0, 1], [1, 0], [3, 1]]), "some": ranking([[3, -1], [-1, -1], [-1, -1]])}
        table = quality_by_language(rankings, DATA.qrels["test"], DATA.fields).set_index(["system", "slice"])
        assert table["mean"]["both", "es"] == 1.0 and table["mean"]["both", "fr"] == 0.0
        assert table["mean"]["some", "es"] == 0.0 and np.isnan(table["mean"]["some", "fr"])
        assert table.loc[("some", "fr"), ["ci_low", "ci_high"]].isna().all()

    def test_figure_and_sentences(self):
        rankings = {"good": ranking([[0, 1], [1, 0], [2, 1]]), "bad": ranking([[3, 1], [1, 0], [-1, -1]])}
        table = quality_by_language(rankings, DATA.qrels["test"], DATA.fields)
        assert len(draw_by_language(table, ["good", "bad", "absent"]).axes[0].containers) == 2
        text = reading(table, "good", "bad")
        assert "highest for es (1.000)" in text and f"lowest for fr ({table['mean'].min():.3f})" not in text
        assert reading(table, "bad", "good").startswith("bad: nDCG@10 is highest for es (0.500), lowest for es")


def test_systems_on_another_dataset_by_hand():
    """One system finds every answer first, the other the wrong way round."""
    data = Dataset("x", {"a": "A", "b": "B"}, {"q": "Q", "r": "R"}, {"test": {"q": {"a": 1}, "r": {"b": 1}}})
    eye, own = np.eye(2, dtype=np.float32), frozenset()
    good, bad = (Vectors(("q", "r"), ("a", "b"), rows, eye, own) for rows in (eye, eye[::-1].copy()))
    found = evaluate_systems({"good": good, "bad": bad}, data)
    assert found["good"].mean("ndcg@10") == 1.0 and found["bad"].mean("ndcg@10") == pytest.approx(1 / np.log2(3))
    lost = compare_systems(found, "bad", "good")
    assert lost.mean == pytest.approx(1 / np.log2(3) - 1) and lost.n == 2


class TestBias:
    def test_shares_by_hand(self):
        table = language_bias(ranking([[2, 3, 0], [2, 0, 1], [0, -1, -1]]), DATA.fields, k=2).set_index("language")
        assert table["own_share"].to_dict() == {"es": 0.75, "fr": 0.0}  # 2 of 2 and 1 of 2
        assert table["corpus_share"].to_dict() == {"es": 0.5, "fr": 0.0}
        assert table["preference"]["es"] == 0.25 and table["n"].to_dict() == {"es": 2, "fr": 1}

    def test_empty_ranks_do_not_count(self):
        table = language_bias(ranking([[2, -1], [-1, -1], [0, 1]]), DATA.fields).set_index("language")
        assert table["own_share"]["es"] == 1.0 and table["n"]["es"] == 1

    def test_one_language_or_no_field_is_an_error(self):
        for fields in ({}, {key: {"language": "en"} for key in DATA.fields}):
            with pytest.raises(ParameterError, match="two languages"):
                language_bias(ranking([[0], [0], [0]]), fields)


def test_the_share_with_the_best_value_within_the_budget():
    on_dev, elsewhere = {0.3: 0.5, 0.5: 0.6, 0.9: 0.7}, {0.0: 0.40, 0.3: 0.42, 0.5: 0.391, 0.9: 0.389}
    assert best_share(on_dev, {}) == 0.9
    assert best_share(on_dev, elsewhere) == 0.5
    assert best_share(on_dev, dict.fromkeys(elsewhere, 0.1) | {0.0: 0.4, 0.3: 0.2}) == 0.3


def test_mteb_scores_a_mixed_corpus_as_we_do(tiny):
    """The own text of a query is left out by both."""
    ours = next(iter(evaluate_retrieval(tiny, DATA, "test").values()))
    theirs = run_task(tiny, retrieval_task(DATA))
    assert theirs.main_score == pytest.approx(ours.mean("ndcg@10"), abs=1e-5)
