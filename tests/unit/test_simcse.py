"""Unsupervised SimCSE: positives on the diagonal, two dropout masks, and nothing punished that is the same text."""

from __future__ import annotations

import pytest
import torch

from embedlab.models.packing import embed_columns, pack
from embedlab.training.batches import TokenisedCollator
from embedlab.training.losses import ContrastiveLoss
from embedlab.training.pretraining.simcse import simcse_rows


def views(model, texts):
    rows = simcse_rows(texts)
    batch = TokenisedCollator(model, rows.texts, rows.columns)([rows.dataset[i] for i in range(len(rows))])
    labels = batch.pop("label")
    columns = [
        {key.removeprefix(f"{name}_"): value for key, value in batch.items() if key.startswith(name)}
        for name in ("query", "positive")
    ]
    return columns, labels


def test_rows_pair_every_different_text_with_itself():
    rows = simcse_rows(["a", "b", "a"])
    assert rows.dataset["query"] == rows.dataset["positive"] == ["a", "b"]
    assert rows.dataset["label"] == [[0, 0], [1, 1]]


@pytest.mark.parametrize("packed", [False, True])
def test_positives_stand_on_the_diagonal_and_dropout_tells_the_views_apart(tiny, texts, packed):
    model = pack(tiny) if packed else tiny
    columns, _ = views(model, texts)
    model.train()
    first, second = embed_columns(model, columns)
    assert not torch.allclose(first, second, atol=1e-3)
    model.eval()
    first, second = (torch.nn.functional.normalize(view, dim=-1) for view in embed_columns(model, columns))
    torch.testing.assert_close(first, second)
    assert (first @ second.T).argmax(dim=1).tolist() == list(range(len(texts)))


def test_loss_by_hand(tiny, texts):
    columns, labels = views(tiny.eval(), texts)
    vectors = torch.nn.functional.normalize(tiny(dict(columns[0]))["sentence_embedding"], dim=-1)
    expected = -(vectors @ vectors.T / 0.05).log_softmax(dim=1).diagonal().mean()
    assert ContrastiveLoss(tiny, 0.05)(columns, labels).item() == pytest.approx(expected.item(), rel=1e-4)
