"""Show what two systems answer to the same queries: the first documents of each, with the right ones marked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from embedlab.errors import DataError
from embedlab.evaluation.metrics import evaluate

if TYPE_CHECKING:
    from embedlab.data.dataset import Dataset
    from embedlab.search.exact import Ranking

MARK = "✓ "
BETTER, WORSE = 3, 1  # queries drawn from those that gained, and from those that lost, an answer


def compare_answers(
    before: Ranking,
    after: Ranking,
    dataset: Dataset,
    split: str = "dev",
    *,
    k: int = 3,
    seed: int = 0,
) -> pd.DataFrame:
    """Show the first `k` answers of two systems to a few queries of a split.

    Up to three queries are drawn at random from those whose first relevant document entered the first `k` answers,
    and one from those where it left them, so the table is an illustration and not a measurement.

    Args:
        before: ranking of the system to compare with, of at least `k` documents per query.
        after: ranking of the new system, of the same queries in the same order.
        dataset: texts and relevance judgements.
        split: the split of the queries.
        k: answers per query.
        seed: of the draw.

    Returns:
        Columns before and after, one row per query and rank; relevant documents are marked with a check mark.

    Raises:
        DataError: the rankings have different queries.
    """
    if before.query_ids != after.query_ids:
        raise DataError("the two rankings have different queries", remedy="Rank the same split with both systems")
    old, new = (evaluate(ranking, dataset.qrels[split], [k]).of(f"mrr@{k}") > 0 for ranking in (before, after))
    rng = np.random.default_rng(seed)
    rows = [
        row
        for candidates, count in ((np.flatnonzero(new & ~old), BETTER), (np.flatnonzero(old & ~new), WORSE))
        for row in rng.choice(candidates, size=min(count, len(candidates)), replace=False)
    ]
    answers = [
        {
            "query": dataset.queries[before.query_ids[row]],
            "rank": rank + 1,
            "before": _answer(before, dataset, split, row, rank),
            "after": _answer(after, dataset, split, row, rank),
        }
        for row in rows
        for rank in range(k)
    ]
    return pd.DataFrame(answers, columns=["query", "rank", "before", "after"]).set_index(["query", "rank"])


def _answer(ranking: Ranking, dataset: Dataset, split: str, row: int, rank: int) -> str:
    index = ranking.indices[row, rank]
    if index < 0:
        return ""
    document = ranking.corpus_ids[index]
    relevant = dataset.qrels[split][ranking.query_ids[row]].get(document, 0) > 0
    return f"{MARK if relevant else ''}{dataset.corpus[document]}"
