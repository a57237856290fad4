"""Wrong training pairs, planted to see whether a filter finds them."""

from __future__ import annotations

from dataclasses import replace

from embedlab.data.dataset import Dataset
from embedlab.data.splits import seeded_order


def plant_wrong_pairs(data: Dataset, *, one_in: int = 20, seed: int = 0) -> tuple[Dataset, list[str]]:
    """Give every n-th training query the answers of another query.

    Args:
        data: a dataset with training pairs.
        one_in: n; at least two queries are changed.
        seed: seed of the choice.

    Returns:
        The dataset with wrong pairs, and the ids of the changed queries.
    """
    grades = data.qrels["train"]
    planted = seeded_order(grades, seed=seed + 1)[: max(2, len(grades) // one_in)]
    wrong = {query: grades[other] for query, other in zip(planted, planted[1:] + planted[:1], strict=True)}
    return replace(data, qrels={**data.qrels, "train": {**grades, **wrong}}), planted
