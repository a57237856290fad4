"""Masked-position loss against the stock head, and the masking itself."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM

from embedlab.models.packing import pack
from embedlab.training.fit import FitSettings, fit
from embedlab.training.pretraining import mlm
from embedlab.training.pretraining.mlm import (
    IGNORED,
    MaskedLanguageLoss,
    MaskingCollator,
    choose_positions,
    corrupt,
    perplexity,
)


def stock_twin(model, loss):
    """transformers' own masked language model with the same encoder and head."""
    stock = BertForMaskedLM(model[0].model.config)
    stock.bert.load_state_dict(model[0].model.state_dict(), strict=False)
    head = stock.cls.predictions
    head.transform.dense.load_state_dict(loss.dense.state_dict())
    head.transform.LayerNorm.load_state_dict(loss.norm.state_dict())
    head.decoder.weight, head.decoder.bias = stock.bert.embeddings.word_embeddings.weight, head.bias
    head.bias.data.copy_(loss.bias.data)
    return stock.eval()


@pytest.mark.parametrize("packed", [False, True])
def test_loss_and_gradient_are_the_stock_heads(tiny, texts, packed):
    loss = MaskedLanguageLoss(tiny).eval()
    torch.nn.init.normal_(loss.bias)
    stock = stock_twin(tiny, loss)
    padded = MaskingCollator(tiny, texts)([{"label": i} for i in range(4)])
    reference = stock(
        input_ids=padded["text_input_ids"], attention_mask=padded["text_attention_mask"], labels=padded["label"]
    ).loss
    batch = MaskingCollator(pack(tiny) if packed else tiny, texts)([{"label": i} for i in range(4)])
    labels = batch.pop("label")
    ours = loss([{key.removeprefix("text_"): value for key, value in batch.items()}], labels)
    assert ours.item() == pytest.approx(reference.item(), rel=1e-5)
    ours.backward(), reference.backward()
    got = tiny[0].model.embeddings.word_embeddings.weight.grad
    torch.testing.assert_close(got, stock.bert.embeddings.word_embeddings.weight.grad, atol=1e-6, rtol=1e-4)


def test_corruption_by_counts():
    """Of many chosen positions 80 % are masked, 10 % random, 10 % kept; nothing else is touched."""
    rng = np.random.default_rng(0)
    ids = list(range(1000, 21000))
    corrupted, labels = corrupt(ids, np.arange(0, 20000, 2), mask_id=103, vocabulary=30522, rng=rng)
    assert labels[1::2] == [IGNORED] * 10000 and corrupted[1::2] == ids[1::2]
    assert labels[::2] == ids[::2]
    masked = np.mean([token == 103 for token in corrupted[::2]])
    kept = np.mean([a == b for a, b in zip(corrupted[::2], ids[::2], strict=True)])
    assert masked == pytest.approx(0.8, abs=0.02)
    assert kept == pytest.approx(0.1, abs=0.02)


def test_words_are_masked_whole_and_special_tokens_never():
    words = [None, 0, 1, 1, 1, 2, None]
    rng = np.random.default_rng(0)
    for _ in range(50):
        chosen = set(choose_positions(words, 0.4, rng).tolist())
        assert chosen and not chosen & {0, 6}
        assert len(chosen & {2, 3, 4}) in (0, 3)
    assert len(choose_positions([None, None], 0.5, rng)) == 0


def test_masking_changes_every_time_and_repeats_with_the_seed(tiny, texts):
    rows = [{"label": i} for i in range(len(texts))]
    one, two = MaskingCollator(tiny, texts, seed=1), MaskingCollator(tiny, texts, seed=1)
    first, second = one(rows), one(rows)
    assert not torch.equal(first["label"], second["label"])
    assert torch.equal(first["label"], two(rows)["label"])


def test_training_lowers_held_out_perplexity(tiny, texts, tmp_path):
    from datasets import Dataset

    pack(tiny)
    loss = MaskedLanguageLoss(tiny)
    before = perplexity(loss, texts)
    settings = FitSettings(steps=40, batch_size=4, learning_rate=5e-3)
    rows = Dataset.from_dict({"label": list(range(len(texts)))})
    fit(tiny, rows, loss, settings, collator=MaskingCollator(tiny, texts), output_dir=str(tmp_path))
    assert perplexity(loss, texts) < 0.5 * before
    assert loss.bias.abs().sum() > 0


def test_head_starts_as_the_identity(tiny):
    """The first scores are those of the encoder's own hidden states: GELU, norm, token embeddings, no bias."""
    loss = MaskedLanguageLoss(tiny)
    hidden = torch.randn(3, 32)
    activated = torch.nn.functional.layer_norm(torch.nn.functional.gelu(hidden), (32,), eps=1e-12)
    expected = activated @ tiny[0].model.get_input_embeddings().weight.T
    torch.testing.assert_close(loss.logits(hidden), expected)


class Stub(torch.nn.Module):
    """A loss of log 2 per token of the first batch and log 32 of the second."""

    def __init__(self):
        super().__init__()
        self.dropout = torch.nn.Dropout()
        self.model, self.modes = SimpleNamespace(device="cpu"), []

    @staticmethod
    def targets(labels):
        return labels

    def forward(self, features, labels):
        self.modes.append((self.training, self.dropout.training))
        return torch.tensor(math.log(features[0]["base"]))


@pytest.mark.parametrize("mode", [True, False])
def test_perplexity_weighs_tokens_and_restores_the_mode(monkeypatch, mode):
    """Three tokens at log 2 and one at log 32: (3 * 1 + 5) / 4 = 2 bits, so the perplexity is 4; batches give 8."""
    monkeypatch.setattr(mlm, "TEXTS_PER_FORWARD", 1)
    batches = iter(
        [
            {"label": torch.tensor([[7, 7, 7, IGNORED]]), "text_base": 2},
            {"label": torch.tensor([[7, IGNORED]]), "text_base": 32},
        ]
    )
    loss = Stub().train(mode)
    assert perplexity(loss, ["a", "b"], collator=lambda rows: next(batches)) == pytest.approx(4)
    assert loss.modes == [(False, False)] * 2
    assert loss.training == loss.dropout.training == mode
