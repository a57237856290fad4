"""From what a file says to what a writer needs: queries with their documents, under ids that are unique."""

from __future__ import annotations

from collections.abc import Mapping

from embedlab.data.collection import Collection
from embedlab.data.formats.base import Example, Export, Judged, Negative


def export_of(collection: Collection) -> Export:
    """Return the contents of a file for a writer.

    Ids of the file are kept if every query, or every document, has its own; otherwise they are `q0`, `q1`, … and `d0`,
    `d1`, …. A document of grade 0 is a negative of its query, and queries without a positive are left out.

    Args:
        collection: the contents.
    """
    if collection.graded_pairs:
        return Export(similarities=collection.graded_pairs)
    query_ids, document_ids = (
        _unique_ids(texts, collection.original_ids) for texts in (collection.queries, collection.documents)
    )
    texts = {document_ids[key]: text for text, key in collection.documents.items()}
    negatives: dict[str, dict[str, None]] = {}
    stated = [(negative.query, negative.triplet) for negative in collection.negatives]
    for query, triplet in (*stated, *collection.judged_negatives()):
        negatives.setdefault(query, {})[document_ids[collection.documents[triplet.negative]]] = None
    queries = {key: text for text, key in collection.queries.items()}
    examples = [
        Example(
            id=query_ids[query],
            query=queries[query],
            positives=tuple(Judged(document_ids[d], texts[document_ids[d]], grade) for d, grade in grades.items()),
            negatives=tuple(Negative(key, texts[key]) for key in negatives.get(query, ())),
            split=split,
            group=collection.groups.get(query, ""),
            fields={name: value for name, value in collection.fields.get(query, {}).items() if name != "query_id"},
        )
        for split, judged in collection.qrels.items()
        for query, grades in judged.items()
    ]
    return Export(tuple(examples), texts)


def _unique_ids(numbered: Mapping[str, str], original: Mapping[str, str]) -> dict[str, str]:
    """Id in the collection -> id in the file, if all have one and no two share it; otherwise itself."""
    ids = {key: original.get(key, "") for key in numbered.values()}
    unique = all(ids.values()) and len(set(ids.values())) == len(ids)
    return ids if unique else {key: key for key in ids}
