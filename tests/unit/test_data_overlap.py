"""Normal form and the near-duplicate join, against a slow reference."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
