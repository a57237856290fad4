"""Contrastive fine-tunes of a tuning run: as many steps as a number of seconds allows, the best model kept."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING

from embedlab.data.splits import evenly_spread
from embedlab.training.contrastive.fine_tune import build_rows, mine_negatives
from embedlab.training.contrastive.mining import Negatives
from embedlab.training.contrastive.train import ContrastiveParams, train_contrastive
from embedlab.training.engine import prepare
from embedlab.training.examples import TrainingRows, number_rows, own_texts
from embedlab.training.fit import FitResult
from embedlab.tuning.trials import FIRST, HARD_NEGATIVES, Outcome, Setting
from embedlab.tuning.workbench import Workbench

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MAX_EPOCHS = 20
MIN_STEPS = 10
TIMED_STEPS, TIMED_BATCH = 3, 16
DEV_EVALUATIONS = 6  # most in one training
DEV_SHARE = 0.1  # of the time of a training
LENGTHS = 1_000  # texts whose lengths are read
CHARACTERS = 4  # per token


@dataclass(frozen=True)
class Best:
    """The best fine-tuned model so far: the model, its value on dev, its settings and steps."""

    model: SentenceTransformer
    dev: float
    setting: Setting
    steps: int


class FineTunes:
    """Trains the base model, or the base model with a linear map, with different settings and keeps the best result.

    Args:
        bench: data, base model and time.

    Attributes:
        best: the best model so far; None before the first training.
        trainings: number of trainings.
    """

    def __init__(self, bench: Workbench) -> None:
        self.bench, self.trainings = bench, 0
        self.best: Best | None = None
        self._rows: dict[int, TrainingRows] = {}
        self._seconds_per_row = 0.0

    def __call__(self, setting: Setting, seconds: float) -> Outcome:
        """Train from the base model for about so many seconds, dev evaluations included; see `trials.Train`."""
        rows = self._rows_for(setting.hard_negatives)
        dev_seconds = self.bench.dev_seconds
        evaluations = min(DEV_EVALUATIONS, max(1, round(DEV_SHARE * seconds / dev_seconds)))
        training_seconds = seconds - evaluations * dev_seconds
        step_seconds = self._step_seconds(setting)
        most = max(1, math.ceil(MAX_EPOCHS * len(rows.dataset) / setting.batch_size))
        steps = self.bench.capped(min(most, max(MIN_STEPS, int(training_seconds / step_seconds))))
        model, result = self._train(setting, rows, steps, evaluations)
        self._seconds_per_row = _row_seconds(
            result, setting.batch_size * self._work(setting), evaluations * dev_seconds
        )
        dev = result.best_dev or 0.0
        if self.best is None or dev > self.best.dev:
            self.best = Best(model, dev, setting, steps)
        return Outcome(dev, is_complete=steps == most or steps == self.bench.params.max_steps)

    @property
    def shortest(self) -> float:
        """Seconds of the shortest training that makes sense: a few steps of the first setting, and an evaluation."""
        return self.bench.capped(MIN_STEPS) * self._step_seconds(FIRST[0]) + self.bench.dev_seconds

    def _step_seconds(self, setting: Setting) -> float:
        return self._row_seconds() * self._work(setting) * setting.batch_size

    def _train(
        self, setting: Setting, rows: TrainingRows, steps: int, evaluations: int
    ) -> tuple[SentenceTransformer, FitResult]:
        bench, share = self.bench, setting.linear_start
        model = bench.mapped_base(share) if share else copy.deepcopy(bench.base)
        self.trainings += 1
        settings = bench.settings(
            steps,
            batch_size=setting.batch_size,
            learning_rate=setting.learning_rate,
            evaluations=evaluations,
            evaluate_start=False,  # the base model and the linear map are candidates of their own
        )
        prepare(model, settings.engine)
        evaluator = bench.evaluator if evaluations else None
        stage = f"fine-tune {self.trainings}"
        with bench.clock.timed() as seconds:
            result = train_contrastive(
                model, rows, settings, evaluator=evaluator, output_dir=bench.scratch, stage=stage
            )
            return model, replace(result, seconds=seconds())

    def _work(self, setting: Setting) -> float:
        """Return the text in a row, as a multiple of a row without hard negatives, which are documents."""
        return 1 + setting.hard_negatives * self._document_share

    @cached_property
    def _document_share(self) -> float:
        """The document's part of the text in a (query, positive) row, from 0 to 1, without what the model truncates."""
        data, limit = self.bench.training_data, self.bench.base.max_seq_length
        texts = (data.split_queries("train").values(), data.corpus.values())
        most = CHARACTERS * limit if limit else math.inf
        query, document = (fmean(min(len(text), most) for text in evenly_spread(kind, LENGTHS)) for kind in texts)
        return document / (query + document)

    def _row_seconds(self) -> float:
        """Return the seconds per (query, positive) row of the last training; before the first, of a few steps."""
        if not self._seconds_per_row:
            _, result = self._train(Setting(1e-5, TIMED_BATCH, 0), self._rows_for(0), TIMED_STEPS, evaluations=0)
            self._seconds_per_row = _row_seconds(result, TIMED_BATCH, 0.0)
        return self._seconds_per_row

    def _rows_for(self, hard_negatives: int) -> TrainingRows:
        if hard_negatives not in self._rows:
            data = self.bench.training_data
            params = self._params.model_copy(update={"hard_negatives": hard_negatives})
            negatives = {pair: ids[:hard_negatives] for pair, ids in self._mined.items()} if hard_negatives else None
            self._rows[hard_negatives] = number_rows(build_rows(data, params, negatives), own_texts(data))
        return self._rows[hard_negatives]

    @cached_property
    def _mined(self) -> Negatives:
        negatives, _ = mine_negatives(self.bench.training_data, self._params, self.bench.training_vectors)
        return negatives

    @cached_property
    def _params(self) -> ContrastiveParams:
        """Parameters of mining and rows, with the most hard negatives that a setting can have."""
        params = self.bench.params
        return ContrastiveParams.checked(
            {
                "dataset": params.dataset,
                "model_name": params.model_name,
                "seed": params.seed,
                "epochs": 1.0,
                "batch_size": TIMED_BATCH,
                "learning_rate": 1e-4,
                "matryoshka_dims": [],
                "hard_negatives": max(HARD_NEGATIVES),
            }
        )


def _row_seconds(result: FitResult, rows_per_step: float, dev_seconds: float) -> float:
    """Return the seconds per (query, positive) row of a training, without its dev evaluations."""
    return max(1e-6, (result.seconds - dev_seconds) / (result.steps * rows_per_step))
