"""Normal form and the near-duplicate join, against a slow reference."""

import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedlab.data import overlap
from embedlab.data.overlap import jaccard, near_duplicates
from embedlab.data.text_analysis import normalise

TEXTS = st.lists(st.lists(st.sampled_from("abcdefg"), max_size=9).map(" ".join), max_size=12)


def quadratic(left, right):
    """Every pair of word sets of 3 or more words, compared."""
    return {
        (i, j)
        for i, a in enumerate(left)
        for j, b in enumerate(right)
        if len(set(a.split())) >= 3 and len(set(b.split())) >= 3
        # In whole numbers, 0.8 = 4 / 5 is exact.
        if 5 * len(set(a.split()) & set(b.split())) >= 4 * len(set(a.split()) | set(b.split()))
    }


# Few words in many texts: all lists are long, so keys of several words are made.
CROWDED = st.lists(st.sets(st.sampled_from("abcdefghijklm"), min_size=3).map(" ".join), min_size=40, max_size=80)


@settings(deadline=None)
@given(CROWDED, st.booleans())
def test_crowded_join_equals_the_quadratic_reference(texts, joins_itself):
    left = dict(enumerate(texts))
    right = left if joins_itself else dict(enumerate(reversed(texts)))
    found = list(near_duplicates(left, right))
    assert set(found) == quadratic(left.values(), right.values())
    assert len(found) == len(set(found))


def test_left_texts_come_in_order_and_their_rarest_common_word_first():
    left = {0: "x a b c d", 1: "a b c d e"}
    right = {0: "a b c d f", 1: "y a b c d x", 2: "a b c d e"}
    assert list(near_duplicates(left, right)) == [(0, 1), (1, 2)]
    assert list(near_duplicates({0: "a b c d e"}, {0: "a b c d", 1: "a b c d e"})) == [(0, 1), (0, 0)]  # e is rarest


def test_few_pairs_are_compared_however_common_the_words(monkeypatch):
    """1,296 texts of 4 words out of 24: each word is in 216 or more texts, and no text has a near one."""
    texts = [" ".join(choice) for choice in product("abcdef", "ghijkl", "mnopqr", "stuvwx")]
    random.Random(0).shuffle(texts)
    compared = []
    count = overlap._Filter.near_pairs
    monkeypatch.setattr(
        overlap._Filter,
        "near_pairs",
        lambda self, blocks: count(self, (compared.append(len(a)) or (a, b) for a, b in blocks)),
    )
    queries = dict(enumerate(texts))
    assert sum(1 for _ in near_duplicates(queries, queries)) == len(texts)
    assert sum(compared) < 20 * len(texts)


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_join_equals_the_quadratic_reference(left, right):
    found = list(near_duplicates(dict(enumerate(left)), dict(enumerate(right))))
    assert set(found) == quadratic(left, right)
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ("a", "b", "alike"),
    [
        ("one two three four", "one two three four five", True),  # 4 / 5 = 0.8 counts
        ("one two three", "one two three four", False),  # 3 / 4
        ("Pain, left KNEE; acute!", "acute left knee pain", True),
        ("one two", "one two", False),  # too short to tell
    ],
)
def test_threshold_by_hand(a, b, alike):
    assert bool(list(near_duplicates({0: a}, {0: b}))) is alike


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Reiter's  disease.", "REITER'S disease"),
        ("\ufb01brosis", "fibrosis"),
        ("Straße", "STRASSE"),
        ("a\tb\n", "a b"),
    ],
)
def test_normalise_forgets_form(a, b):
    assert normalise(a) == normalise(b)


@pytest.mark.parametrize(("a", "b"), [("type 1", "type 2"), ("co-op", "coop"), ("???", "!!!")])
def test_normalise_keeps_what_differs(a, b):
    assert normalise(a) != normalise(b)


def test_jaccard_by_hand():
    assert jaccard(frozenset("abcd"), frozenset("abx")) == 2 / 5
    assert jaccard(frozenset(), frozenset()) == 0
