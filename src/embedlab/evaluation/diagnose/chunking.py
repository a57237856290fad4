"""Documents cut into chunks, and documents ranked by their best chunk."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from embedlab.errors import ParameterError
from embedlab.search.exact import ABSENT, Ranking
from embedlab.search.vectors import Vectors

_SPEC = re.compile(r"(\d+)(?:\+(\d+))?( sentences)?")
_WORD = re.compile(r"\S+")
_SENTENCE = re.compile(r"\S.*?(?:(?<=[.!?])(?=\s)|$)", re.DOTALL)


class _Unit(NamedTuple):
    """What a chunk is made of, a word or a sentence: characters [start, end) of the text and how many words."""

    start: int
    end: int
    words: int


@dataclass(frozen=True)
class Chunking:
    """How to cut a document.

    Attributes:
        size: most words in a chunk; words are what white space separates.
        overlap: most words that a chunk repeats from the one before.
        sentences: cut between sentences only (after . ! or ? and white space); a sentence longer than `size` is cut
            between words.
    """

    size: int
    overlap: int = 0
    sentences: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.size:
            problem = f"chunks of {self.size} words cannot overlap by {self.overlap}"
            raise ParameterError(problem, remedy="Let the overlap be smaller than the size", field="chunkings")

    @classmethod
    def parse(cls, spec: str) -> Chunking:
        """`128`, `128+32` (overlap), `128+32 sentences`.

        Raises:
            ParameterError: it is none of these.
        """
        if not (match := _SPEC.fullmatch(spec.strip())):
            remedy = "Write SIZE, SIZE+OVERLAP or SIZE+OVERLAP sentences, in words"
            raise ParameterError(f"{spec!r} is no way to chunk", remedy=remedy, field="chunkings")
        size, overlap, sentences = match.groups()
        return cls(int(size), int(overlap or 0), bool(sentences))

    def __str__(self) -> str:
        overlap = f"+{self.overlap}" if self.overlap else ""
        return f"{self.size}{overlap}{' sentences' if self.sentences else ''}"

    def split(self, text: str) -> list[str]:
        """The chunks of `text`, in order, as they stand there; a text that fits one chunk is returned as it is.

        >>> Chunking(3, 1).split("a b c d e f")
        ['a b c', 'c d e', 'e f']
        """
        units = list(self._units(text))
        if sum(unit.words for unit in units) <= self.size:
            return [text]
        spans = _windows([unit.words for unit in units], self.size, self.overlap)
        return [text[units[first].start : units[last - 1].end] for first, last in spans]

    def _units(self, text: str) -> Iterator[_Unit]:
        words = [match.span() for match in _WORD.finditer(text)]
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
    """Unit ranges [first, last) that hold at most `size` words each and repeat at most `overlap` of them."""
    first = 0
    while True:
        last, held = first, 0
        while last < len(words) and held + words[last] <= size:
            held += words[last]
            last += 1
        yield first, last
        if last == len(words):
            return
        following, repeated = last, 0
        room = min(overlap, size - words[last])  # or the next chunk would hold nothing new
        while following - 1 > first and repeated + words[following - 1] <= room:
            following -= 1
            repeated += words[following]
        first = following


@dataclass(frozen=True, eq=False)
class Chunks:
    """A corpus in chunks.

    Attributes:
        texts: C chunks, those of a document side by side, documents in corpus order.
        owners: int64 (C,), the place in the corpus of the document that each chunk comes from.
    """

    texts: tuple[str, ...]
    owners: np.ndarray

    @classmethod
    def of(cls, corpus: Mapping[str, str], chunking: Chunking) -> Chunks:
        """Every document of `corpus` cut; a document without text is one empty chunk."""
        parts = [chunking.split(text) for text in corpus.values()]
        owners = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        return cls(tuple(chunk for part in parts for chunk in part), owners)


def rank_by_best_chunk(queries: Vectors, chunks: Chunks, chunk_vectors: np.ndarray, k: int) -> Ranking:
    """The k documents whose best chunk is nearest; exact.

    The first k different documents in the ranking of chunks are those with the k largest maxima, so chunks are searched
    deeper and deeper until every query has found them.

    Args:
        queries: the queries, and the ids of the documents; its corpus vectors are not used.
        chunks: the corpus in chunks.
        chunk_vectors: (C, d), one per chunk.
        k: documents per query.
    """
    names = tuple(map(str, range(len(chunks.owners))))
    vectors = Vectors(queries.query_ids, names, queries.queries, chunk_vectors)
    wanted, depth = min(k, len(queries.corpus_ids)), 2 * k
    while True:
        found = vectors.rank(depth, stage="search chunks")
        ranking = _documents(found, chunks.owners, queries.corpus_ids, wanted)
        if depth >= len(names) or (ranking.indices != ABSENT).all():
            return ranking
        depth *= 2


def _documents(found: Ranking, owners: np.ndarray, corpus_ids: tuple[str, ...], k: int) -> Ranking:
    """Chunks found (Q, depth) as the first k different documents, each with the score of its best chunk."""
    indices = np.full((len(found.query_ids), k), ABSENT, dtype=np.int64)
    scores = np.full((len(found.query_ids), k), -np.inf, dtype=np.float32)
    for row, documents in enumerate(owners[found.indices]):
        places = np.sort(np.unique(documents, return_index=True)[1])[:k]
        indices[row, : len(places)] = documents[places]
        scores[row, : len(places)] = found.scores[row, places]
    return Ranking(found.query_ids, corpus_ids, indices, scores)
