"""Search across languages: terms that have a name in several languages become queries and documents.

A pair of languages is written `QUERIES-DOCUMENTS`, each one language or several: `de-en` asks in German and searches
English names, `de+es-en` asks in two languages, and `de-en+de` searches a corpus in two languages.

- A document is relevant to a query if it is the name of the same term in another language. The query's own text is
  left out of its results, as in LAReQA (Roy et al., EMNLP 2020).
- If queries and documents are in one language only (`de-de`), the name of a term asks for the name of its parent.

A name that several terms share is one query, or one document. The splits hold out terms, and they are the same for
every pair of languages: terms whose names are equal or nearly equal, in any language, stay in one split.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from embedlab.data.dataset import SPLITS, Dataset
from embedlab.data.overlap import near_duplicates
from embedlab.data.splits import components
from embedlab.data.text_analysis import normalise
from embedlab.errors import DataError

SCHEMES = ("icd10multi", "parallel")  # of `load_dataset`: their texts have the field `language`

_SEPARATOR = re.compile(r"[+, ]")


@dataclass(frozen=True)
class Term:
    """A term with its name in one or more languages.

    Attributes:
        id: unique.
        names: language -> name.
        parent: id of a broader term; empty if it has none.
        split: train, dev or test; empty if it has none yet.
        group: terms of the same group stay in one split; empty for none.
        fields: metadata of its queries and documents.
    """

    id: str
    names: Mapping[str, str]
    parent: str = ""
    split: str = ""
    group: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


class Languages(NamedTuple):
    """The languages of the queries and those of the documents."""

    queries: tuple[str, ...]
    documents: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether all queries and documents are in one language."""
        return len({*self.queries, *self.documents}) == 1


def parse_languages(text: str, available: Sequence[str], *, every: str = "all") -> Languages:
    """Parse a pair of languages such as `de-en` or `de+es-en`.

    Args:
        text: `QUERIES-DOCUMENTS`.
        available: the languages that the data has.
        every: a word for all languages that are not on the other side.

    >>> parse_languages("all-en", ["en", "de", "es"])
    Languages(queries=('de', 'es'), documents=('en',))

    Raises:
        DataError: it has another form, or a language is unknown.
    """
    sides = [[part for part in _SEPARATOR.split(side) if part] for side in text.split("-")]
    remedy = f"Write QUERIES-DOCUMENTS, for example {available[-1]}-{available[0]}, with {', '.join(available)}."
    if len(sides) != 2 or not all(sides):
        raise DataError(f"'{text}' is not a pair of languages", remedy=remedy, field="dataset")
    for language in {*sides[0], *sides[1]} - {every}:
        if language not in available:
            raise DataError(f"there is no language '{language}'", remedy=remedy, field="dataset")
    if [every] in sides:
        named = {language for side in sides for language in side}
        rest = [language for language in available if language not in named] or list(available)
        sides = [rest if side == [every] else side for side in sides]
    if any(every in side for side in sides):
        raise DataError(f"'{every}' stands alone on its side", remedy=remedy, field="dataset")
    return Languages(*(tuple(dict.fromkeys(side)) for side in sides))


def term_groups(terms: Sequence[Term]) -> dict[str, str]:
    """Group terms whose names are equal or nearly equal in any language, and those that the data puts together.

    Args:
        terms: the terms.

    Returns:
        Term id -> group.
    """
    keys: dict[str, list[tuple[str, str]]] = {term.id: [] for term in terms}
    forms: dict[str, dict[str, str]] = defaultdict(dict)  # language -> {name: its normal form}
    for term in terms:
        keys[term.id] += [("group", term.group)] if term.group else []
        for language, name in term.names.items():
            form = forms[language].get(name) or forms[language].setdefault(name, normalise(name))
            keys[term.id].append(("name", form))
    near: dict[str, list[tuple[str, str]]] = defaultdict(list)  # a name of each pair -> the normal form of the other
    for names in forms.values():  # every different name once: many terms share theirs
        texts = {name: name for name in names}
        for first, second in near_duplicates(texts, texts, ignore_symbols=True):
            if first < second:
                near[first].append(("name", names[second]))
    for term in terms:
        for name in term.names.values():
            keys[term.id] += near.get(name, [])
    return components(keys)


def with_splits(terms: Iterable[Term], members: Mapping[str, Iterable[str]]) -> list[Term]:
    """Return the terms with their split.

    Args:
        terms: the terms.
        members: split -> term ids.
    """
    split_of = {term: split for split, ids in members.items() for term in ids}
    return [replace(term, split=split_of[term.id]) for term in terms]


def dataset(terms: Sequence[Term], languages: Languages, *, name: str) -> Dataset:
    """Make a dataset of terms that have a split.

    Queries and documents have the field `language`, queries also `pair`, such as `de-en`. Names that are the same in
    both languages are left out: finding them shows nothing.

    Args:
        terms: all terms, each with its split.
        languages: which names are queries and which are documents.
        name: the dataset's name.

    Raises:
        DataError: there is nothing to ask in these languages.
    """
    ids: dict[tuple[str, str], str] = {}  # language and name -> id, after the first term that has the name
    for term in terms:
        for language, text in term.names.items():
            ids.setdefault((language, text), f"{term.id}:{language}")
    by_id = {term.id: term for term in terms}
    answer_of = {term.id: by_id.get(term.parent) if languages.same else term for term in terms}
    corpus: dict[str, str] = {}
    fields: dict[str, dict[str, str]] = {}
    for answer in {answer.id: answer for answer in answer_of.values() if answer is not None}.values():
        for language in languages.documents:
            if language in answer.names:
                key = ids[language, answer.names[language]]
                corpus[key] = answer.names[language]
                fields.setdefault(key, {**answer.fields, "language": language})
    queries: dict[str, str] = {}
    groups: dict[str, str] = {}
    qrels: dict[str, dict[str, dict[str, int]]] = {split: {} for split in SPLITS}
    for term in terms:
        for language in languages.queries:
            found = answer_of[term.id]
            if language in term.names and found is not None and (texts := _answers(term, language, found, languages)):
                key = ids[language, term.names[language]]
                queries[key] = term.names[language]
                groups.setdefault(key, term.group or term.id)
                qrels[term.split].setdefault(key, {}).update({ids[text]: 1 for text in texts})
                pair = f"{language}-{'+'.join(languages.documents)}"
                fields[key] = {**fields.get(key, term.fields), "language": language, "pair": pair}
    if not queries:
        raise _nothing_to_ask(languages)
    split_by = "query" if languages.same else "document"
    return Dataset(name, corpus, queries, qrels, groups=groups, fields=fields, split_by=split_by)


def require_languages(data: Dataset) -> None:
    """Check that all queries and documents have the field `language`.

    Raises:
        DataError: one of them has none.
    """
    of_kind = {
        "query": [query for judged in data.qrels.values() for query in judged],
        "document": list(data.corpus),
    }
    for kind, keys in of_kind.items():
        for key in keys:
            if not data.fields.get(key, {}).get("language"):
                problem = f"the {kind} '{key}' of {data.name} has no field 'language'"
                remedy = "Use icd10multi:de-en (the extra 'languages'), or for your own translations "
                remedy += "parallel:FILE?languages=de-en."
                raise DataError(problem, remedy=remedy, field="dataset")


def _answers(term: Term, language: str, answer: Term, languages: Languages) -> list[tuple[str, str]]:
    """The names of `answer` that are relevant to the name of `term` in a language, each with its own language."""
    document_languages = [
        other for other in languages.documents if other in answer.names and (languages.same or other != language)
    ]
    query_name = term.names[language].casefold()
    return [
        (other, answer.names[other]) for other in document_languages if answer.names[other].casefold() != query_name
    ]


def _nothing_to_ask(languages: Languages) -> DataError:
    pair = f"{'+'.join(languages.queries)}-{'+'.join(languages.documents)}"
    if languages.same:
        problem, remedy = "no term has a broader term (a parent)", "Name two different languages, for example de-en."
    else:
        problem, remedy = "no term has different names in both languages", "Name languages that more terms have."
    return DataError(f"{pair}: {problem}", remedy=remedy, field="dataset")
