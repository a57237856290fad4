"""Synthetic queries: the offline rules, the round trip, and what becomes of them as training data."""

import random
from dataclasses import replace
from functools import partial

import pytest

from embedlab.data.dataset import Dataset, Triplet
from embedlab.data.leakage import check
from embedlab.data.load import load_dataset
from embedlab.data.synthetic import SyntheticQuery, as_training, round_trip
from embedlab.data.synthetic_offline import RULES, CorpusFacts, bracket_synonyms, long_form, offline_queries
from embedlab.data.text_analysis import normalise, words

CORPUS = {
    "a": "Chronic kidney disease (CKD) of the left kidney. It progresses slowly and needs watching.",
    "b": "Anemia in chronic kidney disease",
    "c": "Acute nasopharyngitis [common cold]",
    "d": "Disease of the heart",
    "e": "Disease of the lung",
}


def rule(kind, text, seed=0, corpus=CORPUS):
    return RULES[kind](text, CorpusFacts.of(corpus), random.Random(seed))


class TestAbbreviations:
    @pytest.mark.parametrize(
        ("before", "short", "expected"),
        [
            ("treated with Chronic kidney disease", "CKD", "Chronic kidney disease"),
            ("glucose-6-phosphate dehydrogenase", "G6PD", "glucose-6-phosphate dehydrogenase"),
            ("Heparin induced thrombocytopenia", "HIT", "Heparin induced thrombocytopenia"),
            ("Iron deficiency anemia", "chronic", None),  # a remark, no abbreviation
            ("Fracture of bone", "XYZ", None),  # letters that are not there
            ("Upset by a great many other things before being badly known", "UK", None),  # too far apart
            ("unit made by one known", "UK", None),  # five words for two letters
            ("treated for Tuberculosis", "TB", "Tuberculosis"),  # only the first letter must begin a word
            ("Computed axial tomography scan", "CAT scan", None),  # two words are a name, not an abbreviation
            ("unkind", "KD", None),  # must begin a word
        ],
    )
    def test_long_form(self, before, short, expected):
        assert long_form(before, short) == expected

    def test_both_ways_and_brackets(self):
        synonyms = bracket_synonyms(CORPUS.values())
        assert synonyms["chronic kidney disease"] == ("CKD",) and synonyms["ckd"] == ("Chronic kidney disease",)
        assert synonyms["acute nasopharyngitis"] == ("common cold",)
        assert synonyms["common cold"] == ("Acute nasopharyngitis",)

    def test_phrases_end_with_the_sentence(self):
        assert bracket_synonyms(["It is a scan. - Computed tomography (CT) shows it"])["ct"] == ("Computed tomography",)
        assert bracket_synonyms(["kidneys fail. disease follows (KD)"]) == {}

    def test_abbreviations_that_are_words_are_not_spelled_out(self):
        synonyms = bracket_synonyms(["Acute lymphoblastic leukemia (ALL) affects all ages"])
        assert list(synonyms) == ["acute lymphoblastic leukemia"]

    def test_round_brackets_with_words_are_remarks(self):
        assert bracket_synonyms(["Iron deficiency anemia (chronic)", "Obesity (severe) (morbid)"]) == {}


class TestRules:
    def test_title_is_the_first_sentence(self):
        assert rule("title", "First one here. Second one here.") == "First one here."
        assert rule("title", " ".join(map(str, range(30)))).split() == [str(i) for i in range(16)]

    def test_crop_is_a_span_of_one_sentence(self):
        text = "one two three four five six seven eight nine ten. Other words entirely stand here."
        lengths = {len(rule("crop", " ".join(map(str, range(200))), seed).split()) for seed in range(60)}
        assert min(lengths) >= 6 and max(lengths) <= 13  # 40 to 80 % of 16
        for seed in range(30):
            crop = rule("crop", text, seed)
            assert crop in text
            assert 2 <= len(crop.split()) <= 8

    def test_keywords_are_rare_or_frequent_here_and_in_order(self):
        corpus = {str(i): "common word" for i in range(9)} | {"x": "common rare word unique"}
        assert rule("keywords", "common rare word unique", corpus=corpus) == "rare unique"
        repeated = "seldom once twice twice once more"
        assert rule("keywords", repeated, corpus={"x": repeated, "y": "nothing of it"}) == "once twice"

    def test_dropout_keeps_rare_words_and_order(self):
        corpus = {str(i): "the of" for i in range(50)} | {"x": "the zebra of mars"}
        made = [rule("dropout", "the zebra of mars", seed, corpus).split() for seed in range(200)]
        assert all("zebra" in each and "mars" in each for each in made)
        share = sum("the" in each for each in made) / len(made)
        assert 0.25 < share < 0.55  # in nearly every document: dropped with a chance of nearly 0.6
        assert all([word for word in ("the", "zebra", "of", "mars") if word in each] == each for each in made)

    def test_expand_brings_in_the_other_name(self):
        assert rule("expand", "Anemia in chronic kidney disease") == "anemia in CKD"
        assert rule("expand", "Acute nasopharyngitis [common cold]") == "common cold"
        assert rule("expand", "Disease of the heart") is None


class TestOffline:
    def test_different_never_the_document_and_at_most_so_many(self):
        made = offline_queries(CORPUS, CORPUS, per_document=3)
        for document, text in CORPUS.items():
            forms = [normalise(query.text) for query in made if query.document == document]
            assert len(forms) == len(set(forms)) <= 3
            assert normalise(text) not in forms
        assert {query.document for query in made} == set(CORPUS)

    def test_only_expand_brings_in_words(self):
        for query in offline_queries(CORPUS, CORPUS, per_document=9):
            copied = set(words(query.text)) <= set(words(CORPUS[query.document]))
            assert copied or query.kind == "expand"

    def test_a_document_has_the_same_queries_alone_and_among_others(self):
        alone = offline_queries({"a": CORPUS["a"]}, CORPUS)
        assert [query for query in offline_queries(CORPUS, CORPUS) if query.document == "a"] == alone
        assert offline_queries(CORPUS, CORPUS, seed=1) != offline_queries(CORPUS, CORPUS)

    def test_what_brings_in_words_goes_first(self):
        made = offline_queries(CORPUS, CORPUS, per_document=1)
        assert {query.document for query in made if query.kind == "expand"} == {"a", "b", "c"}

    def test_short_and_odd_documents(self):
        odd = {"one": "Cholera", "symbols": "???", "spaces": "  a  b  "}
        assert all(query.text.strip() for query in offline_queries(odd, odd, per_document=9))
        assert offline_queries({}, {}) == []


QUERIES = [
    SyntheticQuery("kidneys", "b", "llm"),
    SyntheticQuery("nothing", "b", "llm"),
    SyntheticQuery("lung", "e", "crop"),
]


class TestRoundTrip:
    def search(self, texts, k=2):
        """`kidneys` finds a before b, `lung` a twin of e, nothing else anything."""
        found = {"kidneys": [("a", 2.0), ("b", 1.0)], "lung": [("twin", 3.0)]}
        self.asked = list(texts.values())
        return {key: found[text][:k] for key, text in texts.items() if text in found}

    def test_own_document_within_k(self):
        corpus = {**CORPUS, "twin": "disease of the LUNG"}
        kept, dropped = round_trip(QUERIES, corpus, self.search)
        assert kept == [QUERIES[0], QUERIES[2]] and dropped == [QUERIES[1]]
        assert self.asked == ["kidneys", "nothing", "lung"]
        kept, dropped = round_trip(QUERIES, corpus, partial(self.search, k=1))
        assert kept == [QUERIES[2]] and dropped == QUERIES[:2]

    def test_the_same_text_twice_is_two_questions(self):
        twice = [SyntheticQuery("kidneys", "b", "crop"), SyntheticQuery("kidneys", "d", "crop")]
        kept, dropped = round_trip(twice, CORPUS, self.search)
        assert (kept, dropped) == (twice[:1], twice[1:])


class TestAsTraining:
    DATA = Dataset(
        "toy",
        CORPUS,
        {"q1": "real", "q2": "held out"},
        {"train": {"q1": {"a": 1}}, "dev": {}, "test": {"q2": {"d": 1}}},
        triplets=(Triplet("x", "y", "z"),),
        groups={"q1": "g1", "q2": "g2"},
        fields={"q2": {"chapter": "I"}},
    )

    def test_train_is_replaced_and_the_rest_stays(self):
        made = as_training(self.DATA, [*QUERIES, SyntheticQuery("lung", "d", "crop")])
        texts = {made.queries[q]: set(grades) for q, grades in made.qrels["train"].items()}
        assert texts == {"kidneys": {"b"}, "nothing": {"b"}, "lung": {"e", "d"}}
        assert made.qrels["test"] == self.DATA.qrels["test"] and made.triplets == ()
        assert "q1" not in made.queries and made.queries["q2"] == "held out" and made.groups == {"q2": "g2"}
        kinds = {made.queries[q]: made.fields[q]["kind"] for q in made.qrels["train"]}
        assert kinds == {"kidneys": "llm", "nothing": "llm", "lung": "crop"}

    def test_leaks_are_still_seen(self):
        leaking = as_training(self.DATA, [SyntheticQuery("Held OUT", "b", "llm"), SyntheticQuery("heart", "d", "crop")])
        counts = check(leaking).counts
        assert counts["identical query"] == 1 and counts["shared document"] == 1
        assert check(replace(leaking, split_by="query")).counts["shared document"] == 0


def test_real_queries_are_less_like_their_documents_than_rules_make_them():
    from embedlab.data.quality import closeness

    data = load_dataset("icd10cm:smoke", repair=True)
    made = offline_queries(data.corpus, data.corpus)
    real = closeness((data.queries[q], data.corpus[d]) for q, d in data.pairs("train"))["containment"].mean()
    copied = closeness((query.text, data.corpus[query.document]) for query in made)["containment"].mean()
    assert real < 0.5 < 0.9 < copied
    assert len(made) > 2 * len(data.corpus)
