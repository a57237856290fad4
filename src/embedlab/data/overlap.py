"""Find texts that are nearly the same: Jaccard similarity of their word sets."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple, TypeVar

import numpy as np

from embedlab.data.text_analysis import symbols, words

# Two queries are near-identical from a Jaccard similarity of their word sets of 4 / 5; a fraction is exact.
NEAR_PARTS, NEAR_WHOLE = 4, 5
MIN_WORDS = 3  # with fewer words, one shared word would be enough

PAIRS_PER_ENTRY = 4  # comparing so many pairs costs about as much as making one longer key
BLOCK_PAIRS = 1 << 21  # candidate pairs in memory at a time, some hundred bytes each

Left = TypeVar("Left")
Right = TypeVar("Right")


def near_duplicates(
    left: Mapping[Left, str], right: Mapping[Right, str], *, ignore_symbols: bool = False
) -> Iterator[tuple[Left, Right]]:
    """Find all pairs of texts with the same symbols whose word sets have a Jaccard similarity of at least 0.8.

    Words and symbols are those of `text_analysis`: "C++" and "C#" are never nearly the same.

    Args:
        left, right: key -> text. Texts with fewer than 3 different words are skipped.
        ignore_symbols: compare words only.

    Yields:
        (key in `left`, key in `right`); every key of `left` with itself if both are the same mapping.
    """
    left_keys, left_texts, joins_itself = list(left), list(left.values()), left is right
    right_keys, right_texts = (left_keys, left_texts) if joins_itself else (list(right), list(right.values()))
    rows, columns = _join(left_texts, None if joins_itself else right_texts)
    symbols_of = cache(symbols)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        text, other = left_texts[row], right_texts[column]
        if ignore_symbols or text == other or symbols_of(text) == symbols_of(other):
            yield left_keys[row], right_keys[column]


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Jaccard similarity |A ∩ B| / |A ∪ B|; 0 for two empty sets."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared) if shared else 0.0


def _join(left: Sequence[str], right: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """Find near word sets: indices into `left` and `right` (None: `left` itself), both (P,).

    The order is that of a loop over `left` that looks up rare words first: by left text, then by the rarest common
    word, then by right text.
    """
    texts = [*left, *(right or ())]
    sets = _WordSets.of(texts)
    is_left = sets.text < len(left)
    is_right = is_left if right is None else ~is_left
    near = _near_sets(sets, _any_member(sets, is_left), _any_member(sets, is_right))
    rows, columns, rarest = _members(sets, near, is_left, is_right)
    columns = columns if right is None else columns - len(left)
    order = np.lexsort((columns, rarest, rows))
    return rows[order], columns[order]


class _WordSets(NamedTuple):
    """The different word sets of a list of texts, those with fewer than `MIN_WORDS` words left out.

    Words are numbered from rare to frequent, by the number of texts that have them; equally frequent ones by name.

    Attributes:
        codes: int64 (T,) set * vocabulary + word of every word of every set, ascending.
        starts: int64 (S + 1,) where each set begins in `codes`.
        vocabulary: number of words.
        text: int64 (M,) numbers of the texts that have a set, ordered by set.
        first: int64 (S + 1,) where the texts of each set begin in `text`.
    """

    codes: np.ndarray
    starts: np.ndarray
    vocabulary: int
    text: np.ndarray
    first: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str]) -> _WordSets:
        """Split texts into words and number them."""
        numbers: dict[str, int] = {}
        flat, sizes = array("i"), array("i")
        for text in texts:
            word_set = {numbers.setdefault(word, len(numbers)) for word in words(text)}
            sizes.append(len(word_set) if len(word_set) >= MIN_WORDS else 0)
            if sizes[-1]:
                flat.extend(word_set)
        by_text = _codes(np.frombuffer(flat, np.int32), np.frombuffer(sizes, np.int32), numbers)
        return cls._distinct(*by_text, max(1, len(numbers)))

    @classmethod
    def _distinct(cls, text: np.ndarray, word: np.ndarray, vocabulary: int) -> _WordSets:
        """Join equal sets, from the text and the word of every word of every text, both ascending."""
        texts, starts = np.unique(text, return_index=True)
        sizes = np.diff(starts, append=len(text))
        hashes = _sums(_mixed(word), starts), _sums(_mixed(word + np.int64(vocabulary)), starts), sizes
        order = np.lexsort(hashes)
        new = np.ones(len(order), dtype=bool)
        new[1:] = np.any([hashed[order][1:] != hashed[order][:-1] for hashed in hashes], axis=0)
        first = np.flatnonzero(new)
        representatives = order[first]  # one text of every set
        words_of_set = word[_ranges(starts[representatives], sizes[representatives])]
        codes = np.repeat(np.arange(len(first)), sizes[representatives]) * vocabulary + words_of_set
        ends = np.cumsum(sizes[representatives])
        return cls(codes, np.append(0, ends), vocabulary, texts[order], np.append(first, len(order)))

    @property
    def sizes(self) -> np.ndarray:
        """Number of words of every set, int64 (S,)."""
        return np.diff(self.starts)

    def words_at(self, places: np.ndarray) -> np.ndarray:
        """Word numbers at places in `codes`."""
        numbers: np.ndarray = self.codes[places] % self.vocabulary
        return numbers


def _codes(flat: np.ndarray, sizes: np.ndarray, numbers: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """The text and the word of every word of every text, both (T,), words numbered from rare to frequent."""
    alphabetical = np.empty(len(numbers), dtype=np.int64)
    alphabetical[[numbers[word] for word in sorted(numbers)]] = np.arange(len(numbers))
    rank = np.empty(len(numbers), dtype=np.int64)
    rank[np.lexsort((alphabetical, np.bincount(flat, minlength=len(numbers))))] = np.arange(len(numbers))
    vocabulary = max(1, len(numbers))
    codes = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes) * vocabulary + rank[flat]
    codes.sort()
    return np.divmod(codes, vocabulary)


def _any_member(sets: _WordSets, which: np.ndarray) -> np.ndarray:
    """Whether any text of a set is one of `which`: bool (M,) -> bool (S,)."""
    return np.logical_or.reduceat(which, sets.first[:-1]) if len(which) else which


class _Near(NamedTuple):
    """Pairs of sets, every pair once and in one direction, and their rarest common word; all (P,)."""

    a: np.ndarray
    b: np.ndarray
    rarest: np.ndarray


def _near_sets(sets: _WordSets, is_left: np.ndarray, is_right: np.ndarray) -> _Near:
    """Find pairs of different sets, a left one and a right one, that are near.

    Near sets of n and m words share at least ceil(0.8 max(n, m)) words. Sort words from rare to frequent: then the
    k-th common word is among the first n - ceil(0.8 n) + k of either set. For k = 1 this is the prefix filter of
    Chaudhuri, Ganti and Kaushik (ICDE 2006), which compares all sets that share a word of their prefix. Where many
    do, we look at the second common word too, and so on (Wang, Li and Feng, SIGMOD 2012): the lists stay short and
    the time grows with the number of texts instead of its square.
    """
    filters = _Filter(sets, is_left, is_right)
    level = 1
    entries = _first_entries(sets)
    candidates = []
    while len(entries.set):
        groups = _Groups.of(entries, sets, is_left, is_right, level)
        ends = groups.ends()
        candidates.append(filters.near_pairs(groups.of_which(ends)))
        candidates.append(filters.near_pairs(groups.of_which(~ends, groups.required <= level)))
        entries = groups.longer(~ends, sets)
        level += 1
    codes = np.unique(np.concatenate(candidates)) if candidates else np.empty(0, np.int64)
    a, b = np.divmod(codes, max(1, len(sets.sizes)))
    near, rarest = filters.exact(a, b)
    return _Near(a[near], b[near], rarest[near])


def _required(sizes: np.ndarray) -> np.ndarray:
    """How many words a near set must share at least: ceil(0.8 n), in whole numbers."""
    return -(-NEAR_PARTS * sizes // NEAR_WHOLE)


class _Entries(NamedTuple):
    """Sets under a key of common words, all (E,).

    Attributes:
        set: the set.
        place: where the last word of the key is in `_WordSets.codes`.
        key: hash of the words; equal hashes of different words only cost time.
    """

    set: np.ndarray
    place: np.ndarray
    key: np.ndarray


def _first_entries(sets: _WordSets) -> _Entries:
    """Every set under each word of its prefix."""
    lengths = sets.sizes - _required(sets.sizes) + 1
    places = _ranges(sets.starts[:-1], lengths)
    return _Entries(np.repeat(np.arange(len(lengths)), lengths), places, _mixed(sets.words_at(places)))


class _Groups(NamedTuple):
    """Entries sorted by key, with those of one key side by side; keys without a pair are left out.

    Attributes:
        entries: (E,) each.
        group: (E,) number of the key.
        is_left, is_right: (E,).
        required: (E,) words that the set must share.
        room: (E,) words by which the key can be extended.
    """

    entries: _Entries
    group: np.ndarray
    is_left: np.ndarray
    is_right: np.ndarray
    required: np.ndarray
    room: np.ndarray

    @classmethod
    def of(cls, entries: _Entries, sets: _WordSets, is_left: np.ndarray, is_right: np.ndarray, level: int) -> _Groups:
        """Group entries whose keys have `level` words."""
        order = np.argsort(entries.key, kind="stable")
        key = entries.key[order]
        group = np.cumsum(np.append(False, key[1:] != key[:-1]))
        left, right = is_left[entries.set[order]], is_right[entries.set[order]]
        pairs = np.bincount(group, left) * np.bincount(group, right)
        alone = np.bincount(group) == 1
        selected = ((pairs > 0) & ~alone)[group]
        order, group = order[selected], group[selected]
        entries = _Entries(*(column[order] for column in entries))
        sizes, required = sets.sizes[entries.set], _required(sets.sizes[entries.set])
        last = sets.starts[entries.set] + np.minimum(sizes, sizes - required + level + 1)
        return cls(entries, group, left[selected], right[selected], required, last - entries.place - 1)

    def ends(self) -> np.ndarray:
        """Whether the sets of an entry's key are compared (E,): where that is cheaper than longer keys."""
        if not len(self.group):
            return np.empty(0, dtype=bool)
        pairs = np.bincount(self.group, self.is_left) * np.bincount(self.group, self.is_right)
        cheap: np.ndarray = pairs <= PAIRS_PER_ENTRY * np.bincount(self.group, self.room)
        return np.take(cheap, self.group)

    def of_which(self, *conditions: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield blocks of pairs of sets under the same key, left and right, of those entries."""
        which = np.logical_and.reduce(conditions)
        left, right = np.flatnonzero(which & self.is_left), np.flatnonzero(which & self.is_right)
        starts = np.searchsorted(self.group[right], self.group[left], "left")
        counts = np.searchsorted(self.group[right], self.group[left], "right") - starts
        for block in _blocks(counts):
            rows, columns = np.repeat(left[block], counts[block]), right[_ranges(starts[block], counts[block])]
            yield self.entries.set[rows], self.entries.set[columns]

    def longer(self, which: np.ndarray, sets: _WordSets) -> _Entries:
        """Entries under keys of one word more."""
        entries, room = _Entries(*(column[which] for column in self.entries)), self.room[which]
        places = _ranges(entries.place + 1, room)
        key = _mixed(np.repeat(entries.key, room) + sets.words_at(places).view(np.uint64))
        return _Entries(np.repeat(entries.set, room), places, key)


class _Filter:
    """Compares pairs of word sets.

    Args:
        sets: the sets.
        is_left, is_right: which of them are left and right, bool (S,).
    """

    def __init__(self, sets: _WordSets, is_left: np.ndarray, is_right: np.ndarray) -> None:
        self._sets, self._sizes = sets, sets.sizes
        self._one_sided = bool(np.array_equal(is_left, is_right))
        # A bit for every word, joined by exclusive or: two sets differ in at least as many words as in bits.
        mixed = _mixed(sets.words_at(np.arange(len(sets.codes))))
        bits = np.uint64(1) << (mixed >> np.uint64(58))
        self._bits = np.bitwise_xor.reduceat(bits, sets.starts[:-1]) if len(bits) else bits

    def near_pairs(self, blocks: Iterator[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Codes a * S + b of the pairs that may be near, a < b."""
        codes = [np.empty(0, np.int64)]
        for left, right in blocks:
            selected = left < right if self._one_sided else left != right
            a, b = np.minimum(left, right)[selected], np.maximum(left, right)[selected]
            total = self._sizes[a] + self._sizes[b]
            smaller = np.minimum(self._sizes[a], self._sizes[b])
            fits = NEAR_WHOLE * smaller >= NEAR_PARTS * (total - smaller)
            differing = np.bitwise_count(self._bits[a] ^ self._bits[b])
            # shared >= 4/9 total, so at most total / 9 words are in one set only
            fits &= (NEAR_PARTS + NEAR_WHOLE) * differing.astype(np.int64) <= (NEAR_WHOLE - NEAR_PARTS) * total
            codes.append(np.unique(a[fits] * len(self._sizes) + b[fits]))
        return np.concatenate(codes)

    def exact(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether pairs are near, and their rarest common word; both (P,)."""
        near, rarest = np.empty(len(a), dtype=bool), np.empty(len(a), dtype=np.int64)
        for block in _blocks(self._sizes[a]):
            near[block], rarest[block] = self._compare(a[block], b[block])
        return near, rarest

    def _compare(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sets, sizes = self._sets, self._sizes[a]
        found_words = sets.words_at(_ranges(sets.starts[a], sizes))
        codes_in_b = np.repeat(b, sizes) * sets.vocabulary + found_words
        places = np.searchsorted(sets.codes, codes_in_b)
        is_common = sets.codes[np.minimum(places, len(sets.codes) - 1)] == codes_in_b
        starts = np.cumsum(sizes) - sizes
        shared = np.add.reduceat(is_common, starts, dtype=np.int64)
        rarest = np.minimum.reduceat(np.where(is_common, found_words, sets.vocabulary), starts)
        return NEAR_WHOLE * shared >= NEAR_PARTS * (sizes + self._sizes[b] - shared), rarest


def _members(
    sets: _WordSets, near: _Near, is_left: np.ndarray, is_right: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The texts of near sets, and of equal ones: left text, right text and rarest common word, all (P,)."""
    every = np.arange(len(sets.sizes))
    rarest = sets.words_at(sets.starts[:-1])
    a, b = np.concatenate([every, near.a, near.b]), np.concatenate([every, near.b, near.a])
    text_pairs = _text_pairs(sets, a, b)
    selected = is_left[text_pairs[0]] & is_right[text_pairs[1]]
    words_of = np.concatenate([rarest, near.rarest, near.rarest])[text_pairs[2]]
    return sets.text[text_pairs[0][selected]], sets.text[text_pairs[1][selected]], words_of[selected]


def _text_pairs(sets: _WordSets, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places in `sets.text` of every text of a set with every text of another, and the number of the pair of sets."""
    counts = np.diff(sets.first)
    rows = _ranges(sets.first[a], counts[a])
    pair = np.repeat(np.arange(len(a)), counts[a])
    columns = _ranges(sets.first[b[pair]], counts[b[pair]])
    repeats = counts[b[pair]]
    return np.repeat(rows, repeats), columns, np.repeat(pair, repeats)


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Concatenate `arange(start, start + length)` of all."""
    earlier_lengths = np.cumsum(lengths) - lengths
    ranges: np.ndarray = np.arange(int(lengths.sum())) + np.repeat(starts - earlier_lengths, lengths)
    return ranges


def _blocks(counts: np.ndarray) -> Iterator[slice]:
    """Cut rows into blocks whose counts add up to about `BLOCK_PAIRS`."""
    ends = np.searchsorted(counts.cumsum(), np.arange(BLOCK_PAIRS, counts.sum() + BLOCK_PAIRS, BLOCK_PAIRS)) + 1
    start = 0
    for end in np.minimum(ends, len(counts)).tolist():
        if end > start:
            yield slice(start, end)
            start = end


def _sums(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Sums of consecutive values, of those from each start to the next; whole numbers that may overflow."""
    return np.add.reduceat(values, starts) if len(starts) else values[:0]


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Hash whole numbers to uint64 (the finaliser of SplitMix64)."""
    mixed = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
