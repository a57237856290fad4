"""Training rows for contrastive losses: texts, and integer labels that tell which texts are the same."""

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
    """(query, positive, negative, …) texts of every training pair and expert triplet.

    Where the filters of mining left fewer than `hard_negatives`, random documents fill the row, so that rows are
    equally wide. With `hard_negatives=0` rows are (query, positive) alone.
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
    """Rows for the Trainer, with every different text numbered.

    Attributes:
        dataset: columns query, positive, negative_1 … and `label`, the numbers of the row's texts in that order.
            Equal texts have equal numbers, so that the loss masks duplicates without comparing strings.
        texts: number -> text.
    """

    dataset: datasets.Dataset
    texts: list[str]

    @property
    def columns(self) -> list[str]:
        """The text columns, in the order of `label`."""
        return [name for name in self.dataset.column_names if name != "label"]

    def __len__(self) -> int:
        return len(self.dataset)


def number_rows(rows: Iterable[Row]) -> TrainingRows:
    """`TrainingRows` of (query, positive, negative, …) texts, all equally wide."""
    from datasets import Dataset as HFDataset

    rows = list(rows)
    number: dict[str, int] = {}
    labels = [[number.setdefault(text, len(number)) for text in row] for row in rows]
    names = ["query", "positive", *(f"negative_{i}" for i in range(1, len(rows[0]) - 1))]
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    return TrainingRows(HFDataset.from_dict({**columns, "label": labels}), list(number))
