"""Why queries miss: one cause per missed query, assigned by rules that you can check.

A query misses if no answer is among the first ten documents. The rules are tried in the order of `CAUSES`, and the
first that holds gives the cause. The order goes from problems that no model can solve to the least specific rule.
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
from embedlab.data.languages import DEFAULT, detect_language, stemmed_words
from embedlab.data.overlap import jaccard
from embedlab.data.text_analysis import normalise, spaced, words
from embedlab.evaluation.metrics import Evaluation
from embedlab.models.encoders import Encoder
from embedlab.search.exact import ABSENT, Ranking

SHOWN_CHARACTERS = 90  # of a text, in examples
HIT = 10  # a query with an answer at this rank or above is a hit
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
    """A reason why queries miss.

    Attributes:
        name: name of the cause.
        rule: when the cause applies.
        remedy: what usually helps.
    """

    name: str
    rule: str
    remedy: str


CAUSES = (
    Cause(
        "truncated or missing",
        "no answer has text, or a query word occurs only in the part of an answer that the model truncates",
        "chunking",
    ),
    Cause(
        "ambiguous",
        f"one of the first {HIT} documents equals an answer, or an equal query has other answers",
        "better judgements",
    ),
    Cause("identifier", "the query and an answer share an identifier (a code, a version, a long number)", "hybrid"),
    Cause(
        "sibling above",
        f"one of the first {HIT} documents is related to an answer or shares {SIBLING:.0%} of its words",
        "hard negatives",
    ),
    Cause(
        "rare word or acronym",
        f"the query has an acronym, or a word of {MANY_PIECES} or more word pieces, that no answer contains",
        "fine-tuning, domain pre-training",
    ),
    Cause("no shared word", "query and answers share no word, after stemming and without stop words", "fine-tuning"),
    Cause("close", "an answer is ranked below the first ten, but among the first hundred", "a reranker"),
    Cause("far", "none of the above", "fine-tuning"),
)
NAMES = tuple(cause.name for cause in CAUSES)


def missed_queries(dataset: Dataset, split: str, ranking: Ranking, encoder: Encoder) -> pd.DataFrame:
    """List the missed queries of a split with their causes.

    Args:
        dataset: queries, corpus and judgements. Grades below 1 are not answers; queries without answers do not count.
        split: name of the split.
        ranking: ranking of its queries, 100 documents deep.
        encoder: the model behind the ranking; its truncation and tokenizer are used.

    Returns:
        Columns query_id, query, answers (document ids), best_found (the document ranked first), rank (of the best
        answer; NaN if none was ranked), cause, and per cause a bool column: whether its rule holds.
    """
    judge = _Judge(dataset, encoder)
    rows = []
    for query, indices in zip(ranking.query_ids, ranking.indices, strict=True):
        answers = [document for document, grade in dataset.qrels[split].get(query, {}).items() if grade > 0]
        documents = [ranking.corpus_ids[index] for index in indices if index != ABSENT]
        rank = next((rank for rank, document in enumerate(documents, 1) if document in answers), None)
        if answers and (rank is None or rank > HIT):
            texts = [dataset.corpus.get(document, "") for document in answers]
            rows.append(judge.row(_Miss(query, dataset.queries[query], answers, texts, documents, rank)))
    columns = ["query_id", "query", "answers", "best_found", "rank", "cause", *NAMES]
    return pd.DataFrame(rows, columns=columns).astype({"rank": float, **dict.fromkeys(NAMES, bool)})


def count_causes(missed: pd.DataFrame) -> pd.DataFrame:
    """Count the causes of missed queries.

    Args:
        missed: from `missed_queries`.

    Returns:
        One row per cause in their order: cause, n (queries with this cause), share (of the missed queries; NaN if there
        are none), holds (queries for which the rule holds, also with another cause), rule, remedy.
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
    """Count by cause how many missed queries of the base model each remedy answers among its first ten documents.

    Args:
        missed: from `missed_queries`, of the base model.
        evaluations: remedy -> its evaluation of the same split.

    Returns:
        One row per cause that occurs: cause, missed, and one column per remedy.
    """
    table = (
        missed.groupby("cause")["query_id"].agg(list).reindex([name for name in NAMES if name in {*missed["cause"]}])
    )
    counts = pd.DataFrame({"missed": table.map(len)})
    for remedy, evaluation in evaluations.items():
        hits = {q for q, value in zip(evaluation.query_ids, evaluation.of(f"recall@{HIT}"), strict=True) if value > 0}
        counts[remedy] = table.map(lambda queries, hits=hits: len(hits & set(queries)))
    return counts.reset_index()


def print_examples(missed: pd.DataFrame, corpus: Mapping[str, str], *, per_cause: int = 3) -> None:
    """Print missed queries of every cause, with an answer and the document that was ranked first.

    Args:
        missed: from `missed_queries`.
        corpus: document id -> text.
        per_cause: queries per cause.
    """
    for cause, rows in missed.groupby("cause"):
        print(f"{cause}:")
        for row in rows.head(per_cause).itertuples():
            answer, first = (
                corpus.get(document, "")[:SHOWN_CHARACTERS] for document in (row.answers[0], row.best_found)
            )
            print(f"  {row.query!r}\n    answer       {answer!r}\n    ranked first {first!r}")


class _Miss(NamedTuple):
    """A missed query: its text, the ids and texts of its answers, the ranked documents, and the best answer's rank."""

    query_id: str
    text: str
    answers: list[str]
    answer_texts: list[str]
    ranked: list[str]
    rank: int | None


class _Judge:
    """The rules, with their lookup tables."""

    def __init__(self, dataset: Dataset, encoder: Encoder) -> None:
        self.corpus, self.related, self.encoder = dataset.corpus, dataset.related, encoder
        self.language = detect_language(dataset.corpus.values()) or DEFAULT
        self.answers_of = _answers_by_text(dataset)
        rules = (self._truncated, self._ambiguous, _identifier, self._sibling, self._rare, self._no_shared_word, _close)
        self.rules: dict[str, Callable[[_Miss], bool]] = dict(zip(NAMES, rules, strict=False))

    def row(self, miss: _Miss) -> dict[str, object]:
        """Return the row of a missed query for `missed_queries`."""
        holds = {name: rule(miss) for name, rule in self.rules.items()}
        holds["far"] = not any(holds.values())
        cause = next(name for name in NAMES if holds[name])
        columns = {"query_id": miss.query_id, "query": miss.text, "answers": miss.answers, "rank": miss.rank}
        return {**columns, "best_found": next(iter(miss.ranked), None), "cause": cause, **holds}

    def _truncated(self, miss: _Miss) -> bool:
        missing = not any(words(answer) for answer in miss.answer_texts)
        return missing or any(self._truncates(miss.text, answer) for answer in miss.answer_texts)

    def _truncates(self, query: str, answer: str) -> bool:
        """Whether a word of the query occurs only in the truncated part of the answer."""
        read = self.encoder.part_read(answer)
        if len(read) == len(answer):
            return False
        of_query, of_read, of_answer = self._stems(query, read, answer)
        return bool(of_query & (of_answer - of_read))

    def _ambiguous(self, miss: _Miss) -> bool:
        answers = {normalise(answer) for answer in miss.answer_texts}
        duplicate = any(normalise(self.corpus[document]) in answers for document in miss.ranked[:HIT])
        return duplicate or bool(self.answers_of[normalise(miss.text)] - set(miss.answers))

    def _sibling(self, miss: _Miss) -> bool:
        answers = [frozenset(words(answer)) for answer in miss.answer_texts]
        return any(
            not self.related.get(document, frozenset()).isdisjoint(miss.answers)
            or any(jaccard(frozenset(words(self.corpus[document])), answer) >= SIBLING for answer in answers)
            for document in miss.ranked[:HIT]
        )

    def _rare(self, miss: _Miss) -> bool:
        rare = {word for word in words(miss.text) if self._is_rare(word)} | _acronyms(miss.text)
        return bool(rare - {word for answer in miss.answer_texts for word in words(answer)})

    def _no_shared_word(self, miss: _Miss) -> bool:
        query, *answers = self._stems(miss.text, *miss.answer_texts)
        return not any(query & answer for answer in answers)

    def _stems(self, *texts: str) -> list[set[str]]:
        """Return the stemmed words of every text without stop words, as BM25 uses them."""
        return [set(stems) for stems in stemmed_words(texts, self.language)]

    def _is_rare(self, word: str) -> bool:
        return len(self.encoder.pieces(word)) >= MANY_PIECES or self.encoder.is_unknown(word)


def _identifier(miss: _Miss) -> bool:
    return any(_identifiers(miss.text) & _identifiers(answer) for answer in miss.answer_texts)


def _close(miss: _Miss) -> bool:
    return miss.rank is not None


def _answers_by_text(dataset: Dataset) -> Mapping[str, set[str]]:
    """Map the normalised text of a query to the answers of all queries with this text, in any split."""
    answers: dict[str, set[str]] = defaultdict(set)
    for qrels in dataset.qrels.values():
        for query, grades in qrels.items():
            answers[normalise(dataset.queries[query])] |= {document for document, grade in grades.items() if grade > 0}
    return answers


def _acronyms(text: str) -> set[str]:
    """Return the acronyms in lower case; in a text all in capitals, acronyms cannot be recognised."""
    parts = spaced(text)
    in_capitals = text.isupper() and sum(token.isupper() for token in parts.split()) > 1
    return set() if in_capitals else _folded(_ACRONYM.findall(parts))


def _identifiers(text: str) -> set[str]:
    return _folded(_IDENTIFIER.findall(spaced(text)))


def _folded(matches: Iterable[str]) -> set[str]:
    return {match.casefold() for match in matches}
