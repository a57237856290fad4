"""Adapters: small, trainable, packed; merged they give the same embeddings and leave a plain model."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from embedlab.errors import EmbedlabError
from embedlab.models.load import load_model
from embedlab.models.lora import (
    add_lora,
    has_lora,
    merge_lora,
    save_lora,
    trainable_parameters,
    training_bytes,
)
from embedlab.models.packing import pack
from embedlab.training.contrastive.train import train_contrastive
from embedlab.training.examples import number_rows
from embedlab.training.fit import FitSettings
from tests.conftest import TEXTS, tiny_model

ROWS = [(text, f"{text}, unspecified", TEXTS[i - 1]) for i, text in enumerate(TEXTS)]


def train(model, tmp_path, steps=4, **settings):
    fit = FitSettings(steps=steps, batch_size=4, learning_rate=5e-3)
    train_contrastive(model, number_rows(ROWS), fit, output_dir=str(tmp_path / "scratch"), **settings)
    return model


def vectors(model):
    return model.encode(TEXTS)


@pytest.fixture(params=[False, True], ids=["padded", "packed"])
def adapted(request):
    model = tiny_model()
    if request.param:
        pack(model)
    add_lora(model, 4)
    return model


def test_a_fresh_adapter_changes_nothing(adapted):
    np.testing.assert_allclose(vectors(adapted), vectors(tiny_model()), atol=1e-5)


def test_settings_of_the_adapter(adapted):
    """alpha is twice the rank, whatever the rank; no dropout, and BERT's pooler stays out."""
    config = adapted[0].model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (4, 8, 0.0)
    assert not any("pooler" in name for name, parameter in adapted.named_parameters() if parameter.requires_grad)


def test_only_the_adapter_is_trained(adapted, tmp_path):
    """Two layers of a 32-wide BERT: query, key, value, output (32 to 32), 32 to 64 and 64 to 32, rank 4."""
    assert trainable_parameters(adapted) == 2 * 4 * (4 * (32 + 32) + 2 * (32 + 64))
    frozen = {name: p.clone() for name, p in adapted.named_parameters() if not p.requires_grad}
    before = vectors(adapted)
    train(adapted, tmp_path)
    assert not np.allclose(vectors(adapted), before, atol=1e-3)
    for name, parameter in adapted.named_parameters():
        assert name not in frozen or torch.equal(parameter, frozen[name]), name


def test_merged_equals_unmerged_and_is_plain(adapted, tmp_path):
    train(adapted, tmp_path)
    before = vectors(adapted)
    merged = merge_lora(adapted)
    np.testing.assert_allclose(vectors(merged), before, atol=1e-5)
    assert not has_lora(merged)
    assert set(merged.state_dict()) == set(tiny_model().state_dict())
    assert all(parameter.requires_grad for parameter in merged.parameters())
    merged.save_pretrained(str(tmp_path / "merged"))
    plain = SentenceTransformer(str(tmp_path / "merged"), device="cpu")
    np.testing.assert_allclose(vectors(plain), before, atol=1e-5)
    assert not list((tmp_path / "merged").glob("**/adapter*"))


def test_merged_model_goes_on_whole_or_with_a_new_adapter(adapted, tmp_path):
    merged = merge_lora(train(adapted, tmp_path))
    before = vectors(merged)
    train(merged, tmp_path)
    assert not np.allclose(vectors(merged), before, atol=1e-3)
    add_lora(merged, 2)
    half_way = vectors(merged)
    train(merged, tmp_path)
    assert not np.allclose(vectors(merge_lora(merged)), half_way, atol=1e-3)


def test_saved_adapter_comes_back(adapted, tmp_path):
    train(adapted, tmp_path)
    size = save_lora(adapted, tmp_path / "adapter")
    assert 4 * trainable_parameters(adapted) < size < 4 * trainable_parameters(adapted) + 10_000
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 4
    again = tiny_model()
    again.load_adapter(str(tmp_path / "adapter"))
    np.testing.assert_allclose(vectors(again), vectors(adapted), atol=1e-5)


def test_same_seed_same_adapter():
    weights = []
    for seed in (1, 1, 2):
        model = tiny_model()
        add_lora(model, 2, seed=seed)
        weights.append(torch.cat([p.flatten() for p in model.parameters() if p.requires_grad]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_it_needs_less_memory():
    model = tiny_model()
    whole = sum(parameter.numel() for parameter in model.parameters())
    assert training_bytes(model) == 16 * whole
    add_lora(model, 4)
    adapter = trainable_parameters(model)
    assert training_bytes(model) == 4 * (whole + adapter) + 12 * adapter


@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert", "electra"])
def test_other_architectures(model_type, tmp_path, recwarn):
    model = pack(tiny_model(model_type))
    add_lora(model, 2)
    train(model, tmp_path, steps=2)
    before = vectors(model)
    np.testing.assert_allclose(vectors(merge_lora(model)), before, atol=1e-5)
    assert not [warning for warning in recwarn if "exclude_modules" in str(warning.message)]


def test_what_cannot_be_is_one_clear_error(tmp_path):
    model = tiny_model()
    for call, message in (
        (lambda: add_lora(model, 0), "rank must be 1 or more, got 0"),
        (lambda: merge_lora(model), "no adapter"),
        (lambda: save_lora(model, tmp_path), "no adapter"),
    ):
        with pytest.raises(EmbedlabError, match=message):
            call()
    add_lora(model, 2)
    with pytest.raises(EmbedlabError, match="already has an adapter"):
        add_lora(model, 2)


def test_static_model_takes_none():
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    static = StaticEmbedding(tiny_model().tokenizer.backend_tokenizer, embedding_dim=4)
    with pytest.raises(EmbedlabError, match="LoRA needs a transformer"):
        add_lora(SentenceTransformer(modules=[static], device="cpu"), 2)


def test_adapter_with_prompts_by_path(tmp_path):
    """A model loaded by its folder keeps its prompts through adapter and merge."""
    model = tiny_model()
    model.prompts = {"query": "query: ", "document": "passage: "}
    model.save_pretrained(str(tmp_path / "prompted"))
    loaded = load_model(str(tmp_path / "prompted"))
    add_lora(loaded, 2)
    merge_lora(train(loaded, tmp_path)).save_pretrained(str(tmp_path / "tuned"))
    assert load_model(str(tmp_path / "tuned")).prompts == {"query": "query: ", "document": "passage: "}
