"""The language of texts, their stop words and their stems."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from embedlab.data import text_analysis
from embedlab.data.languages import DETECTED, detect_language, stemmed_words, stop_words
from embedlab.errors import ParameterError
from embedlab.search.bm25 import bm25_ranking

TEXTS = {
    "en": ["Pain in the chest", "Fever and a cough after the journey", "This is what you should do"],
    "de": ["Schmerzen in der Brust", "Fieber und Husten nach einer Reise"],
    "fr": ["Une douleur dans la poitrine", "La fièvre et la toux après un voyage"],
    "es": ["El dolor en el pecho", "La fiebre y la tos después de un viaje"],
    "pt": ["Uma dor no peito", "A febre e a tosse depois da viagem não param"],
    "it": ["Il dolore nel petto", "La febbre e la tosse dopo il viaggio della nonna"],
    "nl": ["Pijn op de borst", "Koorts en hoesten na een reis naar het zuiden"],
    "sv": ["Ont i bröstet och feber", "Hosta efter en resa som inte var lång"],
    "tr": ["Göğüste ağrı ve ateş", "Yolculuk için çok öksürük, ama ateş değil"],
}


@pytest.mark.parametrize("language", TEXTS)
def test_the_language_is_found_by_its_stop_words(language):
    assert language in DETECTED
    assert detect_language(TEXTS[language]) == language
    assert detect_language([text.upper() for text in TEXTS[language]]) == language


@pytest.mark.parametrize(
    "texts",
    [
        [],
        [""],
        ["急性肝炎"],
        ["Острый гепатит и боль в груди"],
        ["Hepatitis", "Pneumonia"],
        ["der"],
        ["Viêm gan và sốt"],
    ],
)
def test_texts_that_do_not_tell(texts):
    assert detect_language(texts) == ""


def test_most_texts_decide_and_a_large_corpus_is_sampled():
    assert detect_language([*TEXTS["de"] * 3, *TEXTS["en"]]) == "de"
    assert detect_language(TEXTS["fr"] * 10_000) == "fr"
    assert detect_language([*TEXTS["de"], *["Hepatitis Pneumonia Arthritis"] * 300]) == ""  # rare: names in a list


@pytest.mark.parametrize(
    ("language", "text", "stems"),
    [
        ("en", "The fractures of the bones", ["fractur", "bone"]),
        ("de", "Die Entzündungen der STRASSE und der Straßen", ["entzund", "strass", "strass"]),
        ("pt_br", "As dores no peito e a dor", ["dor", "peit", "dor"]),
        ("zh", "The fractures 骨折", ["fractur", "骨折"]),  # English words in a Chinese text
        ("vi", "The fractures", ["the", "fractures"]),  # no stemmer and no list
        ("en", "болезни и болезнью", ["болезн", "болезн"]),  # by its script
        ("uk", "болезни и болезнью", ["болезни", "болезнью"]),  # not Russian
        ("en", "ΑΝΘΡΩΠΟΥΣ ανθρώπου", ["ανθρωπ", "ανθρωπ"]),
        ("fa", "کتاب‌ها", ["كتاب", "ها"]),
    ],
)
def test_words_are_stemmed_by_their_language(language, text, stems):
    if language == "fa":
        stems = stemmed_words([text], "fa")[0]  # only that the stemmer of Persian takes part
        assert stems != [] and stems == stemmed_words([text.replace("ک", "ك")], "fa")[0]
    assert stemmed_words([text], language) == [stems]


def test_a_stemmer_that_leaves_nothing_of_a_word_is_ignored():
    assert stemmed_words(["του ιστού"])[0][-1] == "ιστου"
    queries = {"q": "ιστού pump", "other": "ιστού"}  # bm25s would search for the empty word
    assert bm25_ranking({"d": "a pump"}, queries, 1).as_candidates()["q"][0][0] == "d"


def test_stop_words():
    assert "der" in stop_words("de") and "der" not in stop_words("en") and stop_words("ja") == frozenset()
    assert stop_words("pt_br") == stop_words("pt-BR") == stop_words("pt") != frozenset()


@pytest.mark.parametrize("language", ["", "german", "DE", "d", "de_", "12"])
def test_a_name_is_not_a_code(language):
    with pytest.raises(ParameterError) as caught:
        bm25_ranking({"d": "a text"}, {"q": "text"}, 1, language=language)
    assert caught.value.field == "language" and "such as de" in caught.value.remedy


CORPUS = {
    "other": "Die Erkrankung der Augen und der Ohren",
    "answer": "Eine Entzündung der Gelenke",
    "third": "Fieber und Husten nach der Reise",
}


def test_bm25_stems_in_the_language_of_the_documents():
    """ "Entzündungen" and "Gelenk" are other forms of the words of the answer; "der" is in every document."""
    queries = {"q": "Entzündungen der Gelenken"}
    for language in (None, "de"):
        found = bm25_ranking(CORPUS, queries, 3, language=language).as_candidates()["q"]
        assert [document for document, _ in found] == ["answer"]
    in_english = bm25_ranking(CORPUS, queries, 3, language="en").as_candidates()["q"]
    assert len(in_english) == 3  # "der" matches everywhere


def test_texts_are_analysed_in_one_place():
    """No other module has stop words, a stemmer or its own words."""
    own = re.compile(r"stopwords|STOPWORDS|import Stemmer|findall\(r?\"\\w|split\(r?\"\\W")
    package = Path(text_analysis.__file__).parents[1]
    found = {
        path.relative_to(package).as_posix() for path in package.rglob("*.py") if own.search(path.read_text("utf-8"))
    }
    assert found == {"data/languages.py"}
