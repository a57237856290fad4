"""Causal language modelling against the stock loss, and which objective suits which model."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from embedlab.errors import ModelError
from embedlab.models.packing import pack
from embedlab.training.fit import FitSettings
from embedlab.training.pretraining import NextTokenCollator, causal, check_objective, unigram_perplexity
from embedlab.training.pretraining.causal import NextTokenLoss, is_causal
from embedlab.training.pretraining.mlm import IGNORED, MaskingCollator, perplexity
from embedlab.training.pretraining.objectives import DomainTexts, PretrainSettings
from embedlab.training.pretraining.train import pretrain
from experiments.architectures.checks import columns, load
from tests.conftest import TEXTS, tiny_model

ROWS = [{"label": number} for number in range(len(TEXTS))]


def batch(model, texts=TEXTS):
    return columns(NextTokenCollator(model, texts)(ROWS[: len(texts)]))


@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
@pytest.mark.parametrize("packed", [False, True])
def test_loss_and_gradient_are_those_of_the_stock_decoder(architecture, packed):
    """Padded on the left. transformers shifts the labels itself, and would predict the first token from padding."""
    model = tiny_model(architecture).eval()
    model[0].model.config.tie_word_embeddings = True
    stock = AutoModelForCausalLM.from_config(model[0].model.config).eval()
    stock.model.load_state_dict(model[0].model.state_dict())
    stock.tie_weights()
    inputs = model.preprocess(TEXTS)
    predicted = inputs["attention_mask"].cumsum(dim=1) > 1
    labels = inputs["input_ids"].masked_fill(~predicted, IGNORED)
    expected = stock(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=labels).loss
    loss = NextTokenLoss(pack(model) if packed else model).eval()
    found = loss(*batch(model))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    found.backward(), expected.backward()
    ours, theirs = (network.get_input_embeddings().weight.grad for network in (model[0].model, stock))
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_labels_by_hand():
    """Every token but the last is followed by one; a text never predicts its neighbour in the packed row."""
    padded, packed = (load("Llama", packed=packed) for packed in (False, True))
    texts = ["fracture", "Cholera of bone"]
    (features,), labels = batch(padded, texts)
    short, long = features["attention_mask"].sum(dim=1).tolist()
    ids = features["input_ids"]
    assert short < long and features["attention_mask"][0, 0] == 0  # padded on the left
    assert labels[0].tolist() == [IGNORED] * (long - short) + ids[0, 1 + long - short :].tolist() + [IGNORED]
    assert labels[1].tolist() == [*ids[1, 1:].tolist(), IGNORED]
    assert batch(packed, texts)[1].tolist() == labels[features["attention_mask"].bool()].tolist()


def test_masked_labels_follow_padding_on_the_left(tiny, texts):
    tiny.tokenizer.padding_side = "left"
    (features,), labels = columns(MaskingCollator(tiny, texts, probability=1.0)(ROWS))
    special = torch.isin(features["input_ids"], torch.tensor([101, 102]))
    assert torch.equal(labels == IGNORED, (features["attention_mask"] == 0) | special)


def test_scoring_some_tokens_estimates_the_loss_over_all(monkeypatch):
    model = load("Qwen3").eval()
    loss = NextTokenLoss(model).eval()
    whole = loss(*batch(model)).item()
    monkeypatch.setattr(causal, "MAX_SCORED", 40)
    assert loss(*batch(model)).item() == pytest.approx(whole, rel=1e-5)  # in parts when measured
    loss.training = True
    torch.manual_seed(0)
    some = torch.tensor([loss(*batch(model)).item() for _ in range(60)])
    assert some.std() > 0 and some.mean().item() == pytest.approx(whole, abs=4 * some.std().item() / 60**0.5)


def test_training_lowers_held_out_perplexity_and_the_cache_has_both(tmp_path):
    model, texts = load("Qwen3"), DomainTexts([*TEXTS], [*TEXTS[:3]], [])
    before = perplexity(NextTokenLoss(model), texts.held_out, collator=NextTokenCollator(model, texts.held_out))
    settings = PretrainSettings("causal", FitSettings(steps=30, batch_size=4, learning_rate=3e-3))
    result = pretrain(model, texts, settings, cache=tmp_path)
    assert result.before == pytest.approx(before) and result.after < 0.5 * before
    assert pretrain(load("Qwen3"), texts, settings, cache=tmp_path) == result


def test_unigrams_of_the_next_tokens_by_hand():
    model = load("Llama")
    ids = model.tokenizer("fracture fracture")["input_ids"]
    counts = {token: 1 + ids.count(token) for token in ids}
    total = len(model.tokenizer) + len(ids)
    expected = torch.tensor([counts[token] / total for token in ids[1:]]).log().mean().neg().exp()
    texts = ["fracture fracture"]
    found = unigram_perplexity(model, texts, texts, collator=NextTokenCollator(model, texts))
    assert found == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("family", ["Llama", "Gemma 3", "T5 encoder"])
def test_words_are_told_apart_by_their_first_piece(family):
    """These tokenizers do not split at spaces first, and report one word for the whole text."""
    collator = MaskingCollator(load(family), ["Acute infarction of wall"])
    tokens = collator.model.tokenizer.convert_ids_to_tokens(collator.ids[0])
    words = {}
    for token, word in zip(tokens, collator.words[0], strict=True):
        words[word] = words.get(word, "") + token
    assert list(words.values()) == ["▁Acute", "▁infarction", "▁of", "▁wall"]


@pytest.mark.parametrize(
    ("family", "expected"), [("Gemma 3", True), ("Gemma 3, bidirectional", False), ("MPNet", False)]
)
def test_causal_attention_is_found_by_trying(family, expected):
    model = load(family).train()
    modes = [module.training for module in model.modules()]
    assert is_causal(model) is expected
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize(
    ("family", "objective", "message"),
    [
        ("Qwen3", "mlm", "mask token, and the tokenizer has none. Set objective=causal or tsdae or none"),
        ("Qwen3", "simcse", "needs dropout, and this model has none"),
        ("T5 encoder", "mlm", "Set objective=tsdae or simcse or none"),
        ("BERT", "causal", "every token of this model sees the next one"),
        ("ELECTRA", "tsdae", "same dimension, got 32 and 64"),
    ],
)
def test_an_unsuitable_objective_is_refused_with_those_that_suit(family, objective, message):
    with pytest.raises(ModelError, match=message):
        check_objective(load(family), objective)
