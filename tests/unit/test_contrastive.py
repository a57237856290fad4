"""Training on the Trainer: it learns, keeps the best weights, and repeats bit for bit."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers.base.evaluation import BaseEvaluator

from embedlab import progress
from embedlab.training.contrastive import train_contrastive
from embedlab.training.examples import number_rows
from embedlab.training.fit import FitSettings
from tests.conftest import TEXTS, tiny_model

ROWS = [(text, f"{text}, unspecified", TEXTS[i - 1]) for i, text in enumerate(TEXTS)]


class Scripted(BaseEvaluator):
    """Returns given dev values one after another and remembers the weights it saw."""

    def __init__(self, values):
        super().__init__()
        self.primary_metric, self.values, self.seen = "ndcg@10", list(values), []

    def __call__(self, model, output_path=None, epoch=-1, steps=-1):
        self.seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return {"ndcg@10": self.values[len(self.seen) - 1]}


def train(tmp_path, model=None, evaluator=None, **settings):
    model = model or tiny_model()
    defaults = {"max_steps": 4, "batch_size": 4, "learning_rate": 1e-3, "evaluations": 4}
    result = train_contrastive(
        model,
        number_rows(ROWS),
        FitSettings(**{**defaults, **settings}),
        dims=(32, 8),
        evaluator=evaluator,
        output_dir=str(tmp_path),
    )
    return model, result


def weights(model):
    return torch.cat([tensor.flatten().double() for tensor in model.state_dict().values()])


def test_loss_falls(tmp_path):
    _, result = train(tmp_path, max_steps=30, learning_rate=5e-3)
    losses = [row["loss"] for row in result.history if "loss" in row]
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert result.steps == 30


def test_best_weights_come_back_whole(tmp_path):
    """Dev peaks at the third evaluation (step 2): exactly those weights are left in the model."""
    evaluator = Scripted([0.1, 0.2, 0.9, 0.3, 0.4])
    model, result = train(tmp_path, evaluator=evaluator)
    assert (result.best_dev, result.best_step, result.steps) == (0.9, 2, 4)
    assert len(evaluator.seen) == 5
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, evaluator.seen[2][name]), name


def test_untrained_weights_win_when_training_only_hurts(tmp_path):
    before = weights(tiny_model())
    model, result = train(tmp_path, evaluator=Scripted([0.9, 0.1, 0.1, 0.1, 0.1]))
    assert result.best_step == 0
    assert torch.equal(weights(model), before)


def test_patience_stops_early(tmp_path):
    _, result = train(tmp_path, evaluator=Scripted([0.9, 0.1, 0.1, 0.1, 0.1]), patience=2)
    assert result.steps == 2


def test_same_seed_same_bits_other_seed_other_bits(tmp_path):
    first, again, other = (weights(train(tmp_path, seed=seed)[0]) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_driver_sees_progress(tmp_path, monkeypatch):
    path = tmp_path / "progress.jsonl"
    monkeypatch.setenv(progress.ENVIRONMENT_NAME, str(path))
    train(tmp_path, evaluator=Scripted([0.1] * 5))
    lines = path.read_text().splitlines()
    assert any('"stage": "train"' in line and '"loss"' in line and '"total": 4' in line for line in lines)
    assert any('"dev": 0.1' in line for line in lines)


@pytest.mark.parametrize("settings, steps", [({"max_steps": 0, "epochs": 3}, 6), ({"max_steps": 5, "epochs": 3}, 5)])
def test_epochs_and_cap(tmp_path, settings, steps):
    """Seven rows in batches of four are two steps an epoch."""
    assert train(tmp_path, **settings)[1].steps == steps
