"""Search across languages without an embedding model: a glossary for BM25, and character n-grams.

The glossary is learned from translations with IBM Model 1 (Brown et al., "The Mathematics of Statistical Machine
Translation", 1993): every word of a translation comes from one word of the original. Nobody says from which one, so
expectation and maximisation alternate.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from embedlab.data.dataset import Dataset
from embedlab.data.splits import seeded_order
from embedlab.data.text_analysis import characters, search_words, unseparated_parts, without_accents
from embedlab.search.exact import ABSENT, Ranking, matched, require_depth

ITERATIONS = 5
MIN_PROBABILITY = 0.1
MOST = 3  # translations of a word
CHARACTERS = (3, 5)  # shortest and longest n-gram
QUERIES_PER_BATCH = 256

_WORDS_AND_SPACES = re.compile(r"\s+|\S+")

Glossary = Mapping[str, Mapping[str, float]]  # word -> {its translation: probability}, the most probable first


def learn_glossary(
    sources: Sequence[str],
    targets: Sequence[str],
    *,
    iterations: int = ITERATIONS,
    most: int = MOST,
    min_probability: float = MIN_PROBABILITY,
) -> dict[str, dict[str, float]]:
    """Estimate the probabilities t(target word | source word) of pairs of translations.

    Words are those of BM25, see `search_words`: Chinese and Japanese text is cut into pairs of characters.

    Args:
        sources: N texts, in one language or several.
        targets: their N translations.
        iterations: of expectation and maximisation.
        most: translations to keep for a word.
        min_probability: drop less probable translations.

    Returns:
        Word -> {translation: probability}, the most probable first. Words without a probable translation are left out.

    >>> pairs = [("rote Pumpe", "red pump"), ("rote Lampe", "red lamp"), ("neue Pumpe", "new pump")]
    >>> learn_glossary(*zip(*pairs), iterations=20, most=1).get("pumpe").keys()
    dict_keys(['pump'])
    """
    source_number: dict[str, int] = {}
    target_number: dict[str, int] = {}
    cells, places, place = [], [], 0
    for source, target in zip(sources, targets, strict=True):
        left = [source_number.setdefault(word, len(source_number)) for word in dict.fromkeys(search_words(source))]
        right = [target_number.setdefault(word, len(target_number)) for word in dict.fromkeys(search_words(target))]
        if left and right:
            cells.append(np.array([(s, t) for t in right for s in left], dtype=np.int64))
            places.append(place + np.repeat(np.arange(len(right)), len(left)))
            place += len(right)
    if not cells:
        return {}
    pairs = np.concatenate(cells)
    codes, entry = np.unique(pairs[:, 0] * len(target_number) + pairs[:, 1], return_inverse=True)
    of_source = codes // len(target_number)
    probability = _probabilities(entry, np.concatenate(places), of_source, iterations)
    return _best(codes, probability, list(source_number), list(target_number), most, min_probability)


def _probabilities(entry: np.ndarray, place: np.ndarray, of_source: np.ndarray, iterations: int) -> np.ndarray:
    """t(target | source) of every pair of words that occurs (E,).

    Args:
        entry: (C,) pair of words of every cell: a target word of a text and a source word of its original.
        place: (C,) number of the target word's place in the texts.
        of_source: (E,) source word of every pair.
        iterations: see `learn_glossary`.
    """
    probability = np.ones(len(of_source))
    for _ in range(iterations):
        weight = probability[entry]
        expected = np.bincount(entry, weight / np.bincount(place, weight)[place], minlength=len(of_source))
        probability = expected / np.bincount(of_source, expected)[of_source]
    return probability


def _best(
    codes: np.ndarray, probability: np.ndarray, sources: list[str], targets: list[str], most: int, lowest: float
) -> dict[str, dict[str, float]]:
    glossary: dict[str, dict[str, float]] = {}
    probable = np.flatnonzero(probability >= lowest)
    for pair in probable[np.argsort(-probability[probable], kind="stable")]:
        translations = glossary.setdefault(sources[codes[pair] // len(targets)], {})
        if len(translations) < most:
            translations[targets[codes[pair] % len(targets)]] = float(probability[pair])
    return glossary


def expand(queries: Mapping[str, str], glossary: Glossary) -> dict[str, str]:
    """Add the translations of its words to every query, for BM25.

    Args:
        queries: query id -> text.
        glossary: of the language of these queries.
    """
    return {
        query: " ".join([text, *(other for word in search_words(text) for other in glossary.get(word, ()))])
        for query, text in queries.items()
    }


def code_mixed(
    queries: Mapping[str, str], glossary: Glossary, share: float = 0.5, *, most: int | None = None
) -> dict[str, str]:
    """Replace words of queries by their most probable translation: queries that mix two languages.

    In scripts without spaces, pairs of characters are replaced.

    >>> code_mixed({"q": "急性肝炎"}, {"急性": {"acute": 0.9}}, 1.0)
    {'q': 'acute 肝炎'}

    Args:
        queries: query id -> text.
        glossary: of the language of these queries.
        share: of the words that have a translation; which ones depends on the words only.
        most: return at most so many queries, chosen by their ids.

    Returns:
        Query id -> text, of the queries in which a word was replaced.
    """
    mixed = {}
    for query, text in queries.items():
        parts = _parts(text, glossary)
        candidates = [str(position) for position, (_, translation) in enumerate(parts) if translation]
        count = round(share * len(candidates) + 1e-9)
        replaced = {int(position) for position in seeded_order(candidates)[:count]}
        if replaced:
            changed = (f" {new} " if position in replaced else old for position, (old, new) in enumerate(parts))
            mixed[query] = " ".join("".join(changed).split())
    return {query: mixed[query] for query in seeded_order(mixed)[:most]}


def _parts(text: str, glossary: Glossary) -> list[tuple[str, str]]:
    """The words of a text with their translations, empty if unknown, and what is between the words."""
    parts = []
    for segment, unseparated in unseparated_parts(text):
        pieces = characters(segment) if unseparated else _WORDS_AND_SPACES.findall(segment)
        while pieces:
            pair = "".join(pieces[:2])
            length = 2 if unseparated and _translation(pair, glossary) else 1
            word = "".join(pieces[:length])
            parts.append((word, _translation(word, glossary)))
            del pieces[:length]
    return parts


def _translation(word: str, glossary: Glossary) -> str:
    """The most probable translation of a word, as `search_words` writes it; empty if it has none."""
    in_search = search_words(word)
    return next(iter(glossary.get(in_search[0], {})), "") if len(in_search) == 1 else ""


def character_ranking(dataset: Dataset, split: str, k: int) -> Ranking:
    """Rank documents by the cosine of TF-IDF weights of character n-grams within words; nothing is trained.

    McNamee and Mayfield, "Character N-Gram Tokenization for European Language Text Retrieval" (2004). This is
    scikit-learn's `TfidfVectorizer(analyzer="char_wb")`.

    Args:
        dataset: queries and corpus.
        split: whose queries.
        k: documents per query; of those with a cosine of 0 none is found. If that is so for all queries, the ranking
            is not measurable.

    Raises:
        ParameterError: `k` is below 1.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    require_depth(k)
    queries, own_documents = dataset.split_queries(split), dataset.own_documents(split)
    vectorizer = TfidfVectorizer(
        analyzer="char_wb", ngram_range=CHARACTERS, strip_accents=without_accents, sublinear_tf=True, dtype=np.float32
    )
    documents = vectorizer.fit_transform(dataset.corpus.values()).T.tocsr()
    weights = vectorizer.transform(queries.values())
    depth = min(k + bool(own_documents), len(dataset.corpus))
    indices = np.full((len(queries), depth), ABSENT, dtype=np.int64)
    scores = np.full((len(queries), depth), -np.inf, dtype=np.float32)
    for start in range(0, len(queries), QUERIES_PER_BATCH):
        rows = slice(start, start + QUERIES_PER_BATCH)
        cosines = (weights[rows] @ documents).toarray()
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :depth]
        of_best = np.take_along_axis(cosines, best, axis=1)
        indices[rows], scores[rows] = np.where(of_best > 0, best, ABSENT), np.where(of_best > 0, of_best, -np.inf)
    ranking = Ranking(tuple(queries), tuple(dataset.corpus), indices, scores)
    return matched(ranking.without_own(own_documents, k) if own_documents else ranking)
