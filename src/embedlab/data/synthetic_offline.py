"""Generate queries for documents without a language model, by five rules.

| kind | rule |
|---|---|
| title | the first sentence |
| crop | a random span of 40 to 80 % of the words of a random sentence (inverse cloze task, Lee et al., ACL 2019) |
| keywords | up to 6 words with the highest tf-idf, in the order of the document |
| dropout | a random sentence without some of its words; rare words are dropped less often |
| expand | the first sentence, with one phrase replaced by a synonym that the corpus gives in brackets |

Long sentences are truncated to 16 consecutive words, about the length of a long query.

Except for `expand`, the rules only copy words from the document. This is their known weakness: a model learns little
from queries with high lexical overlap (measure it with `quality.closeness`).
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from embedlab import progress
from embedlab.data.synthetic import SyntheticQuery
from embedlab.data.text_analysis import normalise, words

MAX_WORDS, MAX_KEYWORDS = 16, 6
CROP = (0.4, 0.8)  # share of the sentence's words
MAX_DROP = 0.6  # probability of dropping a word that occurs in every document

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9])|\n+")
_BRACKETS = re.compile(r"([^()\[\],;]+)[(\[]([^()\[\]]{2,60})[)\]]")
_BREAK = re.compile(r"[.:!?]\s|\s-\s")  # no phrase extends across these


@dataclass(frozen=True)
class CorpusFacts:
    """Statistics of a corpus that the rules use.

    Attributes:
        rarity: word -> idf divided by log N, from 0 (in every document) to 1 (in one document).
        synonyms: phrase in normal form -> its synonyms in the corpus.
    """

    rarity: Mapping[str, float]
    synonyms: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, corpus: Mapping[str, str]) -> CorpusFacts:
        """Count words and collect synonyms.

        Args:
            corpus: document id -> text.
        """
        counts = Counter(word for text in corpus.values() for word in set(words(text)))
        total = max(math.log(len(corpus)), 1e-9) if corpus else 1.0
        rarity = {word: 1 - math.log(count) / total for word, count in counts.items()}
        return cls(rarity, bracket_synonyms(corpus.values()))


def bracket_synonyms(texts: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Find synonyms that a text gives in brackets: abbreviations and other names.

    Round brackets mostly contain remarks, so there we use only abbreviations, recognised by their letters (Schwartz and
    Hearst, PSB 2003). Square brackets contain other names for everything in front of them. Abbreviations that are also
    ordinary words of the texts (ALL, CAR) are not expanded.

    Args:
        texts: the documents.

    Returns:
        Phrase in normal form -> its synonyms, in both directions.

    >>> bracket_synonyms(["Deficiency of human growth hormone (HGH)"])
    {'human growth hormone': ('HGH',), 'hgh': ('human growth hormone',)}
    """
    synonyms: dict[str, dict[str, None]] = {}
    for text in texts:
        for match in _BRACKETS.finditer(text):
            preceding, inside = _BREAK.split(match.group(1))[-1].strip(), match.group(2).strip()
            is_name = "[" in match.group() and not _is_abbreviation(inside)
            long = long_form(preceding, inside) or (preceding if is_name else None)
            if long and normalise(long) != normalise(inside):
                synonyms.setdefault(normalise(long), {})[inside] = None
                synonyms.setdefault(normalise(inside), {})[long] = None
    plain = {word for text in texts for word in text.split() if word.islower()} if synonyms else set()
    return {phrase: tuple(names) for phrase, names in synonyms.items() if phrase not in plain}


def long_form(text: str, abbreviation: str) -> str | None:
    """Find the end of `text` that `abbreviation` stands for (Schwartz and Hearst, PSB 2003).

    The letters of the abbreviation must occur in this order, the first one at the start of a word. The long form has at
    most min(n + 5, 2 n) words, where n is the number of letters.

    Args:
        text: the words in front of the bracket.
        abbreviation: the text in the bracket.

    Returns:
        The long form; None if there is none.

    >>> long_form("Deficiency of human growth hormone", "HGH")
    'human growth hormone'
    """
    if not _is_abbreviation(abbreviation):
        return None
    letters = [letter for letter in abbreviation.casefold() if letter.isalnum()]
    lowered, start = text.casefold(), len(text)
    for index in range(len(letters) - 1, -1, -1):
        start = lowered.rfind(letters[index], 0, start)
        while start > 0 and index == 0 and lowered[start - 1].isalnum():
            start = lowered.rfind(letters[index], 0, start)
        if start < 0:
            return None
    long = text[start:]
    fits = len(long.split()) <= min(len(letters) + 5, 2 * len(letters)) and len(long) > len(abbreviation)
    return long if fits else None


def offline_queries(
    documents: Mapping[str, str],
    corpus: Mapping[str, str],
    *,
    per_document: int = 3,
    seed: int = 0,
) -> list[SyntheticQuery]:
    """Generate up to `per_document` different queries per document.

    Args:
        documents: document id -> text, of the documents that get queries.
        corpus: document id -> text, for word rarity and synonyms.
        per_document: maximum number of queries per document. The rules are drawn at random, except that `expand` comes
            first if it applies.
        seed: a document's queries depend only on this seed and the document's id.

    Returns:
        The queries, in the order of `documents`. No query equals its document.
    """
    facts, queries = CorpusFacts.of(corpus), []
    for document, text in progress.track(documents.items(), "offline queries", total=len(documents)):
        rng = random.Random(f"{seed}:{document}")
        forms = {normalise(text)}
        for kind in sorted(rng.sample(list(RULES), len(RULES)), key=lambda kind: kind != "expand"):
            query = RULES[kind](text, facts, rng)
            if query and normalise(query) not in forms and len(forms) <= per_document:
                forms.add(normalise(query))
                queries.append(SyntheticQuery(query, document, kind))
    return queries


def _title(text: str, facts: CorpusFacts, rng: random.Random) -> str:
    return " ".join(_sentences(text)[0].split()[:MAX_WORDS])


def _crop(text: str, facts: CorpusFacts, rng: random.Random) -> str:
    words_in_a_row = _random_words(text, rng)
    length = max(1, round(rng.uniform(*CROP) * len(words_in_a_row)))
    return " ".join(_span(words_in_a_row, length, rng)).strip(",;: ")


def _keywords(text: str, facts: CorpusFacts, rng: random.Random) -> str:
    count = Counter(words(text))
    best = sorted(count, key=lambda word: -count[word] * facts.rarity.get(word, 1.0))
    keywords = set(best[: min(MAX_KEYWORDS, math.ceil(len(count) / 2))])
    return " ".join(word for word in count if word in keywords)


def _dropout(text: str, facts: CorpusFacts, rng: random.Random) -> str:
    sentence = words(" ".join(_random_words(text, rng)))
    return " ".join(word for word in sentence if rng.random() >= MAX_DROP * (1 - facts.rarity.get(word, 1.0)))


def _expand(text: str, facts: CorpusFacts, rng: random.Random) -> str | None:
    """The first sentence with its longest known phrase replaced; None if no phrase has a synonym."""
    sentence = words(_title(text, facts, rng))
    spans = [
        (start, end)
        for start in range(len(sentence))
        for end in range(start + 1, len(sentence) + 1)
        if " ".join(sentence[start:end]) in facts.synonyms
    ]
    if not spans:
        return None
    start, end = max(spans, key=lambda span: span[1] - span[0])
    other = rng.choice(facts.synonyms[" ".join(sentence[start:end])])
    rest = [word for word in sentence[end:] if word not in words(other)]  # drops the bracket that contains the synonym
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


def _random_words(text: str, rng: random.Random) -> list[str]:
    """At most MAX_WORDS consecutive words of a random sentence."""
    sentence = rng.choice(_sentences(text)).split()
    return _span(sentence, min(MAX_WORDS, len(sentence)), rng)


def _span(sentence: list[str], length: int, rng: random.Random) -> list[str]:
    start = rng.randrange(len(sentence) - length + 1)
    return sentence[start : start + length]


def _is_abbreviation(text: str) -> bool:
    """Whether `text` is one word of 2 to 10 characters with a capital letter after the first character."""
    return 2 <= len(text) <= 10 and " " not in text and text[0].isalnum() and any(c.isupper() for c in text[1:])
