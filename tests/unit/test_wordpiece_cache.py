"""Looking words up gives what the tokenizer gives, for every text it is used on; the rest goes to the tokenizer."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Whitespace

from embedlab.models.load import load_model
from embedlab.models.static import static_student
from embedlab.models.wordpiece_cache import WordPieceCache
from tests.conftest import TEXTS, tiny_model

AWKWARD = [
    "",
    "   ",
    "Reiter's disease, left knee (M02.362)",
    "under_score a+b=c <x> #1 50% $5 `q` ~ ^ | \\",
    "TYPE 2 Diabetes",
    "mellitus2type",
    "x" * 150,
    "a [MASK] b",
    "[cls] and [SEP]",
    "tab\tand\nnewline",
    "bell\x07inside",
    "café naïve Ménière",
    "肺炎 pneumonia",
    "half\u00a0space and \u200bzero width",
    "em\u2014dash",
]


def plain(model) -> Tokenizer:
    tokenizer = Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def by_tokenizer(tokenizer, texts):
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


@pytest.fixture(scope="module")
def tokenizer():
    return plain(load_model("all-MiniLM-L6-v2"))


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_texts_come_out_as_from_the_tokenizer(tokenizer, text):
    assert WordPieceCache(tokenizer).tokenise([text]) == by_tokenizer(tokenizer, [text])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text(max_size=60) | st.text(st.characters(max_codepoint=127), max_size=60))
def test_any_text_comes_out_as_from_the_tokenizer(tokenizer, text):
    assert WordPieceCache(tokenizer).tokenise([text]) == by_tokenizer(tokenizer, [text])


def test_every_pair_of_printable_characters(tokenizer):
    characters = [chr(code) for code in range(32, 127)]
    texts = [f"ab{one}{other}Cd" for one in characters for other in characters]
    assert WordPieceCache(tokenizer).tokenise(texts) == by_tokenizer(tokenizer, texts)


def test_order_is_kept_where_some_texts_go_to_the_tokenizer(tokenizer):
    texts = [text for pair in zip(TEXTS, AWKWARD, strict=False) for text in pair]
    assert WordPieceCache(tokenizer).tokenise(texts) == by_tokenizer(tokenizer, texts)


def test_a_word_is_cut_once(tokenizer):
    pieces = WordPieceCache(tokenizer)
    pieces.tokenise(["acute fracture", "fracture of the acute"])
    assert set(pieces) == {"acute", "fracture", "of", "the"}


def test_another_kind_of_tokenizer_is_left_to_itself():
    """Byte pairs may span what BERT would cut."""
    tokenizer = Tokenizer(BPE({"a": 0, "-": 1, "a-": 2}, [("a", "-")]))
    pieces = WordPieceCache(tokenizer)
    assert pieces.tokenise(["a-a"]) == [[2, 0]] and not pieces
    tokenizer.pre_tokenizer = Whitespace()
    assert WordPieceCache(tokenizer).tokenise(["a-a"]) == by_tokenizer(tokenizer, ["a-a"])


def test_an_added_word_is_found_before_the_words_are_cut():
    tokenizer = plain(tiny_model())
    tokenizer.add_tokens(["left knee"])
    assert WordPieceCache(tokenizer).tokenise(["Left knee", "fracture of left knee"]) == by_tokenizer(
        tokenizer, ["Left knee", "fracture of left knee"]
    )


def test_a_cased_tokenizer_keeps_its_case():
    tokenizer = plain(tiny_model())
    cased = Tokenizer.from_str(tokenizer.to_str().replace('"lowercase":true', '"lowercase":false'))
    assert cased.normalizer.lowercase is False
    assert WordPieceCache(cased).tokenise(["Cholera cholera"]) == by_tokenizer(cased, ["Cholera cholera"])


def test_the_students_tokenizer_takes_the_fast_way():
    pieces = WordPieceCache(static_student(tiny_model(), TEXTS).tokenizer)
    pieces.tokenise(TEXTS)
    assert len(pieces) > 5
