"""Packed batches change the speed and nothing else: embeddings, gradients and loss curves are the stock ones."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)

from embedlab.models.packing import NAME, LengthGroups, embed_columns, is_packed, merge_columns, pack
from tests.conftest import tiny_model


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def gradient(model) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("model_type", ["bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_embeddings_are_the_stock_ones(model_type, pooling, texts):
    model = tiny_model(model_type, pooling)
    stock = model.encode(texts)
    packed = pack(model).encode(texts)
    assert is_packed(model)
    np.testing.assert_allclose(packed, stock, atol=1e-5)


def test_packed_batch_holds_real_tokens_only(tiny, texts):
    mask = tiny.preprocess(texts)["attention_mask"]
    features = pack(tiny).preprocess(texts)
    assert features["input_ids"].shape == (1, int(mask.sum()))
    assert features["input_ids"].shape[1] < mask.numel()


def test_texts_do_not_see_each_other(tiny, texts):
    """Attention across a boundary would make a text's embedding depend on its neighbours."""
    pack(tiny)
    together, alone = tiny.encode(texts), np.stack([tiny.encode(text) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(tiny.encode(texts[::-1])[::-1], together, atol=1e-5)


@pytest.mark.parametrize("include_prompt", [True, False])
def test_prompt_and_truncation_are_respected(texts, include_prompt):
    model = tiny_model()
    model[1].include_prompt = include_prompt
    model.max_seq_length = 9
    stock = model.encode(texts, prompt="query: ")
    assert not np.allclose(stock, model.encode(texts), atol=1e-3)
    np.testing.assert_allclose(pack(model).encode(texts, prompt="query: "), stock, atol=1e-5)


def test_gradient_is_the_stock_one(texts):
    """In float64, where it does not depend on the order in which a processor's kernels add."""
    stock = without_dropout(tiny_model()).double().train()
    packed = pack(copy.deepcopy(stock))
    for model in (stock, packed):
        loss = MultipleNegativesRankingLoss(model)
        loss([model.preprocess(texts[:3]), model.preprocess(texts[3:6])], None).backward()
    assert relative(gradient(packed), gradient(stock)) <= 1e-12


def test_twenty_steps_follow_the_stock_loss_curve(texts):
    curves = []
    stock = without_dropout(tiny_model()).train()
    for model in (copy.deepcopy(stock), pack(copy.deepcopy(stock))):
        loss_function, optimizer = MultipleNegativesRankingLoss(model), torch.optim.AdamW(model.parameters(), lr=1e-3)
        curve = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = loss_function([model.preprocess(texts[:3]), model.preprocess(texts[3:6])], None)
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
        curves.append(curve)
    assert curves[0][-1] < curves[0][0]
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-4)


def test_dropout_is_applied_in_packed_attention(tiny, texts):
    """With attention dropout alone, two training forwards must differ and evaluation must not."""
    pack(without_dropout(tiny)).train()
    tiny[0].model.encoder.layer[0].attention.self.dropout.p = 0.5
    first, second = (tiny(tiny.preprocess(texts))["sentence_embedding"] for _ in range(2))
    assert not torch.allclose(first, second, atol=1e-4)
    tiny.eval()
    first, second = (tiny(tiny.preprocess(texts))["sentence_embedding"] for _ in range(2))
    assert torch.equal(first, second)


def test_merged_columns_equal_separate_forwards(tiny, texts):
    pack(tiny).eval()
    columns = [tiny.preprocess(texts[:3]), tiny.preprocess(texts[3:6]), tiny.preprocess(texts[1:4])]
    merged = merge_columns(columns)
    assert merged["cu_seq_lens_q"][-1] == merged["input_ids"].shape[1]
    assert merged["seq_idx"].max() == 8
    with torch.no_grad():
        separate = [tiny(tiny.preprocess(t))["sentence_embedding"] for t in (texts[:3], texts[3:6], texts[1:4])]
        for got, expected in zip(embed_columns(tiny, columns), separate, strict=True):
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_padded_columns_are_not_merged(tiny, texts):
    assert merge_columns([tiny.preprocess(texts[:3]), tiny.preprocess(texts[3:6])]) is None


def test_works_with_gradient_caching_lora_and_checkpointing(texts):
    from peft import LoraConfig, TaskType

    reference = None
    stock = without_dropout(tiny_model()).train()
    for prepare in (lambda m: m, pack):
        model = prepare(copy.deepcopy(stock))
        torch.manual_seed(0)
        model.add_adapter(LoraConfig(task_type=TaskType.FEATURE_EXTRACTION, r=4, lora_dropout=0.0))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        model[0].model.gradient_checkpointing_enable()
        loss = CachedMultipleNegativesRankingLoss(model, mini_batch_size=2)
        loss([model.preprocess(texts[:3]), model.preprocess(texts[3:6])], None).backward()
        reference = gradient(model) if reference is None else reference
    assert reference.norm() > 0
    assert relative(gradient(model), reference) <= 1e-5


def test_unsupported_architecture_falls_back_and_says_so(texts, caplog):
    model = tiny_model("mpnet")
    stock = model.encode(texts)
    pack(model)
    assert not is_packed(model)
    assert "mpnet does not support packing" in caplog.text
    np.testing.assert_array_equal(model.encode(texts), stock)


def test_saved_model_is_a_plain_one(tiny, texts, tmp_path):
    expected = pack(tiny).encode(texts)
    tiny.save_pretrained(str(tmp_path))
    assert all(NAME not in path.read_text() for path in tmp_path.rglob("*.json"))
    loaded = SentenceTransformer(str(tmp_path), device="cpu")
    assert not is_packed(loaded)
    np.testing.assert_allclose(loaded.encode(texts), expected, atol=1e-5)


def test_length_groups_by_hand():
    """Texts of 2, 1 and 2 tokens: the single token first, then both pairs."""
    groups = LengthGroups.of(torch.tensor([0, 2, 3, 5]))
    assert groups.order.tolist() == [2, 0, 1, 3, 4]
    assert groups.inverse.tolist() == [1, 2, 0, 3, 4]
    assert groups.groups == ((1, 1), (2, 2))
