"""Stop words and stemmers by language, and the language of texts.

Stop words and stemming follow the language of the documents, because query and document must become the same stem.
Words in another script than that language are stemmed by the usual language of their script, so Russian words in an
English corpus are stemmed as Russian.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING

import regex

from embedlab.data.text_analysis import search_words
from embedlab.errors import ParameterError

if TYPE_CHECKING:
    from Stemmer import Stemmer

DEFAULT = "en"  # of Latin script, when the texts do not tell
STEMMERS = {  # language -> Snowball algorithm
    **{"ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english"},
    **{"es": "spanish", "et": "estonian", "eu": "basque", "fa": "persian", "fi": "finnish", "fr": "french"},
    **{"ga": "irish", "hi": "hindi", "hu": "hungarian", "hy": "armenian", "id": "indonesian", "it": "italian"},
    **{"lt": "lithuanian", "ne": "nepali", "nl": "dutch", "no": "norwegian", "nb": "norwegian", "pl": "polish"},
    **{"pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian", "sv": "swedish", "ta": "tamil"},
    **{"tr": "turkish", "yi": "yiddish"},
}
STOP_WORDS = {  # language -> its list in bm25s
    **{"da": "DANISH", "de": "GERMAN", "en": "EN", "es": "SPANISH", "fr": "FRENCH", "it": "ITALIAN", "nb": "NORWEGIAN"},
    **{"nl": "DUTCH", "no": "NORWEGIAN", "pt": "PORTUGUESE", "ru": "RUSSIAN", "sv": "SWEDISH", "tr": "TURKISH"},
}
DETECTED = tuple(language for language in STOP_WORDS if language not in ("nb", "ru"))  # Russian has its script
MIN_SHARE, MIN_FOUND = 0.015, 2  # of words that are stop words of one language only; fewer tell nothing
SAMPLE = 5_000  # texts to look at
SCRIPTS = {"Arabic": "ar", "Armenian": "hy", "Cyrillic": "ru", "Devanagari": "hi", "Greek": "el", "Tamil": "ta"}
SCRIPT_OF = {  # languages that are not written in Latin script
    **{"bg": "Cyrillic", "fa": "Arabic", "he": "Hebrew", "ja": "Han", "ko": "Hangul", "ne": "Devanagari"},
    **{"sr": "Cyrillic", "th": "Thai", "uk": "Cyrillic", "ur": "Arabic", "yi": "Hebrew", "zh": "Han"},
    **{language: script for script, language in SCRIPTS.items()},
}

_CODE = re.compile(r"[a-z]{2,3}([_-][A-Za-z0-9]{2,8})*")
_SCRIPT = regex.compile(
    "|".join(rf"(?P<{name}>\p{{{name}}})" for name in dict.fromkeys((*SCRIPTS, *SCRIPT_OF.values())))
)


def detect_language(texts: Collection[str]) -> str:
    """Find the language of most texts in Latin script, by stop words that no other language has.

    Args:
        texts: some or many; of more than 5,000, every n-th is read.

    Returns:
        Code such as `de`; empty if the texts do not tell: too few stop words, or no Latin script.

    >>> detect_language(["Schmerzen in der Brust", "Fieber und Husten nach einer Reise"])
    'de'
    """
    step = len(texts) // SAMPLE + 1
    counts = Counter(word for number, text in enumerate(texts) if number % step == 0 for word in search_words(text))
    hits = {language: sum(counts[word] for word in stops) for language, stops in _own_stop_words().items()}
    best = max(hits, key=lambda language: hits[language])
    enough = max(MIN_FOUND, MIN_SHARE * counts.total())
    return best if hits[best] >= enough else ""


def stop_words(language: str) -> frozenset[str]:
    """Return the stop words of a language; none if there is no list.

    Args:
        language: code such as `de` or `pt_br`.

    Raises:
        ParameterError: see `check_language`.
    """
    from bm25s import stopwords

    name = STOP_WORDS.get(check_language(language))
    return frozenset(getattr(stopwords, f"STOPWORDS_{name}")) if name else frozenset()


def stemmed_words(texts: Iterable[str], language: str = DEFAULT) -> list[list[str]]:
    """Split texts into stemmed words without stop words; see `text_analysis.search_words`.

    Args:
        texts: N texts.
        language: of the documents, a code such as `de`. Without a stemmer for it, words stay as they are.

    Returns:
        N lists of words.

    >>> stemmed_words(["Die Entzündungen der Gelenke"], "de")
    [['entzund', 'gelenk']]

    Raises:
        ParameterError: see `check_language`.
    """
    languages = _by_script(check_language(language))
    ignored = frozenset().union(*map(stop_words, languages.values()))
    stemmers = {script: _stemmer(STEMMERS[code]) for script, code in languages.items() if code in STEMMERS}
    return [_stems([word for word in search_words(text) if word not in ignored], stemmers) for text in texts]


def check_language(language: str) -> str:
    """Return the language of a code without its region: `pt` for `pt_br`.

    Raises:
        ParameterError: it is not a code of two or three letters.
    """
    if not _CODE.fullmatch(language):
        remedy = "Write a code of two or three letters, such as de, or pt_br with a region"
        raise ParameterError(f"{language!r} is not the code of a language", remedy=remedy, field="language")
    return re.split("[_-]", language)[0]


def _stems(words: list[str], stemmers: Mapping[str, Stemmer]) -> list[str]:
    """Stem words, each by the stemmer of its script; "" is Latin script."""
    latin = stemmers.get("")
    if all(map(str.isascii, words)):
        return latin.stemWords(words) if latin else words
    stems = []
    for word in words:
        script = _SCRIPT.match(word)
        stemmer = stemmers.get(script.lastgroup) if script else latin
        stems.append((stemmer.stemWord(word) if stemmer else "") or word)  # some stemmers leave nothing of a word
    return stems


def _by_script(language: str) -> dict[str, str]:
    """Script -> its language: the given one for its own script, the usual ones for the others; "" is Latin script."""
    return {"": DEFAULT, **SCRIPTS, SCRIPT_OF.get(language, ""): language}


@cache
def _stemmer(algorithm: str) -> Stemmer:
    import Stemmer

    return Stemmer.Stemmer(algorithm)


@cache
def _own_stop_words() -> dict[str, frozenset[str]]:
    """Language -> stop words that no other language has."""
    from bm25s.stopwords import STOPWORDS_EN_PLUS

    lists = {language: stop_words(language) for language in DETECTED}
    lists["en"] |= frozenset(STOPWORDS_EN_PLUS)
    languages_with = Counter(word for words in lists.values() for word in words)
    return {language: frozenset(w for w in words if languages_with[w] == 1) for language, words in lists.items()}
