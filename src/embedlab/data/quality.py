"""How good training data is before anything is trained: a data card, and filters for what only costs.

Every filter returns the dataset without the training queries it objects to, and those with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from embedlab.data.dataset import SPLITS, Dataset
from embedlab.data.load import few_pairs_advice
from embedlab.data.overlap import jaccard, near_duplicates, normalise, words
from embedlab.data.splits import restrict
from embedlab.errors import DataError, ParameterError

Pair = tuple[str, str]  # query id, document id
Scores = Mapping[Pair, float]
Dropped = dict[str, str]  # query id -> why


@dataclass(frozen=True)
class DataCard:
    """A dataset in numbers.

    Attributes:
        table: measures by split; NaN where a split has nothing to measure.
        warnings: what should make a reader careful.
    """

    table: pd.DataFrame
    warnings: tuple[str, ...]


def data_card(dataset: Dataset) -> DataCard:
    """Counts, lengths, lexical closeness of queries to their positives, and duplicates."""
    table = pd.DataFrame({split: _measures(dataset, split) for split in SPLITS if dataset.qrels.get(split)})
    return DataCard(table, tuple(_warnings(dataset, table)))


def closeness(pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """How close queries are to their documents in words, for (query, document) texts.

    Returns:
        One row per pair: `containment`, the share of the query's different words that the document has, `jaccard` of
        the two word sets, and `length`, the query's words. High containment means that word matching already finds
        the document, and that the pair has little to teach.
    """
    rows = [_closeness(words(query), words(document)) for query, document in pairs]
    return pd.DataFrame(rows, columns=["containment", "jaccard", "length"], dtype=float)


def drop_repeats(dataset: Dataset) -> tuple[Dataset, Dropped]:
    """Without training queries that nearly repeat an earlier one with the same positives; the first is kept.

    Near-identical queries for different documents stay: "type 1" and "type 2" are a word apart and must be told apart.
    """
    grades = dataset.qrels.get("train", {})
    answered: dict[frozenset[str], dict[str, str]] = {}
    for query, text in dataset.split_queries("train").items():
        answered.setdefault(frozenset(grades[query]), {})[query] = text
    dropped: Dropped = {}
    for queries in answered.values():
        dropped |= _repeats(queries)
    return restrict(dataset, {"train": set(dropped)}), dropped


def drop_noisy(
    dataset: Dataset,
    scores: Scores | Callable[[list[Pair]], Scores],
    *,
    share: float | None = None,
    floor: float | None = None,
) -> tuple[Dataset, Dropped]:
    """Without training queries whose best positive a scorer finds unlikely.

    Args:
        dataset: the data.
        scores: (query id, document id) -> score, larger is better, or a function that gives it for a list of pairs.
        share: drop this share of the queries, lowest first.
        floor: drop what scores below; exactly one of the two is given.

    Raises:
        ParameterError: both or none of share and floor, or a share outside 0 to 1.
        DataError: a training pair has no score.
    """
    if (share is None) == (floor is None) or (share is not None and not 0 <= share <= 1):
        raise ParameterError("share or floor is missing or wrong", remedy="Give a share from 0 to 1, or a floor.")
    pairs = dataset.pairs("train")
    best = _best_scores(scores(pairs) if callable(scores) else scores, pairs)
    if floor is None:
        out = sorted(best, key=lambda query: best[query])[: round(share * len(best))]
    else:
        out = [query for query, score in best.items() if score < floor]
    dropped = {query: f"its best positive scores {best[query]:.3f}" for query in out}
    return restrict(dataset, {"train": set(dropped)}), dropped


def _best_scores(scores: Scores, pairs: Iterable[Pair]) -> dict[str, float]:
    best: dict[str, float] = {}
    for query, document in pairs:
        score = scores.get((query, document), np.nan)
        if np.isnan(score):
            remedy = "Score every pair of dataset.pairs('train')."
            raise DataError(f"query '{query}' and document '{document}' have no score", remedy=remedy, field="scores")
        best[query] = max(best.get(query, -np.inf), float(score))
    return best


def _repeats(queries: Mapping[str, str]) -> Dropped:
    """Among queries with the same positives, those that repeat an earlier one that is kept."""
    near: dict[str, set[str]] = {}
    for query, other in near_duplicates(queries, queries):
        near.setdefault(query, set()).add(other)
    kept: dict[str, str] = {}  # normal form -> query
    dropped: Dropped = {}
    for query, text in queries.items():
        form = normalise(text)
        twin = kept.get(form) or next((other for other in kept.values() if other in near.get(query, ())), None)
        if twin is None:
            kept[form] = query
        else:
            dropped[query] = f"repeats {twin}: '{queries[twin]}'"
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
        "documents that answer": len({document for _, document in pairs}),
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
        yield f"{repeated:,} of {len(forms):,} documents share their text with another: no model can tell those apart"
    for split in table.columns:
        if table.loc["query words in the positive, mean", split] > 0.9:
            yield f"{split}: queries are nearly copied from their documents, and word matching will look unbeatable"
