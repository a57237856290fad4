"""ANCE: hard negatives mined again before every epoch with the model being trained (Xiong et al., ICLR 2021)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from embedlab.errors import DataError
from embedlab.training import group
from embedlab.training.batches import TokenisedCollator
from embedlab.training.examples import Row, TrainingRows

if TYPE_CHECKING:
    import datasets
    from sentence_transformers import SentenceTransformer

Renew = Callable[[], Sequence[Row]]


class RenewingCollator(TokenisedCollator):
    """`TokenisedCollator` that replaces the rows before every epoch but the first.

    One Trainer run covers all epochs, so the learning-rate schedule and Adam's moments continue while the hard
    negatives change. The Trainer requests the first batch of an epoch after the last step of the previous epoch, so
    the current model mines. Give the Trainer `with_row_indices(rows)` as dataset, and one process only: epochs are
    counted by the rows that pass through this collator.

    Args:
        model: the model being trained.
        rows: rows of the first epoch; `texts` must hold every text that `renew` can return.
        renew: returns the rows of the next epoch, in the same order and width.
        query_prompt: prepended to queries.
        document_prompt: prepended to documents.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        rows: TrainingRows,
        renew: Renew,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
    ) -> None:
        super().__init__(model, rows.texts, rows.columns, query_prompt, document_prompt)
        self._renew = renew
        self._rows_seen = [0]  # after each batch
        self._index = {text: index for index, text in enumerate(rows.texts)}
        self._labels: list[list[int]] = list(rows.dataset["label"])

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the features of every column and `label` (B, columns); the `label` of each row is its row index."""
        if self._rows_seen[-1] and self._rows_seen[-1] % len(self._labels) == 0:
            self._replace_rows()
        self._rows_seen.append(self._rows_seen[-1] + len(rows))
        return super().__call__([{"label": self._labels[row["label"][0]]} for row in rows])

    def training_state(self, batches: int) -> dict[str, Any]:
        """Return the rows of this epoch and the number of rows seen in the batches used so far, for a checkpoint.

        The next batch may have been requested already. It is requested again after a restart.
        """
        return {"labels": self._labels, "rows_seen": self._rows_seen[: batches + 1]}

    def restore_training_state(self, state: dict[str, Any]) -> None:
        """Continue with the rows of `training_state`."""
        self._labels, self._rows_seen = state["labels"], state["rows_seen"]

    def _replace_rows(self) -> None:
        training = self.model.training
        rows = group.from_first(lambda: list(self._renew()))
        self.model.train(training)  # encoding the corpus switched dropout off
        if [len(row) for row in rows] != [len(label) for label in self._labels]:
            problem = f"renew returned {len(rows)} rows, expected {len(self._labels)} rows of the same width as before"
            raise DataError(problem, remedy="Return the rows in the same order and width")
        try:
            self._labels = [[self._index[text] for text in row] for row in rows]
        except KeyError as error:
            remedy = "Add the whole corpus to the rows first: with_texts(rows, corpus.values())"
            raise DataError(f"a renewed row contains the unknown text {error.args[0]!r}", remedy=remedy) from None


def with_row_indices(rows: TrainingRows) -> datasets.Dataset:
    """Replace the `label` of every row by its row index, which `RenewingCollator` looks up."""
    return rows.dataset.remove_columns("label").add_column("label", [[index] for index in range(len(rows))])


def with_texts(rows: TrainingRows, texts: Iterable[str]) -> TrainingRows:
    """Return the same rows with indices for additional `texts`."""
    return replace(rows, texts=list(dict.fromkeys([*rows.texts, *texts])))
