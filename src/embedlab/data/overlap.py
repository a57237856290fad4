"""Find texts that are nearly the same: Jaccard similarity of their word sets."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import TypeVar

from embedlab.data.text_analysis import symbols, words

NEAR = 0.8  # two queries are near-identical from this Jaccard similarity of their word sets
MIN_WORDS = 3  # with fewer words, one shared word would be enough

Left = TypeVar("Left")
Right = TypeVar("Right")


def near_duplicates(
    left: Mapping[Left, str], right: Mapping[Right, str], *, ignore_symbols: bool = False
) -> Iterator[tuple[Left, Right]]:
    """Find all pairs of texts with the same symbols whose word sets have a Jaccard similarity of at least 0.8.

    Words and symbols are those of `text_analysis`: "C++" and "C#" are never nearly the same.

    The result is exact and fast thanks to the prefix filter of Chaudhuri, Ganti and Kaushik (ICDE 2006): if words are
    sorted from rare to frequent, two such sets share a word among the first n - ceil(0.8 n) + 1 words of each.

    Args:
        left, right: key -> text. Texts with fewer than 3 different words are skipped.
        ignore_symbols: compare words only.

    Yields:
        (key in `left`, key in `right`).
    """
    left_sets, right_sets = _word_sets(left), _word_sets(right)
    frequency = Counter(word for sets in (left_sets, right_sets) for word_set in sets.values() for word in word_set)
    index: dict[str, list[Right]] = defaultdict(list)
    for right_key, word_set in right_sets.items():
        for word in _prefix(word_set, frequency):
            index[word].append(right_key)
    for left_key, word_set in left_sets.items():
        # A dict instead of a set: the order of the pairs must not depend on the hash seed.
        candidates = dict.fromkeys(other for word in _prefix(word_set, frequency) for other in index[word])
        near = [other for other in candidates if jaccard(word_set, right_sets[other]) >= NEAR]
        yield from (
            (left_key, other) for other in near if ignore_symbols or symbols(left[left_key]) == symbols(right[other])
        )


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Jaccard similarity |A ∩ B| / |A ∪ B|; 0 for two empty sets."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared) if shared else 0.0


def _word_sets(texts: Mapping[Left, str]) -> dict[Left, frozenset[str]]:
    sets = {key: frozenset(words(text)) for key, text in texts.items()}
    return {key: word_set for key, word_set in sets.items() if len(word_set) >= MIN_WORDS}


def _prefix(word_set: frozenset[str], frequency: Counter[str]) -> list[str]:
    ordered = sorted(word_set, key=lambda word: (frequency[word], word))
    # 0.8 is not exact in binary: without 1e-9, ceil(0.8 * 5) could be 5 instead of 4.
    return ordered[: len(ordered) - math.ceil(NEAR * len(ordered) - 1e-9) + 1]
