"""Training rows for contrastive losses: texts, and integer labels that identify equal texts."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedlab.data.dataset import Dataset

if TYPE_CHECKING:
    import datasets

    from embedlab.training.contrastive.mining import Negatives

Row = tuple[str, ...]  # query, positive, hard negatives


def contrastive_rows(
    dataset: Dataset,
    negatives: Negatives | None = None,
    *,
    hard_negatives: int = 1,
    use_triplets: bool = True,
    seed: int = 0,
) -> list[Row]:
    """Build (query, positive, negative, …) rows of text from every training pair and expert triplet.

    Args:
        dataset: its training pairs, corpus and triplets are used.
        negatives: mined hard negatives, (query id, positive id) -> document ids.
        hard_negatives: hard negatives per row. Where mining found fewer, random documents fill the row, because all
            rows must have the same width. With 0, rows are (query, positive).
        use_triplets: append the dataset's expert triplets.
        seed: of the random documents.

    Returns:
        Rows of `2 + hard_negatives` texts each.
    """
    rng, documents = random.Random(seed), list(dataset.corpus)
    pairs = dataset.pairs("train")
    rows = [
        (dataset.queries[q], dataset.corpus[d], *(dataset.corpus[n] for n in (negatives or {}).get((q, d), ())))
        for q, d in pairs
    ]
    if use_triplets:
        rows += [tuple(triplet) for triplet in dataset.triplets]
    return [_widen(row, 2 + hard_negatives, dataset, documents, rng) for row in rows]


def _widen(row: Row, width: int, dataset: Dataset, documents: Sequence[str], rng: random.Random) -> Row:
    while len(row) < width:
        text = dataset.corpus[rng.choice(documents)]
        if text not in row:
            row = (*row, text)
    return row[:width]


@dataclass(frozen=True)
class TrainingRows:
    """Rows for the Trainer, with every distinct text numbered.

    Attributes:
        dataset: columns query, positive, negative_1 … and `label`, the text indices of the row in that order. Equal
            texts have equal indices, so the loss can mask duplicates without comparing strings.
        texts: the distinct texts; the indices in `label` point into this list.
    """

    dataset: datasets.Dataset
    texts: list[str]

    @property
    def columns(self) -> list[str]:
        """Names of the text columns, in the order of `label`."""
        return [name for name in self.dataset.column_names if name != "label"]

    def __len__(self) -> int:
        return len(self.dataset)


def number_rows(rows: Iterable[Row]) -> TrainingRows:
    """Number the distinct texts of (query, positive, negative, …) rows, which must all have the same width."""
    from datasets import Dataset as HFDataset

    rows = list(rows)
    index: dict[str, int] = {}
    labels = [[index.setdefault(text, len(index)) for text in row] for row in rows]
    names = ["query", "positive", *(f"negative_{i}" for i in range(1, len(rows[0]) - 1))]
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    return TrainingRows(HFDataset.from_dict({**columns, "label": labels}), list(index))
