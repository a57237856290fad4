"""Fields to slice by, derived from a dataset: length, script, rare and risky kinds of queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from embedlab.data.dataset import Dataset
from embedlab.data.text_analysis import script, words
from embedlab.errors import ParameterError
from embedlab.evaluation.slices import UNKNOWN

RARE_SHARE = 0.05  # a kind of query with a smaller share of the split is rare
LENGTH_SLICES = 3


def derived_fields(
    dataset: Dataset,
    split: str = "test",
    *,
    kind: str | None = None,
    high_risk: Collection[str] = (),
) -> dict[str, dict[str, str]]:
    """Return the fields of a split's queries: those of the dataset, and these:

    - `length`, `document length`: words of the query and of its first positive, in thirds of the split;
    - `script`: the writing system of most letters, a substitute for the language if there is no field `language`;
    - `frequency`: "rare" for queries whose `kind` has less than 5 % of the split, else "common";
    - `risk`: "high-risk" for queries whose `kind` is among `high_risk`, else "other".

    Args:
        dataset: queries, corpus, qrels and fields.
        split: whose queries.
        kind: the field that distinguishes kinds of queries, e.g. `chapter`; without it the last two are left out.
        high_risk: values of `kind` where a mistake costs most.

    Returns:
        Query id -> {field: value}, as `slices` takes it.

    Raises:
        ParameterError: no query has the field `kind`, or none a value named in `high_risk`.
    """
    queries = dataset.split_queries(split)
    fields = {query: dict(dataset.fields.get(query, {})) for query in queries}
    answers = {query: _first_positive(dataset, split, query) for query in queries}
    derived = {
        "length": length_slices(queries),
        "document length": length_slices({query: text for query, text in answers.items() if text is not None}),
        "script": {query: script(text) or UNKNOWN for query, text in queries.items()},
        **_by_kind(fields, kind, high_risk),
    }
    for name, values in derived.items():
        for query, value in values.items():
            fields[query].setdefault(name, value)
    return fields


def length_slices(texts: Mapping[str, str]) -> dict[str, str]:
    """Return id -> range of its number of words, e.g. "3-5 words", with about equally many texts per range.

    Words are those of `text_analysis`: pairs of characters in scripts without spaces. There are three ranges, or fewer
    if most texts have the same length.
    """
    counts = np.array([len(words(text)) for text in texts.values()], dtype=int)
    if not len(counts):
        return {}
    inner = np.quantile(counts, np.arange(1, LENGTH_SLICES) / LENGTH_SLICES, method="lower") + 1
    starts = np.unique([counts.min(), *inner[inner <= counts.max()]])
    ends = [*(starts[1:] - 1), counts.max()]
    names = [f"{a} words" if a == b else f"{a}-{b} words" for a, b in zip(starts, ends, strict=True)]
    slice_of = np.searchsorted(starts, counts, side="right") - 1
    return {key: names[index] for key, index in zip(texts, slice_of, strict=True)}


def _first_positive(dataset: Dataset, split: str, query: str) -> str | None:
    return next((dataset.corpus.get(document, "") for document in dataset.qrels[split][query]), None)


def _by_kind(
    fields: Mapping[str, Mapping[str, str]], kind: str | None, high_risk: Collection[str]
) -> dict[str, dict[str, str]]:
    if kind is None:
        if high_risk:
            raise ParameterError(
                "High-risk kinds need a field", remedy="Name the field they are values of", field="kind"
            )
        return {}
    kinds = {query: values[kind] for query, values in fields.items() if kind in values}
    counts = Counter(kinds.values())
    _check_kinds(kind, counts, high_risk, sorted({name for values in fields.values() for name in values}))
    rare = {name for name, count in counts.items() if count < RARE_SHARE * len(fields)}
    derived = {"frequency": {query: "rare" if name in rare else "common" for query, name in kinds.items()}}
    if high_risk:
        derived["risk"] = {query: "high-risk" if name in high_risk else "other" for query, name in kinds.items()}
    return derived


def _check_kinds(kind: str, counts: Mapping[str, int], high_risk: Collection[str], field_names: Sequence[str]) -> None:
    if not counts:
        remedy = f"Fields of these queries: {', '.join(field_names) or 'none'}"
        raise ParameterError(f"No query has the field {kind!r}", remedy=remedy, field="kind")
    for name in high_risk:
        if name not in counts:
            remedy = f"Its values are {', '.join(sorted(counts))}"
            raise ParameterError(f"No query has the {kind} {name!r}", remedy=remedy, field="high_risk")
