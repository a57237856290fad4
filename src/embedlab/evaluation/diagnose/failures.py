"""Why a query missed: one cause each, by rules that anyone can check.

A query misses when no answer is among the first ten. The causes are tried in the order of `CAUSES` and the first whose
rule holds is the query's cause, so the order goes from what no model can mend to what says least.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from embedlab.data.dataset import Dataset
from embedlab.data.overlap import jaccard, normalise, words
from embedlab.evaluation.metrics import Evaluation
from embedlab.models.encoders import Encoder
from embedlab.search.bm25 import stemmed_words
from embedlab.search.exact import ABSENT, Ranking

HIT = 10  # an answer at this rank or above is found
SIBLING = 0.6  # Jaccard similarity of word sets from which two documents are near-duplicates
MANY_PIECES = 4  # word pieces from which a word counts as rare

_ACRONYM = re.compile(r"\b[A-Z][A-Z0-9]{1,5}s?\b")
_IDENTIFIER = re.compile(
    r"""\b(?!\d+(?:st|nd|rd|th)\b)     # no ordinals
    (?: (?=\w*\d)(?=\w*[^\W\d])\w+(?:[-./:]\w+)*  # letters and digits in one word: E11.9, B12
      | \w+(?:[-./:_]\d\w*)+          # parts of which a later one begins with a digit: HIV-2, 3.5.1
      | \d{4,} )\b                     # a long number""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Cause:
    """Why queries miss.

    Attributes:
        name: of the cause.
        rule: when it holds.
        remedy: what usually helps.
        learnable: whether training on pairs can mend it.
    """

    name: str
    rule: str
    remedy: str
    learnable: bool


CAUSES = (
    Cause(
        "cut or missing",
        "no answer has text in the corpus, or a word of the query stands in an answer only beyond what the model reads",
        "chunking",
        False,
    ),
    Cause(
        "ambiguous",
        f"one of the first {HIT} reads exactly like an answer, or another query reads the same and has other answers",
        "better judgements",
        False,
    ),
    Cause(
        "identifier", "the query and an answer share an identifier (a code, a version, a long number)", "hybrid", False
    ),
    Cause(
        "sibling above",
        f"one of the first {HIT} is related to an answer or shares {SIBLING:.0%} of its words with it",
        "hard negatives",
        True,
    ),
    Cause(
        "rare word or acronym",
        f"an acronym, or a word of {MANY_PIECES} or more pieces, of the query is in no answer",
        "fine-tuning, domain pretraining",
        True,
    ),
    Cause("no shared word", "the query shares no stemmed word, stop words aside, with any answer", "fine-tuning", True),
    Cause("close", "an answer is among the documents ranked, but not among the first ten", "a reranker", True),
    Cause("far", "none of the above", "fine-tuning", True),
)
NAMES = tuple(cause.name for cause in CAUSES)
LEARNABLE = frozenset(cause.name for cause in CAUSES if cause.learnable)


def missed_queries(dataset: Dataset, split: str, ranking: Ranking, encoder: Encoder) -> pd.DataFrame:
    """Every missed query of a split with its cause.

    Args:
        dataset: queries, corpus and judgements; grades below 1 are not answers, and queries without answers no misses.
        split: whose queries.
        ranking: of those queries, 100 deep.
        encoder: the model behind the ranking: what it reads of a text, and how it spells words.

    Returns:
        Columns query_id, query, answers (document ids), best_found (the document ranked first), rank (of the best
        answer; NaN where none was ranked), cause, and one bool column per cause that says whether its rule holds.
    """
    judge = _Judge(dataset, encoder)
    rows = []
    for query, found in zip(ranking.query_ids, ranking.indices, strict=True):
        answers = [document for document, grade in dataset.qrels[split].get(query, {}).items() if grade > 0]
        documents = [ranking.corpus_ids[place] for place in found if place != ABSENT]
        rank = next((rank for rank, document in enumerate(documents, 1) if document in answers), None)
        if answers and (rank is None or rank > HIT):
            texts = [dataset.corpus.get(document, "") for document in answers]
            rows.append(judge.row(_Miss(query, dataset.queries[query], answers, texts, documents, rank)))
    columns = ["query_id", "query", "answers", "best_found", "rank", "cause", *NAMES]
    return pd.DataFrame(rows, columns=columns).astype({"rank": float, **dict.fromkeys(NAMES, bool)})


def count_causes(missed: pd.DataFrame) -> pd.DataFrame:
    """How often each cause came up.

    Returns:
        One row per cause in their order: cause, n (queries of that cause), share (of the missed ones; NaN without any),
        holds (queries for which its rule holds, whatever their cause), rule, remedy.
    """
    n = missed["cause"].value_counts().reindex(NAMES, fill_value=0).to_numpy()
    return pd.DataFrame(
        {
            "cause": NAMES,
            "n": n,
            "share": n / len(missed) if len(missed) else np.full(len(n), np.nan),
            "holds": [int(missed[name].sum()) for name in NAMES],
            "rule": [cause.rule for cause in CAUSES],
            "remedy": [cause.remedy for cause in CAUSES],
        }
    )


def recovered(missed: pd.DataFrame, evaluations: Mapping[str, Evaluation]) -> pd.DataFrame:
    """Which causes a remedy mends: how many of the missed queries it answers among its first ten.

    Args:
        missed: of the base model.
        evaluations: remedy -> its evaluation of the same split.

    Returns:
        Rows per cause that came up, columns missed and one per remedy.
    """
    table = (
        missed.groupby("cause")["query_id"].agg(list).reindex([name for name in NAMES if name in {*missed["cause"]}])
    )
    counts = pd.DataFrame({"missed": table.map(len)})
    for remedy, evaluation in evaluations.items():
        found = {q for q, value in zip(evaluation.query_ids, evaluation.of(f"recall@{HIT}"), strict=True) if value > 0}
        counts[remedy] = table.map(lambda queries, found=found: len(found & set(queries)))
    return counts.reset_index()


class _Miss(NamedTuple):
    """A missed query: its text, its answers' ids and texts, the documents found, and the best answer's rank."""

    query_id: str
    text: str
    answers: list[str]
    answer_texts: list[str]
    found: list[str]
    rank: int | None


class _Judge:
    """The rules, with what they look up prepared once."""

    def __init__(self, dataset: Dataset, encoder: Encoder) -> None:
        self.corpus, self.related, self.encoder = dataset.corpus, dataset.related, encoder
        self.answers_of = _answers_by_text(dataset)
        rules = (self._cut, self._ambiguous, _identifier, self._sibling, self._rare, _no_shared_word, _close)
        self.rules: dict[str, Callable[[_Miss], bool]] = dict(zip(NAMES, rules, strict=False))

    def row(self, miss: _Miss) -> dict[str, object]:
        """Everything about one miss."""
        holds = {name: rule(miss) for name, rule in self.rules.items()}
        holds["far"] = not any(holds.values())
        cause = next(name for name in NAMES if holds[name])
        shown = {"query_id": miss.query_id, "query": miss.text, "answers": miss.answers, "rank": miss.rank}
        return {**shown, "best_found": next(iter(miss.found), None), "cause": cause, **holds}

    def _cut(self, miss: _Miss) -> bool:
        missing = not any(words(answer) for answer in miss.answer_texts)
        return missing or any(self._cuts(miss.text, answer) for answer in miss.answer_texts)

    def _cuts(self, query: str, answer: str) -> bool:
        read = self.encoder.part_read(answer)
        if len(read) == len(answer):
            return False
        asked, seen, whole = _stems(query, read, answer)
        return bool(asked & (whole - seen))

    def _ambiguous(self, miss: _Miss) -> bool:
        wanted = {normalise(answer) for answer in miss.answer_texts}
        twins = any(normalise(self.corpus[document]) in wanted for document in miss.found[:HIT])
        return twins or bool(self.answers_of[normalise(miss.text)] - set(miss.answers))

    def _sibling(self, miss: _Miss) -> bool:
        answers = [frozenset(words(answer)) for answer in miss.answer_texts]
        return any(
            not self.related.get(document, frozenset()).isdisjoint(miss.answers)
            or any(jaccard(frozenset(words(self.corpus[document])), answer) >= SIBLING for answer in answers)
            for document in miss.found[:HIT]
        )

    def _rare(self, miss: _Miss) -> bool:
        rare = {word for word in words(miss.text) if self._is_rare(word)} | _acronyms(miss.text)
        return bool(rare - {word for answer in miss.answer_texts for word in words(answer)})

    def _is_rare(self, word: str) -> bool:
        return len(self.encoder.pieces(word)) >= MANY_PIECES or self.encoder.is_unknown(word)


def _identifier(miss: _Miss) -> bool:
    return any(_identifiers(miss.text) & _identifiers(answer) for answer in miss.answer_texts)


def _no_shared_word(miss: _Miss) -> bool:
    asked, *answers = _stems(miss.text, *miss.answer_texts)
    return not any(asked & answer for answer in answers)


def _close(miss: _Miss) -> bool:
    return miss.rank is not None


def _answers_by_text(dataset: Dataset) -> Mapping[str, set[str]]:
    """Normal form of a query -> the answers of all queries, of any split, that read so."""
    answers: dict[str, set[str]] = defaultdict(set)
    for qrels in dataset.qrels.values():
        for query, grades in qrels.items():
            answers[normalise(dataset.queries[query])] |= {document for document, grade in grades.items() if grade > 0}
    return answers


def _stems(*texts: str) -> list[set[str]]:
    """Stemmed words of every text without stop words, as BM25 sees them."""
    return [set(stems) for stems in stemmed_words(list(texts))]


def _acronyms(text: str) -> set[str]:
    """Acronyms in normal form; a text all in capitals has none that could be told from words."""
    return set() if text.isupper() and len(text.split()) > 1 else _folded(_ACRONYM.findall(text))


def _identifiers(text: str) -> set[str]:
    return _folded(_IDENTIFIER.findall(text))


def _folded(found: Iterable[str]) -> set[str]:
    return {item.casefold() for item in found}
