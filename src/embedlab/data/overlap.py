"""When two texts count as the same: normal form, and word sets that nearly agree."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import TypeVar

NEAR = 0.8  # Jaccard similarity of word sets from which two queries count as near-identical
MIN_WORDS = 3  # below, one shared word would already make two queries alike

Left = TypeVar("Left")
Right = TypeVar("Right")

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words of `text` without regard to case, punctuation and Unicode form (NFKC)."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def normalise(text: str) -> str:
    """Equal for texts that differ in case, white space or punctuation alone.

    >>> normalise("Reiter's  disease.") == normalise("reiter's DISEASE")
    True
    """
    return " ".join(words(text)) or text.strip()


def near_duplicates(left: Mapping[Left, str], right: Mapping[Right, str]) -> Iterator[tuple[Left, Right]]:
    """Keys of all text pairs with |A ∩ B| / |A ∪ B| >= 0.8 over their word sets, for sets of 3 words or more.

    Exact, through the prefix filter of Chaudhuri, Ganti and Kaushik (ICDE 2006): with words ordered from rare
    to frequent, two sets that alike share a word among the first n - ceil(0.8 n) + 1 of each.
    """
    left_sets, right_sets = _word_sets(left), _word_sets(right)
    frequency = Counter(word for sets in (left_sets, right_sets) for its_words in sets.values() for word in its_words)
    index: dict[str, list[Right]] = defaultdict(list)
    for key, its_words in right_sets.items():
        for word in _prefix(its_words, frequency):
            index[word].append(key)
    for key, its_words in left_sets.items():
        # A dict, not a set: the order of the pairs must not depend on the hash seed.
        candidates = dict.fromkeys(other for word in _prefix(its_words, frequency) for other in index[word])
        yield from ((key, other) for other in candidates if jaccard(its_words, right_sets[other]) >= NEAR)


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """|A ∩ B| / |A ∪ B|; 0 for two empty sets."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared) if shared else 0.0


def _word_sets(texts: Mapping[Left, str]) -> dict[Left, frozenset[str]]:
    sets = {key: frozenset(words(text)) for key, text in texts.items()}
    return {key: its_words for key, its_words in sets.items() if len(its_words) >= MIN_WORDS}


def _prefix(its_words: frozenset[str], frequency: Counter[str]) -> list[str]:
    ordered = sorted(its_words, key=lambda word: (frequency[word], word))
    # 1e-9: 0.8 is not exact in binary, and 0.8 * 5 must round up to 4, not to 5.
    return ordered[: len(ordered) - math.ceil(NEAR * len(ordered) - 1e-9) + 1]
