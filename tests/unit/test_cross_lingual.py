"""Search across languages: glossary, character n-grams, quality by language, language bias."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embedlab.data.dataset import Dataset
from embedlab.errors import ParameterError
from embedlab.evaluation import cross_lingual
from embedlab.evaluation.cross_lingual import (
    compare_systems,
    directions,
    evaluate_systems,
    language_bias,
    quality_by_direction,
    quality_by_field,
    quality_by_language,
)
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.mteb_tasks import cross_lingual_task, retrieval_task, run_task
from embedlab.evaluation.retrieval import evaluate_retrieval
from embedlab.evaluation.significance import bootstrap_ci
from embedlab.evaluation.slices import slice_means
from embedlab.reporting.languages_report import directions_reading, draw_by_language, reading
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

    def test_code_mixed_queries_in_scripts_without_spaces(self):
        """Pairs of characters are replaced; the rest stays as it was."""
        glossary = learn_glossary(
            *zip(*[("急性肝炎", "acute hepatitis"), ("急性胃炎", "acute gastritis")], strict=True)
        )
        assert next(iter(glossary["急性"])) == "acute"
        assert code_mixed({"q": "急性肺炎（A）"}, {"急性": {"acute": 1.0}}, 0.4) == {}  # less than half of one is none
        assert code_mixed({"q": "急性肺炎（A）"}, {"急性": {"acute": 1.0}}, 1.0) == {"q": "acute 肺炎（A）"}
        assert code_mixed({"q": "急急性"}, {"急性": {"acute": 1.0}}, 1.0) == {"q": "急 acute"}
        thai = {"โร": {"disease": 1.0}}
        assert code_mixed({"q": "โรคตับ"}, thai, 1.0) == {"q": "disease คตับ"}
        assert code_mixed({"q": "급성 간염"}, {"급성": {"acute": 1.0}}, 1.0) == {"q": "acute 간염"}

    def test_at_most_so_many_and_a_larger_sample_contains_the_smaller(self):
        queries = {str(number): "rote Pumpe" for number in range(9)}
        few, more = (code_mixed(queries, {"rote": {"red": 1.0}}, 1.0, most=most) for most in (2, 5))
        assert len(few) == 2 and len(more) == 5 and few.items() <= more.items()


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

    def test_marks_of_other_scripts_stay(self):
        """Without its marks, ガス would be カス, and the Thai word another one."""
        corpus = {"1": "ガス", "2": "カス", "3": "ปู่", "4": "ปี", "5": "Ménière"}
        queries = {"ga": "ガス", "thai": "ปู่", "latin": "meniere"}
        data = Dataset("x", corpus, queries, {"test": {query: {"1": 1} for query in queries}})
        found = character_ranking(data, "test", 5).as_candidates()
        assert [found[query][0][0] for query in queries] == ["1", "3", "5"]
        assert found["ga"][0][1] > 0.99 and dict(found["ga"]).get("2", 0) < 0.5 and "4" not in dict(found["thai"])

    def test_no_common_letters_at_all_is_not_a_value(self):
        data = Dataset("x", {"d": "acute hepatitis"}, {"q": "急性肝炎"}, {"test": {"q": {"d": 1}}})
        ranking = character_ranking(data, "test", 1)
        assert not ranking.measurable and np.isnan(evaluate(ranking, data.qrels["test"], [1]).mean("ndcg@1"))
        assert character_ranking(DATA, "test", 1).measurable

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

    def test_systems_by_a_field(self):
        of_both = {
            name: evaluate(ranking(rows), DATA.qrels["test"])
            for name, rows in {"good": [[0, 1], [1, 0], [2, 1]], "bad": [[3, 1], [1, 0], [-1, -1]]}.items()
        }
        table = quality_by_field(of_both, DATA.fields).set_index(["system", "slice"])
        assert table["mean"]["good", "es"] == 1.0 and table["mean"]["bad", "es"] == 0.5
        assert table["n"].to_list() == [2, 1, 2, 1]
        assert quality_by_field({}, DATA.fields).empty

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


NAMED = ("en", "de", "ja")
NAMES = Dataset(  # of four terms; a and b are held out
    "names",
    corpus={f"{term}:en": f"{term} in English" for term in "abcd"},
    queries={f"{term}:{name}": f"{term} in {name}" for term in "abcd" for name in ("de", "ja")},
    qrels={
        "train": {"c:de": {"c:en": 1}, "d:de": {"d:en": 1}, "c:ja": {"c:en": 1}, "d:ja": {"d:en": 1}},
        "test": {"a:de": {"a:en": 1}, "b:de": {"b:en": 1}, "a:ja": {"a:en": 1}},
    },
    fields={
        f"{term}:{name}": {"language": name, "pair": f"{name}-en"} for term in "abcd" for name in ("en", "de", "ja")
    },
    codes={f"{term}:{name}": (term.upper(),) for term in "abcd" for name in ("en", "de", "ja")},
)


class TestDirections:
    def test_both_directions_by_hand(self):
        found = {direction.name: direction for direction in directions(NAMES)}
        assert {name: direction.kind for name, direction in found.items()} == {
            **{"de-en": "X to en", "ja-en": "X to en", "en-de": "en to X", "en-ja": "en to X"}
        }
        assert found["de-en"].data.split_queries("test") == {"a:de": "a in de", "b:de": "b in de"}
        assert found["de-en"].data.corpus == NAMES.corpus
        back = found["en-ja"].data
        assert back.split_queries("test") == {"a:en": "a in English"}
        assert back.corpus == {f"{term}:ja": f"{term} in ja" for term in "abcd"}
        assert back.qrels == {"test": {"a:en": {"a:ja": 1}}}

    def test_the_corpus_is_as_large_in_every_direction_and_has_the_answers(self):
        for direction in directions(NAMES, max_docs=3):
            assert len(direction.data.corpus) == 3
            assert {d for _, d in direction.data.pairs("test")} <= direction.data.corpus.keys()

    def test_search_within_a_language_asks_about_held_out_diseases_only(self, monkeypatch):
        within = Dataset(
            "within",
            corpus={"A": "name of a", "C": "name of c", "D": "without a code"},
            queries={"1": "like a", "2": "like c", "3": "also a", "4": "nobody knows"},
            qrels={"test": {"1": {"A": 1}, "2": {"C": 1}, "3": {"A": 1}, "4": {"D": 1}}},
            codes={"A": ("A",), "C": ("C",)},
        )
        asked = []
        monkeypatch.setattr(cross_lingual, "load_dataset", lambda spec, **_: asked.append(spec) or within)
        found = [x for x in directions(NAMES, ["multi:{}-{}", "one"]) if x.kind == "X to X"]
        assert asked == ["multi:de-de", "multi:ja-ja", "multi:en-en", "one"]
        assert [direction.name for direction in found] == ["de-de", "ja-ja", "en-en", "one"]
        assert all(list(direction.data.qrels["test"]) == ["1", "3"] for direction in found)
        nothing = replace(within, codes={"A": ("X",), "C": ("C",)})
        monkeypatch.setattr(cross_lingual, "load_dataset", lambda spec, **_: nothing)
        with pytest.raises(ParameterError, match="no test query of within is about a disease of the test split"):
            directions(NAMES, ["one"])

    def test_without_codes_all_queries_are_kept(self, monkeypatch):
        within = replace(NAMES, codes={})
        monkeypatch.setattr(cross_lingual, "load_dataset", lambda spec, **_: within)
        assert directions(NAMES, ["one"])[-1].data.qrels["test"].keys() == NAMES.qrels["test"].keys()

    def test_a_dataset_without_languages_is_an_error(self):
        with pytest.raises(ParameterError, match="need the field 'language'"):
            directions(replace(NAMES, fields={}))

    def test_mteb_scores_every_direction_as_we_do(self, tiny):
        for direction in directions(NAMES):
            task = cross_lingual_task(direction.data)
            assert list(task.metadata.eval_langs) == [direction.name]
            ours = next(iter(evaluate_retrieval(tiny, direction.data, "test").values()))
            assert run_task(tiny, task).main_score == pytest.approx(ours.mean("ndcg@10"), abs=1e-5)

    def test_table_and_sentences(self):
        found = directions(NAMES)
        perfect, wrong = (evaluate(ranking_of(found[0].data, place), found[0].data.qrels["test"]) for place in (0, 1))
        evaluations = {direction.name: {"good": perfect, "bad": wrong} for direction in found}
        table = quality_by_direction(found, evaluations)
        assert table[["kind", "direction", "texts", "system", "n"]].iloc[0].to_list() == [
            "X to en",
            "de-en",
            4,
            "good",
            2,
        ]
        assert table["mean"].to_list() == pytest.approx([1.0, 1 / np.log2(3)] * 4)
        first, second = directions_reading(table, "good", "bad").split("\n")
        assert first == "X to en: mean nDCG@10 of 2 tasks 1.000 for good, 0.631 for bad; lowest for de-en (1.000)."
        assert second.startswith("en to X: ")


def ranking_of(data, place):
    """The answer of every test query at a place, 0 or 1, and the other documents after it."""
    documents = list(data.corpus)
    answers = [documents.index(next(iter(grades))) for grades in data.qrels["test"].values()]
    others = [[row for row in range(len(documents)) if row != answer] for answer in answers]
    rows = np.array([[*rest[:place], answer, *rest[place:]] for answer, rest in zip(answers, others, strict=True)])
    scores = np.tile(np.linspace(1, 0, len(documents)), (len(rows), 1))
    return Ranking.from_search(list(data.qrels["test"]), documents, scores, rows)


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


def test_mteb_scores_a_mixed_corpus_as_we_do(tiny):
    """The own text of a query is left out by both."""
    ours = next(iter(evaluate_retrieval(tiny, DATA, "test").values()))
    theirs = run_task(tiny, retrieval_task(DATA))
    assert theirs.main_score == pytest.approx(ours.mean("ndcg@10"), abs=1e-5)
