"""Words and normal forms in every script, and symbols that decide what a text means."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedlab.data import leakage, text_analysis
from embedlab.data.dataset import Dataset, GradedPair, Triplet
from embedlab.data.overlap import near_duplicates
from embedlab.data.text_analysis import normalise, script, search_words, symbols, without_symbols, words
from embedlab.errors import LeakageError
from embedlab.search.bm25 import bm25_ranking

# Script -> a query, the same query typed differently, another query that differs in one word or mark, and a document
# that contains the query's words.
SCRIPTS = {
    "Latin": (
        "Où réparer la pompe cassée ?",
        "OÙ RE\u0301PARER la pompe casse\u0301e",
        "Où réparer la lampe cassée ?",
        "Pour réparer une pompe cassée, appelez le service.",
    ),
    "Cyrillic": (
        "Как починить насос зимой",
        "КАК ПОЧИНИТЬ НАСОС ЗИМОЙ?",
        "Как починить насос летом",
        "Чтобы починить насос, вызовите мастера.",
    ),
    "Greek": (
        "Πώς επισκευάζω την αντλία",
        "Πώς επισκευάζω την αντλία;",
        "Πώς επισκευάζω την λάμπα",
        "Η ΑΝΤΛΙΑ: επισκευή.",
    ),
    "Arabic": (
        "كيف أصلح المضخة القديمة",
        "كيف أصلح المضخـــة القديمة؟",
        "كيف أصلح المروحة القديمة",
        "المَضَخَّة القديمة تحتاج إلى صيانة",
    ),
    "Hebrew": (
        "איך מתקנים משאבה ישנה",
        "איך מתקנים משאבה ישנה?",
        "איך מתקנים נורה ישנה",
        "מַשְׁאֵבָה צריכה תיקון",
    ),
    "Devanagari": ("मटर कब बोएं", "मटर  कब बोएं?", "मोटर कब बोएं", "मटर की बुवाई अक्टूबर में होती है"),
    "Thai": (
        "ปั๊มน้ำรั่วทำอย่างไร",
        "ปั๊มนํ้ารั่ว ทำอย่างไร?",
        "ปั๊มน้ำรื่วทำอย่างไร",
        "ถ้าปั๊มน้ำรั่วให้เปลี่ยนซีล",
    ),
    "Tamil": ("நீர் எங்கே உள்ளது", "நீர் எங்கே உள்ளது?", "நார் எங்கே உள்ளது", "நீர் தொட்டியில் உள்ளது"),
    "Chinese": ("水泵漏水怎么办", "水泵 漏水怎么办？", "水泵过热怎么办", "如果水泵漏水，应当更换密封圈。"),
    "Japanese": (
        "ポンプの水漏れを直す",
        "ﾎﾟﾝﾌﾟの水漏れを直す。",
        "ポンプの水漏れを見る",
        "水漏れしたポンプは修理する",
    ),
    "Korean": ("펌프에서 물이 새요", "펌프에서 물이 새요?", "램프에서 물이 새요", "펌프가 샐 때는 교체하세요"),
    "code-mixed": (
        "मेरा laptop 水泵 restart नहीं होता",
        "मेरा LAPTOP水泵restart नहीं होता!",
        "मेरा laptop 水泵 start नहीं होता",
        "laptop restart करें",
    ),
}
scripts = pytest.mark.parametrize("script", SCRIPTS)


@given(st.text("aB1 _.,;:-'\"?&()[]+#/<>=!%$*^\t", max_size=12))
def test_plain_texts_have_the_words_and_the_form_of_the_long_way(text):
    """A letter in another script takes the long way; it stands apart, so it changes nothing else."""
    assert words(text) + ["ж"] == words(f"{text} | ж")
    pieces = text_analysis._joined(text_analysis._folded(text))
    while (shorter := text_analysis._joined(pieces)) != pieces:
        pieces = shorter
    assert normalise(text) == (pieces or text.strip())


@given(st.text("aB1 é–+#-.<>=%°€½µαЁ水ガー、กำ่ ःहిxअ\u0301\u200d✓ـب٣", max_size=12))
def test_shortcuts_do_not_change_the_form(text):
    pieces = text_analysis._joined(text_analysis._folded(text))
    while (shorter := text_analysis._joined(pieces)) != pieces:
        pieces = shorter
    assert normalise(text) == (pieces or text.strip())


@scripts
def test_the_normal_form_ignores_typing_and_keeps_words(script):
    query, same, other, _ = SCRIPTS[script]
    assert normalise(query) == normalise(same)
    assert normalise(query) != normalise(other)
    assert words(query) != words(other)


@scripts
def test_bm25_finds_the_words_of_the_query(script):
    query, _, _, document = SCRIPTS[script]
    unrelated = SCRIPTS["Greek" if script == "Cyrillic" else "Cyrillic"][3]
    ranking = bm25_ranking({"unrelated": unrelated, "answer": document}, {"q": query}, 2)
    assert ranking.as_candidates()["q"][0][0] == "answer"
    assert len(ranking.as_candidates()["q"]) == 1


@scripts
def test_the_guard_refuses_the_same_leak(script):
    query, same, _, document = SCRIPTS[script]
    dataset = Dataset(
        "data",
        corpus={"d0": document, "d1": "An answer"},
        queries={"q0": query, "q1": same},
        qrels={"train": {"q0": {"d0": 1}}, "dev": {}, "test": {"q1": {"d1": 1}}},
        split_by="query",
    )
    with pytest.raises(LeakageError, match="1 identical query"):
        leakage.guard(dataset, drop_leaks=False)


@scripts
def test_the_guard_finds_every_kind_of_leak(script):
    """A longer query nearly the same, the query in a triplet or a graded pair, and the same document."""
    query, same, other, document = SCRIPTS[script]
    longer, nearly = f"{query} {document}", f"{document} 2031 {same}"
    corpus, test = {"d0": document, "d1": "An answer", "d2": f"  {document.upper()}"}, {"q1": {"d1": 1}}

    def counts(held_out=same, judged=test, train=None, split_by="query", **examples):
        queries = {"q1": held_out, **({"q0": train} if train else {})}
        qrels = {"train": {"q0": {"d0": 1}} if train else {}, "dev": {}, "test": judged}
        data = Dataset("data", corpus=corpus, queries=queries, qrels=qrels, split_by=split_by, **examples)
        return {kind: count for kind, count in leakage.check(data).counts.items() if count}

    assert counts(held_out=nearly, train=longer) == {leakage.NEAR_IDENTICAL: 1}
    assert counts(triplets=(Triplet("one two", query, "three"),)) == {leakage.TRAINING_TEXT: 1}
    assert counts(graded_pairs=(GradedPair("one two", query, 0.5),)) == {leakage.TRAINING_TEXT: 1}
    assert counts(train=other, judged={"q1": {"d2": 1}}, split_by="document") == {leakage.SHARED_DOCUMENT: 1}
    assert counts(train=other) == {}


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("sort a list in C", "sort a list in C++"),
        ("sort a list in C++", "sort a list in C#"),
        ("x > 5", "x < 5"),
        ("x > 5", "x >= 5"),
        ("x>5", "x<5"),
        ("x = y", "x != y"),
        ("a + b", "a * b"),
        ("6/2", "6*2"),
        ("store at +5 °C", "store at -5 °C"),
        ("store at −5 °C", "store at 5 °C"),
        ("5 °C", "5 %"),
        ("$100", "€100"),
        ("100 €", "100 £"),
        (".NET tutorial", "net tutorial"),
        ("10²", "102"),
        ("blood type A+", "blood type A"),
        ("good 👍", "good 👎"),
        ("A → B", "A ← B"),
        ("A ∧ B", "A ∨ B"),
        ("C#の使い方", "C++の使い方"),
        ("使用.NET开发", "使用NET开发"),
        ("气温-5度", "气温5度"),
        ("CRP ≥ 5", "CRP ≤ 5"),
    ],
)
def test_symbols_that_decide_the_meaning_stay(text, other):
    assert normalise(text) != normalise(other)
    longer = "how do I explain to somebody else in a few words what this is about"
    assert list(near_duplicates({1: f"{longer}: {text}"}, {2: f"{longer}: {other}"})) == []


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("−5 °C", "-5 ℃"),
        ("x > 5!", "X>5"),
        ("What is C++?", "what is c++"),
        ("(see .NET)", "see .net"),
        ("pre-operative, care", "pre operative care"),
        ("10–20 mg", "10-20 mg"),
        ("soft\u00adware", "software"),
        ("٢٥ كجم", "25 كجم"),
        ("ＡＢＣ １２３", "abc 123"),
        ("patient´s", "patient's"),
        ("STRASSE", "Straße"),
        ("5 µg", "5 μg"),  # the micro sign and the Greek letter
        ("Οδός Νίκης", "ΟΔΟΣ ΝΙΚΗΣ"),  # final sigma; capitals have no accents
        ("İzmir'de", "izmir'de"),
        ("KALIN BAĞIRSAK KANSERİ", "kalın bağırsak kanseri"),
        ("المَضَخَّة", "المضخة"),
        ("Ёлка", "елка"),
    ],
)
def test_punctuation_form_and_width_do_not_matter(text, same):
    assert normalise(text) == normalise(same)


def test_words_of_english_are_those_of_the_regular_expression():
    assert words("Type-2 diabetes (T2D), >5 % of C++ users' A_b") == [
        *("type", "2", "diabetes", "t2d", "5", "of", "c", "users", "a_b")
    ]
    assert symbols("Type-2 diabetes (T2D)") == frozenset()


def test_search_words_of_latin_text_are_those_of_bm25s():
    import bm25s

    texts = ["Sjögren's syndrome, C x2 a", "β2-agonist ½ naïve É", "Straße 12 e.g. 5°C", ""]
    expected = bm25s.tokenize(texts, stopwords=[], return_ids=False, show_progress=False)
    assert [search_words(text) for text in texts] == expected


@given(st.text(max_size=40))
def test_the_normal_form_is_its_own_normal_form(text):
    form = normalise(text)
    assert normalise(form) == form


SYMBOLIC = st.text(alphabet="ab1 2+-*/<>=!#.%°€$()[]c水泵न\u093f\u0301…−²", max_size=15)


@given(SYMBOLIC)
def test_the_normal_form_of_symbols_is_its_own_normal_form(text):
    form = normalise(text)
    assert normalise(form) == form


@given(st.text(max_size=30), st.sampled_from(["?", "!", " ", " \n", "…", "."]))
def test_case_and_punctuation_at_the_end_do_not_matter(text, end):
    if words(text):
        assert words(text + end) == words(text)


def test_units_stay_apart():
    assert normalise("剂量 5 mg") != normalise("剂量 5 µg") and search_words("5 mg") != search_words("5 µg")


def test_a_mark_without_a_letter_is_no_word():
    assert words("0\u0e31") == ["0\u0e31"] == normalise("0\u0e31").split()


@given(st.text(st.characters(codec="ascii", exclude_characters="+#."), max_size=60))
def test_ascii_texts_keep_their_search_words(text):
    import bm25s

    assert [search_words(text)] == bm25s.tokenize([text], stopwords=[], return_ids=False, show_progress=False)


@pytest.mark.parametrize(
    ("query", "answer", "other"),
    [
        ("C++", "sort a list in C++", "sort a list in C#"),
        ("C#の使い方", "C#の使い方を学ぶ", "C++の使い方を学ぶ"),
        (".NET", "Begin with .NET", "the net"),
        ("HER2+", "HER2+ tumour", "HER2 tumour"),
        ("μg", "50 µg daily", "50 mg daily"),
        ("fine", "a ﬁne tooth", "a tooth"),
        ("ﾎﾟﾝﾌﾟ", "ポンプ", "ランプ"),
        ("ΟΔΟΣ", "η οδός", "η πόλη"),
        ("istanbul", "İSTANBUL BOĞAZI", "Ankara"),
        ("BAĞIRSAK KALINLAŞMASI", "kalınlaşması", "kalinlasmasi"),
    ],
)
def test_bm25_knows_names_with_symbols_width_and_case(query, answer, other):
    found = bm25_ranking({"other": other, "answer": answer}, {"q": query}, 2).as_candidates()["q"]
    assert found[0][0] == "answer" and (len(found) == 1 or found[1][1] < found[0][1])


def test_long_texts_take_linear_time():
    for character in "aé水ا+#.":
        start = time.perf_counter()
        text = character * 50_000
        assert len(search_words(text)) <= 50_000 and len(symbols(text)) <= 1 and normalise(text)
        assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *[
            ("fracture", "Latin"),
            ("ｆｒａｃｔｕｒｅ", "Latin"),
            ("Перелом 12", "Cyrillic"),
            ("骨折", "CJK"),
            ("12.3", ""),
        ],
        *[("ﾎﾟﾝﾌﾟ", "Japanese"), ("肺炎の疑い", "Japanese"), ("급성 간염", "Hangul"), ("हिन्दी", "Devanagari"), ("", "")],
        *[("โรค", "Thai"), ("骨 fracture", "Latin")],
    ],
)
def test_script_of_most_letters(text, name):
    assert script(text) == name


def test_text_without_symbols_is_its_words():
    assert without_symbols("  Is C++ > 5 %?") == "is c 5"
    assert without_symbols("HER2+") == without_symbols("her2 -") == "her2"
    assert without_symbols(" +++ ") == "+++"


def test_one_character_of_a_script_without_spaces_is_a_word():
    assert words("水") == ["水"] == search_words("水")
    assert words("水泵") == ["水泵"] and words("水泵漏") == ["水泵", "泵漏"]
