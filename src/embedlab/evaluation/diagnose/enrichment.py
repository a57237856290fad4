"""Document enrichment: put text that the dataset already has in front of each document.

The text comes from the documents' side only: the headings that a document stands under, and its metadata. Queries and
judgements are not used. A text that repeats a query is left out, because it may come from a query log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from embedlab.data.dataset import Dataset
from embedlab.data.text_analysis import normalise

JOIN = ". "


@dataclass(frozen=True)
class Enrichment:
    """One way to enrich a corpus.

    Attributes:
        setting: its name.
        prefixes: document id -> text in front; documents without such a text are missing.
    """

    setting: str
    prefixes: Mapping[str, str]

    def texts(self, corpus: Mapping[str, str]) -> dict[str, str]:
        """Return document id -> enriched text of the documents that change."""
        return {document: f"{prefix}{JOIN}{corpus[document]}" for document, prefix in self.prefixes.items()}

    def characters(self, corpus: Mapping[str, str]) -> int:
        """Return the characters to encode: the cost of trying it."""
        return sum(len(prefix) + len(JOIN) + len(corpus[document]) for document, prefix in self.prefixes.items())


def enrichments(dataset: Dataset) -> list[Enrichment]:
    """List the ways to enrich the documents: the nearest heading, all headings, each metadata field, all fields.

    Ways that give the same text as an earlier one, or the same text to every document, are left out. A document with
    the id of a query has no metadata here, because `Dataset.fields` merges the two.
    """
    ways: list[Enrichment] = []
    for setting, prefixes in _candidates(dataset):
        informative = len(set(prefixes.values())) > 1 or len(prefixes) not in (0, len(dataset.corpus))
        if informative and all(prefixes != way.prefixes for way in ways):
            ways.append(Enrichment(setting, prefixes))
    return ways


def affordable(ways: Sequence[Enrichment], corpus: Mapping[str, str], characters: int) -> list[Enrichment]:
    """Return the ways, in their order, whose texts have at most `characters` together; longer ones are skipped."""
    within_limit: list[Enrichment] = []
    for way in ways:
        cost = way.characters(corpus)
        if cost <= characters:
            within_limit.append(way)
            characters -= cost
    return within_limit


def _candidates(dataset: Dataset) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the name of every way and document id -> text in front."""
    queries = {normalise(text) for text in dataset.queries.values()}
    headings = {
        document: texts
        for document, titles in dataset.headings.items()
        if document in dataset.corpus and (texts := _new(titles, queries, dataset.corpus[document]))
    }
    yield "nearest heading", {document: titles[-1] for document, titles in headings.items()}
    yield "all headings", {document: JOIN.join(titles) for document, titles in headings.items()}
    fields: dict[str, dict[str, str]] = {}
    for document in (document for document in dataset.corpus if document not in dataset.queries):
        own_texts = (*headings.get(document, ()), dataset.corpus[document])
        for name, value in dataset.fields.get(document, {}).items():
            if _new([value], queries, *own_texts):
                fields.setdefault(name, {})[document] = f"{name}: {value}"
    for name in sorted(fields):
        yield f"field {name}", fields[name]
    every: dict[str, list[str]] = {}
    for name in sorted(fields):
        for document, text in fields[name].items():
            every.setdefault(document, []).append(text)
    yield "all fields", {document: JOIN.join(texts) for document, texts in every.items()}


def _new(texts: Sequence[str], queries: set[str], *own_texts: str) -> list[str]:
    """Return the texts that are not empty, repeat no query, and say what `own_texts` do not say; each once."""
    seen = {normalise(text) for text in own_texts} | {""}
    return [text for text in dict.fromkeys(texts) if (key := normalise(text)) not in queries and key not in seen]
