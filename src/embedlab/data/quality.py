"""Check training data before training: a data card, and filters for repeated and noisy pairs.

Every filter returns the dataset without the training queries it drops, and these queries with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from embedlab.data.dataset import SPLITS, Dataset
from embedlab.data.load import few_pairs_advice
from embedlab.data.overlap import jaccard, near_duplicates
from embedlab.data.splits import drop_queries
from embedlab.data.text_analysis import normalise, words
from embedlab.errors import DataError, ParameterError

Pair = tuple[str, str]  # query id, document id
Scores = Mapping[Pair, float]
Dropped = dict[str, str]  # query id -> reason


@dataclass(frozen=True)
class DataCard:
    """Statistics of a dataset.

    Attributes:
        table: one row per measure, one column per split; NaN if a split is empty.
        warnings: possible problems, one sentence each.
    """

    table: pd.DataFrame
    warnings: tuple[str, ...]


def data_card(dataset: Dataset) -> DataCard:
    """Compute counts, text lengths, lexical overlap of queries and positives, and duplicates.

    Args:
        dataset: any dataset.
    """
    table = pd.DataFrame({split: _measures(dataset, split) for split in SPLITS if dataset.qrels.get(split)})
    return DataCard(table, tuple(_warnings(dataset, table)))


def closeness(pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Measure the lexical overlap of queries and their documents.

    If containment is high, BM25 already finds the document, and a model learns little from the pair.

    Args:
        pairs: (query text, document text).

    Returns:
        One row per pair: `containment` (share of the query's different words that occur in the document), `jaccard`
        (Jaccard similarity of the two word sets) and `length` (number of words of the query).
    """
    rows = [_closeness(words(query), words(document)) for query, document in pairs]
    return pd.DataFrame(rows, columns=["containment", "jaccard", "length"], dtype=float)


def drop_repeats(dataset: Dataset) -> tuple[Dataset, Dropped]:
    """Drop training queries that are near-identical to an earlier one with the same positives.

    Near-identical queries with different positives stay: "type 1" and "type 2" differ in one word, and a model has to
    learn the difference.

    Returns:
        The dataset without these queries, and the dropped queries with the reason.
    """
    grades = dataset.qrels.get("train", {})
    answered: dict[frozenset[str], dict[str, str]] = {}
    for query, text in dataset.split_queries("train").items():
        answered.setdefault(frozenset(grades[query]), {})[query] = text
    dropped: Dropped = {}
    for queries in answered.values():
        dropped |= _repeats(queries)
    return drop_queries(dataset, {"train": set(dropped)}), dropped


def drop_noisy(
    dataset: Dataset, scores: Scores | Callable[[list[Pair]], Scores], *, share: float
) -> tuple[Dataset, Dropped]:
    """Drop the training queries whose best positive gets the lowest scores.

    Args:
        dataset: the data.
        scores: (query id, document id) -> score, where larger is better, or a function that returns this mapping for
            a list of pairs.
        share: share of the training queries to drop, from 0 to 1.

    Returns:
        The dataset without these queries, and the dropped queries with the reason.

    Raises:
        ParameterError: `share` is not between 0 and 1.
        DataError: a training pair has no score.
    """
    if not 0 <= share <= 1:
        problem = f"share must be between 0 and 1, got {share}"
        raise ParameterError(problem, remedy="Set share=0.1, for example.", field="share")
    pairs = dataset.pairs("train")
    best = _best_scores(scores(pairs) if callable(scores) else scores, pairs)
    lowest = sorted(best, key=lambda query: best[query])[: round(share * len(best))]
    dropped = {query: f"its best positive scores {best[query]:.3f}" for query in lowest}
    return drop_queries(dataset, {"train": set(dropped)}), dropped


def _best_scores(scores: Scores, pairs: Iterable[Pair]) -> dict[str, float]:
    best: dict[str, float] = {}
    for query, document in pairs:
        score = scores.get((query, document), np.nan)
        if np.isnan(score):
            remedy = "Pass a score for every pair of dataset.pairs('train')."
            raise DataError(
                f"the pair of query '{query}' and document '{document}' has no score", remedy=remedy, field="scores"
            )
        best[query] = max(best.get(query, -np.inf), float(score))
    return best


def _repeats(queries: Mapping[str, str]) -> Dropped:
    """Among queries with the same positives, those that repeat an earlier query."""
    near: dict[str, set[str]] = {}
    for query, other in near_duplicates(queries, queries):
        near.setdefault(query, set()).add(other)
    distinct: dict[str, str] = {}  # normal form -> query
    dropped: Dropped = {}
    for query, text in queries.items():
        form = normalise(text)
        earlier = distinct.get(form) or next((q for q in distinct.values() if q in near.get(query, ())), None)
        if earlier is None:
            distinct[form] = query
        else:
            dropped[query] = f"repeats {earlier}: '{queries[earlier]}'"
    return dropped


def _closeness(query: list[str], document: list[str]) -> tuple[float, float, int]:
    left, right = frozenset(query), frozenset(document)
    return (len(left & right) / len(left) if left else np.nan), jaccard(left, right), len(query)


def _measures(dataset: Dataset, split: str) -> dict[str, float]:
    queries, pairs = dataset.split_queries(split), dataset.pairs(split)
    near = closeness((dataset.queries[query], dataset.corpus[document]) for query, document in pairs)
    lengths = pd.Series([len(words(text)) for text in queries.values()], dtype=float)
    answers = pd.Series([len(words(dataset.corpus[document])) for _, document in pairs], dtype=float)
    return {
        "queries": len(queries),
        "pairs": len(pairs),
        "relevant documents": len({document for _, document in pairs}),
        "positives per query": len(pairs) / len(queries) if queries else np.nan,
        "words per query, median": lengths.median(),
        "words per query, 95th percentile": lengths.quantile(0.95),
        "words per positive, median": answers.median(),
        "words per positive, 95th percentile": answers.quantile(0.95),
        "query words in the positive, mean": near["containment"].mean(),
        "pairs without a common word": (near["containment"] == 0).mean(),
        "near-identical queries": len({q for q, other in near_duplicates(queries, queries) if q != other}),
    }


def _warnings(dataset: Dataset, table: pd.DataFrame) -> Iterable[str]:
    if advice := few_pairs_advice(len(dataset.pairs("train"))):
        yield advice
    forms = pd.Series([normalise(text) for text in dataset.corpus.values()], dtype=object)
    if repeated := int(forms.duplicated(keep=False).sum()):
        yield f"{repeated:,} of {len(forms):,} documents have the same text as another one, so no model can rank them"
    for split in table.columns:
        if table.loc["query words in the positive, mean", split] > 0.9:
            yield f"{split}: most query words also occur in the relevant document, so BM25 will be hard to beat"
