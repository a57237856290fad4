"""The fast path ends where stock training ends: the base model, real data, five seeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from embedlab.data.load import load_dataset
from embedlab.evaluation.retrieval import evaluate_retrieval
from embedlab.models.load import load_model
from embedlab.training.contrastive.train import train_contrastive
from embedlab.training.examples import contrastive_rows, number_rows
from embedlab.training.fit import FitSettings

SEEDS = range(5)


@pytest.fixture(scope="module")
def data():
    return load_dataset("icd10cm:smoke")


def score_after_training(data, seed: int, packed: bool, folder: str) -> float:
    """nDCG@10 on test after five steps without dropout, whose masks would differ between the two layouts."""
    model = load_model(packed=packed, device="cpu")
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    rows = number_rows(contrastive_rows(data, hard_negatives=1, seed=seed))
    settings = FitSettings(steps=5, batch_size=16, learning_rate=2e-4, seed=seed)
    train_contrastive(model, rows, settings, dims=(384, 64), output_dir=folder)
    return evaluate_retrieval(model, data)[384].mean("ndcg@10")


@pytest.mark.slow
def test_quality_over_five_seeds_is_the_stock_one(data, tmp_path):
    stock, packed = (
        np.array([score_after_training(data, seed, fast, str(tmp_path)) for seed in SEEDS]) for fast in (False, True)
    )
    untrained = evaluate_retrieval(load_model(device="cpu"), data)[384].mean("ndcg@10")
    assert np.all(packed != untrained)
    assert abs((packed - stock).mean()) <= 0.005
