"""One plain line for a training that learned nothing, stopped too early or diverged."""

from __future__ import annotations

import logging
import math

import pytest
import torch

from embedlab.errors import ModelError
from embedlab.training import outcome
from embedlab.training.contrastive import train_contrastive
from embedlab.training.examples import number_rows
from embedlab.training.fit import FitResult, FitSettings
from embedlab.training.losses import ContrastiveLoss
from embedlab.training.outcome import (
    DIVERGED,
    FEW_STEPS,
    NOTHING_LEARNED,
    STILL_RISING,
    by_training,
    judge_training,
)
from tests.conftest import tiny_model
from tests.unit.test_contrastive import ROWS, Scripted


def log(dev=(), losses=(), every=100):
    rows = [{"step": place * every, "dev": value} for place, value in enumerate(dev)]
    return rows + [{"step": place * every, "loss": value} for place, value in enumerate(losses, 1)]


@pytest.mark.parametrize(
    ("history", "findings"),
    [
        (log([0.5, 0.4, 0.45]), [NOTHING_LEARNED]),
        (log([0.5, 0.5, 0.5]), [NOTHING_LEARNED]),
        (log([0.5, 0.6, 0.7]), [STILL_RISING]),
        (log([0.5, 0.7, 0.6]), []),
        (log([0.5]), []),
        ([], []),
        (log([0.5, 0.7, 0.6], every=20), [FEW_STEPS]),
        (log([0.5, 0.6, 0.7], every=4), [STILL_RISING]),
        (log(losses=[0.3, 0.2, 2.5, 4.0, 3.5, 3.4]), [DIVERGED]),
        (log(losses=[0.3, 0.2, math.nan, math.nan]), [DIVERGED]),
        (log(losses=[0.3, math.inf]), [DIVERGED]),
        (log(losses=[0.3, 0.2, 0.1, 0.12]), []),
        (log(losses=[0.30, 0.31, 0.33, 0.34]), []),
        (log([0.5, 0.4], [0.3, 0.2, 2.5, 4.0]), [DIVERGED, NOTHING_LEARNED]),
    ],
)
def test_findings_by_hand(history, findings):
    assert list(judge_training(history)) == findings
    for advice in judge_training(history).values():
        assert "\n" not in advice and advice.endswith(".")


def test_advice_names_the_numbers():
    assert "from 0.3 to 3.4" in judge_training(log(losses=[0.3, 0.2, 2.5, 3.4]))[DIVERGED]
    assert "from step 300 on" in judge_training(log(losses=[0.3, 0.2, math.nan]))[DIVERGED]
    assert "last of 8 steps" in judge_training(log([0.5, 0.6, 0.7], every=4))[STILL_RISING]
    assert "Only 40 steps" in judge_training(log([0.5, 0.7, 0.6], every=20))[FEW_STEPS]
    assert FitResult(log([0.5, 0.4]), 0.5, 0, 100, 1.0).advice == list(judge_training(log([0.5, 0.4])).values())


@pytest.mark.parametrize("column", ["stage", "system"])
def test_a_log_of_several_trainings_is_judged_one_by_one(column):
    rows = [{column: "first", **row} for row in log([0.5, 0.4])] + [
        {column: "second", **row} for row in log([0.1, 0.9])
    ]
    found = {name: list(judge_training(history)) for name, history in by_training(rows).items()}
    assert found == {"first": [NOTHING_LEARNED], "second": [STILL_RISING]}


def train(tmp_path, evaluator=None):
    settings = FitSettings(steps=4, batch_size=4, evaluations=2, learning_rate=1e-3)
    model = tiny_model(layers=1)
    rows = number_rows(ROWS)
    return model, train_contrastive(model, rows, settings, evaluator=evaluator, output_dir=str(tmp_path))


def test_a_training_that_learned_nothing_says_so(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        _, result = train(tmp_path, Scripted([0.5, 0.4, 0.3]))
    assert result.best_step == 0
    assert result.advice[0].startswith("No training step beat the start on dev")
    assert "train: No training step beat the start" in caplog.text


class Broken:
    """Makes the loss NaN from the second step on."""

    def __init__(self, monkeypatch):
        self.calls, original = 0, ContrastiveLoss.forward

        def forward(loss, features, labels=None):
            self.calls += 1
            return original(loss, features, labels) * (math.nan if self.calls > 1 else 1.0)

        monkeypatch.setattr(ContrastiveLoss, "forward", forward)


def test_a_loss_that_is_not_a_number_stops_the_training(tmp_path, monkeypatch):
    """Without dev there are no good weights to return to."""
    broken = Broken(monkeypatch)
    with pytest.raises(ModelError, match=r"the loss is not a number from step 2 on.*Lower the learning rate"):
        train(tmp_path)
    assert broken.calls == 2


def test_with_dev_the_best_weights_come_back_with_a_word(tmp_path, monkeypatch):
    Broken(monkeypatch)
    model, result = train(tmp_path, Scripted([0.5, 0.0, 0.0]))
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values() if tensor.dtype == torch.float32)
    assert list(judge_training(result.history)) == [DIVERGED, NOTHING_LEARNED]


def test_every_training_goes_through_the_loop_that_reports_its_findings():
    from embedlab.training import fit
    from embedlab.training.contrastive import graded, train
    from embedlab.training.distillation import cross_encoder, embeddings

    assert fit.log_findings is outcome.log_findings and fit.require_finite is outcome.require_finite
    for module in (train, graded, embeddings, cross_encoder):
        assert module.fit is fit.fit
