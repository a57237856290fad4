"""Evaluate recommendations: are an item's nearest neighbours related to it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from embedlab.data.dataset import Dataset
from embedlab.data.splits import components, seeded_order
from embedlab.errors import DataError
from embedlab.evaluation.metrics import Evaluation
from embedlab.search.exact import search

MAX_ITEMS = 2000  # items that are evaluated


def item_groups(dataset: Dataset) -> dict[str, str]:
    """Return document id -> group of related documents.

    Args:
        dataset: source of the groups: its `related` documents, connected directly or through others (a category of the
            code tree with all its codes); without them, the groups of the queries that they answer.

    Raises:
        DataError: nothing groups the documents.
    """
    if any(dataset.related.values()):
        return components({document: {document, *dataset.related.get(document, ())} for document in dataset.corpus})
    groups = {d: dataset.groups[q] for split in dataset.qrels for q, d in dataset.pairs(split) if q in dataset.groups}
    if not groups:
        remedy = "Give its queries groups, or its documents related ones"
        raise DataError(f"{dataset.name} does not group its documents", remedy=remedy)
    return groups


def evaluate_neighbours(
    ids: Sequence[str],
    vectors: np.ndarray,
    groups: Mapping[str, str],
    *,
    k: int = 10,
    seed: int = 0,
) -> Evaluation:
    """Compute `hit@k`, `precision@k` and `recall@k` of group members among each item's k nearest neighbours.

    An item is never its own neighbour. Items that are alone in their group count as NaN; items without a group are
    neighbours but are not evaluated.

    Args:
        ids: N item ids.
        vectors: (N, d), unit length, in the order of `ids`.
        groups: item -> group.
        k: number of neighbours.
        seed: of the sample of at most 2,000 items that are evaluated.

    Raises:
        DataError: there is not one vector per id, or no item has a group.
    """
    if len(ids) != len(vectors):
        raise DataError(f"{len(ids)} ids, {len(vectors)} vectors", remedy="Give one vector per item")
    rows = _sampled_rows(ids, groups, seed)
    _, nearest = search(vectors[rows], vectors, k + 1, stage="neighbours")
    # A stable sort moves the item itself, where it was found, behind its neighbours.
    order = np.argsort(nearest == rows[:, None], axis=1, kind="stable")
    nearest = np.take_along_axis(nearest, order, 1)[:, : min(k, len(ids) - 1)]
    codes = _codes(ids, groups)
    group_others = np.bincount(codes[codes >= 0])[codes[rows]] - 1
    in_group = (codes[nearest] == codes[rows][:, None]).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = {
            f"hit@{k}": (in_group > 0).astype(float),
            f"precision@{k}": in_group / k,
            f"recall@{k}": in_group / group_others,
        }
    for value in values.values():
        value[group_others == 0] = np.nan
    return Evaluation(tuple(ids[row] for row in rows), values, int((group_others == 0).sum()))


def _sampled_rows(ids: Sequence[str], groups: Mapping[str, str], seed: int) -> np.ndarray:
    row_of = {item: row for row, item in enumerate(ids) if item in groups}
    if not row_of:
        raise DataError("No item has a group", remedy="Give groups of the items that are searched", field="groups")
    return np.array(sorted(row_of[item] for item in seeded_order(row_of, seed)[:MAX_ITEMS]))


def _codes(ids: Sequence[str], groups: Mapping[str, str]) -> np.ndarray:
    """A number per item (N,), equal for members of one group; -1 for items without one."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(groups[item], len(numbers)) if item in groups else -1 for item in ids])
