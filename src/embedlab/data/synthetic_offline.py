"""Queries made from documents without a language model, by five rules over the corpus alone.

| kind | rule |
|---|---|
| title | the first sentence |
| crop | a random span of 40 to 80 % of the words of a random sentence (inverse cloze task, Lee et al., ACL 2019) |
| keywords | the words with the highest tf-idf, up to 6, in the document's order |
| dropout | every word of a random sentence left out with a chance that falls with its rarity |
| expand | in the first sentence, one phrase replaced by what the corpus puts in brackets behind it, or the reverse |

Of a long sentence 16 words in a row are taken, as people do not type more.

The rules copy words; only `expand` brings in others. That is their known weakness: see `quality.closeness`.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from embedlab import progress
from embedlab.data.overlap import normalise, words
from embedlab.data.synthetic import SyntheticQuery
from embedlab.errors import ParameterError

MAX_WORDS, MAX_KEYWORDS = 16, 6
CROP = (0.4, 0.8)  # share of the sentence's words
MAX_DROP = 0.6  # chance of leaving out a word that every document has

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9])|\n+")
_BRACKETS = re.compile(r"([^()\[\],;]+)[(\[]([^()\[\]]{2,60})[)\]]")
_BREAK = re.compile(r"[.:!?]\s|\s-\s")  # no phrase goes across


@dataclass(frozen=True)
class CorpusFacts:
    """What the rules know about the corpus.

    Attributes:
        rarity: word -> share of log N, from 0 (in every document) to 1 (in one).
        synonyms: phrase in normal form -> phrases the corpus uses for it.
    """

    rarity: Mapping[str, float]
    synonyms: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, corpus: Mapping[str, str]) -> CorpusFacts:
        """Count words and gather synonyms."""
        counts = Counter(word for text in corpus.values() for word in set(words(text)))
        total = max(math.log(len(corpus)), 1e-9) if corpus else 1.0
        rarity = {word: 1 - math.log(count) / total for word, count in counts.items()}
        return cls(rarity, bracket_synonyms(corpus.values()))


def bracket_synonyms(texts: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Phrases that a text puts in brackets behind another, both ways: abbreviations and other names.

    Behind "(…)" only abbreviations count, found by their letters (Schwartz and Hearst, PSB 2003), as round brackets
    mostly hold remarks; square brackets hold names, which stand for everything before them. An abbreviation that is
    also a word of the texts (ALL, CAR) is never spelled out.

    >>> bracket_synonyms(["Deficiency of human growth hormone (HGH)"])
    {'human growth hormone': ('HGH',), 'hgh': ('human growth hormone',)}
    """
    synonyms: dict[str, dict[str, None]] = {}
    for text in texts:
        for match in _BRACKETS.finditer(text):
            before, inside = _BREAK.split(match.group(1))[-1].strip(), match.group(2).strip()
            long = long_form(before, inside) or (before if "[" in match.group() and not _is_short(inside) else None)
            if long and normalise(long) != normalise(inside):
                synonyms.setdefault(normalise(long), {})[inside] = None
                synonyms.setdefault(normalise(inside), {})[long] = None
    plain = {word for text in texts for word in text.split() if word.islower()} if synonyms else set()
    return {phrase: tuple(others) for phrase, others in synonyms.items() if phrase not in plain}


def long_form(before: str, short: str) -> str | None:
    """The end of `before` that `short` abbreviates, or None.

    The letters of `short` must occur in this order, the first at the start of a word, and the long form has at most
    min(|short| + 5, 2 |short|) words. Schwartz and Hearst, PSB 2003.

    >>> long_form("Deficiency of human growth hormone", "HGH")
    'human growth hormone'
    """
    if not _is_short(short):
        return None
    letters = [letter for letter in short.casefold() if letter.isalnum()]
    text, place = before.casefold(), len(before)
    for left, letter in zip(range(len(letters) - 1, -1, -1), reversed(letters), strict=True):
        place = text.rfind(letter, 0, place)
        while place > 0 and left == 0 and text[place - 1].isalnum():
            place = text.rfind(letter, 0, place)
        if place < 0:
            return None
    found = before[place:]
    fits = len(found.split()) <= min(len(letters) + 5, 2 * len(letters)) and len(found) > len(short)
    return found if fits else None


def offline_queries(
    documents: Mapping[str, str],
    corpus: Mapping[str, str],
    *,
    per_document: int = 3,
    kinds: Iterable[str] = ("title", "crop", "keywords", "dropout", "expand"),
    seed: int = 0,
) -> list[SyntheticQuery]:
    """Up to `per_document` different queries per document, none of them the document itself.

    Args:
        documents: document id -> text to make queries for.
        corpus: document id -> text that rarity and synonyms are taken from.
        per_document: most queries per document; kinds are drawn at random, `expand` first where it applies.
        kinds: rules to draw from.
        seed: of all that is random; a document's queries depend on it and the document's id alone.

    Raises:
        ParameterError: an unknown kind.
    """
    kinds = list(kinds)
    if unknown := [kind for kind in kinds if kind not in RULES]:
        raise ParameterError(f"no rule '{unknown[0]}'", remedy=f"Known are {', '.join(RULES)}.", field="kinds")
    facts, queries = CorpusFacts.of(corpus), []
    for document, text in progress.track(documents.items(), "offline queries", total=len(documents)):
        rng = random.Random(f"{seed}:{document}")
        made = {normalise(text)}
        for kind in sorted(rng.sample(kinds, len(kinds)), key=lambda kind: kind != "expand"):
            query = RULES[kind](text, facts, rng)
            if query and normalise(query) not in made and len(made) <= per_document:
                made.add(normalise(query))
                queries.append(SyntheticQuery(query, document, kind))
    return queries


def _title(text: str, facts: CorpusFacts, rng: random.Random) -> str:
    return " ".join(_sentences(text)[0].split()[:MAX_WORDS])


def _crop(text: str, facts: CorpusFacts, rng: random.Random) -> str:
    stretch = _stretch(text, rng)
    return " ".join(_span(stretch, max(1, round(rng.uniform(*CROP) * len(stretch))), rng)).strip(",;: ")


def _keywords(text: str, facts: CorpusFacts, rng: random.Random) -> str:
    count = Counter(words(text))
    best = sorted(count, key=lambda word: -count[word] * facts.rarity.get(word, 1.0))
    chosen = set(best[: min(MAX_KEYWORDS, math.ceil(len(count) / 2))])
    return " ".join(word for word in count if word in chosen)


def _dropout(text: str, facts: CorpusFacts, rng: random.Random) -> str:
    stretch = words(" ".join(_stretch(text, rng)))
    return " ".join(word for word in stretch if rng.random() >= MAX_DROP * (1 - facts.rarity.get(word, 1.0)))


def _expand(text: str, facts: CorpusFacts, rng: random.Random) -> str | None:
    """The first sentence with one phrase replaced; None where the corpus knows no other name for any."""
    sentence = words(_title(text, facts, rng))
    places = [
        (start, end)
        for start in range(len(sentence))
        for end in range(start + 1, len(sentence) + 1)
        if " ".join(sentence[start:end]) in facts.synonyms
    ]
    if not places:
        return None
    start, end = max(places, key=lambda place: place[1] - place[0])
    other = rng.choice(facts.synonyms[" ".join(sentence[start:end])])
    rest = [word for word in sentence[end:] if word not in words(other)]  # the bracket that gave the synonym
    return " ".join([*sentence[:start], other, *rest])


RULES: dict[str, Callable[[str, CorpusFacts, random.Random], str | None]] = {
    "title": _title,
    "crop": _crop,
    "keywords": _keywords,
    "dropout": _dropout,
    "expand": _expand,
}


def _sentences(text: str) -> list[str]:
    return [sentence for sentence in _SENTENCE.split(text.strip()) if sentence.strip()] or [text]


def _stretch(text: str, rng: random.Random) -> list[str]:
    """At most MAX_WORDS words in a row of a random sentence."""
    sentence = rng.choice(_sentences(text)).split()
    return _span(sentence, min(MAX_WORDS, len(sentence)), rng)


def _span(sentence: list[str], length: int, rng: random.Random) -> list[str]:
    start = rng.randrange(len(sentence) - length + 1)
    return sentence[start : start + length]


def _is_short(text: str) -> bool:
    """Looks like an abbreviation: one word of 2 to 10 characters with a capital letter beyond the first."""
    return 2 <= len(text) <= 10 and " " not in text and text[0].isalnum() and any(c.isupper() for c in text[1:])
