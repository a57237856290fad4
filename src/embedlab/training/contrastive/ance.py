"""Training on negatives that the model being trained chooses itself, again before every epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from embedlab.errors import DataError
from embedlab.training.batches import TokenisedCollator
from embedlab.training.examples import Row, TrainingRows

if TYPE_CHECKING:
    import datasets
    from sentence_transformers import SentenceTransformer

Renew = Callable[[], Sequence[Row]]


class RenewingCollator(TokenisedCollator):
    """`TokenisedCollator` that asks for the rows again before every epoch but the first (ANCE, Xiong et al. 2021).

    There is one Trainer run over all epochs: the learning rate's warm-up and decay, and Adam's moments, span them, and
    only the documents behind the rows change. An epoch's first batch is asked for when the last step of the epoch
    before is done, so it is the up-to-date model that chooses. Give the Trainer `numbered`, not the rows' own dataset,
    and one process: epochs are counted by the rows that pass here.

    Args:
        model: the model being trained.
        rows: of the first epoch; `texts` holds every text that `renew` may come up with.
        renew: the rows of the next epoch, in the same order and as wide.
        query_prompt, document_prompt: as for `TokenisedCollator`.
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
        self._renew, self._served = renew, 0
        self._number = {text: number for number, text in enumerate(rows.texts)}
        self._labels: list[list[int]] = list(rows.dataset["label"])

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Features of every column and `label`, as the rows stand in this epoch; each names its row in `label`."""
        if self._served and self._served % len(self._labels) == 0:
            self._choose_again()
        self._served += len(rows)
        return super().__call__([{"label": self._labels[row["label"][0]]} for row in rows])

    def _choose_again(self) -> None:
        training = self.model.training
        rows = list(self._renew())
        self.model.train(training)  # encoding the corpus switched dropout off
        if [len(row) for row in rows] != [len(numbers) for numbers in self._labels]:
            problem = f"{len(rows)} renewed rows do not fit the {len(self._labels)} of the epoch before"
            raise DataError(problem, remedy="Renew rows in the same order and as wide")
        try:
            self._labels = [[self._number[text] for text in row] for row in rows]
        except KeyError as error:
            remedy = "Let the rows' texts hold the whole corpus: `with_texts`"
            raise DataError(f"a renewed row holds the unknown text {error.args[0]!r}", remedy=remedy) from None


def numbered(rows: TrainingRows) -> datasets.Dataset:
    """The rows with their own number as `label`, which is what `RenewingCollator` looks up."""
    return rows.dataset.remove_columns("label").add_column("label", [[number] for number in range(len(rows))])


def with_texts(rows: TrainingRows, texts: Iterable[str]) -> TrainingRows:
    """The same rows, with numbers for more texts behind those they hold."""
    return replace(rows, texts=list(dict.fromkeys([*rows.texts, *texts])))
