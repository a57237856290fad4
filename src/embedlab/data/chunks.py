"""Split a text into chunks of words or sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from embedlab.data.text_analysis import unspaced_words
from embedlab.errors import ParameterError

_SPEC = re.compile(r"(\d+)(?:\+(\d+))?( sentences)?")
_WORD = re.compile(r"\S+")
_SENTENCE = re.compile(r"\S.*?(?:(?<=[.!?])(?=\s)|(?<=[。！？])(?![。！？」』”’）])|$)", re.DOTALL)


class _Unit(NamedTuple):
    """A word or a sentence: characters [start, end) of the text, and its number of words."""

    start: int
    end: int
    words: int


@dataclass(frozen=True)
class Chunking:
    """How to split a document into chunks.

    Attributes:
        size: maximum number of words in a chunk; words are separated by white space. In Chinese, Japanese, Thai and
            other scripts without spaces, two characters count as a word.
        overlap: maximum number of words that a chunk repeats from the previous one.
        sentences: split between sentences only (after . ! or ? and white space, and after 。！？). A sentence longer
            than `size` is split between words.

    Raises:
        ParameterError: the overlap is not smaller than the size.
    """

    size: int
    overlap: int = 0
    sentences: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.size:
            problem = f"overlap must be from 0 to size - 1, got overlap {self.overlap} and size {self.size}"
            raise ParameterError(problem, remedy="Reduce the overlap", field="chunkings")

    @classmethod
    def parse(cls, spec: str) -> Chunking:
        """Parse `128`, `128+32` (overlap) or `128+32 sentences`.

        Raises:
            ParameterError: the text has another form.
        """
        if not (match := _SPEC.fullmatch(spec.strip())):
            problem = f"expected SIZE, SIZE+OVERLAP or SIZE+OVERLAP sentences, got {spec!r}"
            raise ParameterError(problem, remedy="Write 128+32, for example", field="chunkings")
        size, overlap, sentences = match.groups()
        return cls(int(size), int(overlap or 0), bool(sentences))

    def __str__(self) -> str:
        overlap = f"+{self.overlap}" if self.overlap else ""
        return f"{self.size}{overlap}{' sentences' if self.sentences else ''}"

    def split(self, text: str) -> list[str]:
        """Split `text` into chunks, in order; a text that fits one chunk is returned unchanged.

        >>> Chunking(3, 1).split("a b c d e f")
        ['a b c', 'c d e', 'e f']
        """
        units = list(self._units(text))
        if sum(unit.words for unit in units) <= self.size:
            return [text]
        windows = _windows([unit.words for unit in units], self.size, self.overlap)
        return [text[units[first].start : units[last - 1].end] for first, last in windows]

    def _units(self, text: str) -> Iterator[_Unit]:
        words = [span for match in _WORD.finditer(text) for span in unspaced_words(text, *match.span())]
        if not self.sentences:
            yield from (_Unit(start, end, 1) for start, end in words)
            return
        starts = np.array([start for start, _ in words])
        for sentence in _SENTENCE.finditer(text):
            first, last = np.searchsorted(starts, sentence.span())
            for begin in range(first, last, self.size):
                end = min(begin + self.size, last)
                yield _Unit(words[begin][0], words[end - 1][1], end - begin)


def _windows(words: Sequence[int], size: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Yield unit ranges [first, last) with at most `size` words each, of which at most `overlap` are repeated."""
    first = 0
    while True:
        last, total = first, 0
        while last < len(words) and total + words[last] <= size:
            total += words[last]
            last += 1
        yield first, last
        if last == len(words):
            return
        following, repeated = last, 0
        room = min(overlap, size - words[last])  # otherwise the next chunk would contain nothing new
        while following - 1 > first and repeated + words[following - 1] <= room:
            following -= 1
            repeated += words[following]
        first = following
