"""Every technique on every architecture, with tiny random models: exact, or refused in words."""

from __future__ import annotations

import copy
import functools
import tempfile

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerFast, T5EncoderModel

from embedlab.errors import ModelError
from embedlab.models.concatenation import concat_static, concatenate, static_part
from embedlab.models.encode import encode
from embedlab.models.layers import keep_layers, layer_count
from embedlab.models.load import load_model, model_path
from embedlab.models.lora import add_lora, merge_lora
from embedlab.models.merging import merge
from embedlab.models.packing import is_packed
from embedlab.models.prompts import prompts_of
from embedlab.models.save import save_model
from embedlab.models.static import static_student
from embedlab.models.tokens import to_features, token_ids
from embedlab.training.contrastive import train_contrastive
from embedlab.training.contrastive.matryoshka_2d import embed_layers
from embedlab.training.examples import number_rows
from embedlab.training.fit import FitSettings
from embedlab.training.learning_rates import learning_rates
from tests.conftest import TEXTS

SHAPE = {"num_hidden_layers": 4, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
DECODER = {**SHAPE, "num_key_value_heads": 2, "head_dim": 16}
SHAPES = {
    "bert": SHAPE,
    "mpnet": SHAPE,
    "modernbert": {**SHAPE, "cls_token_id": 101, "sep_token_id": 102, "bos_token_id": 101, "eos_token_id": 102},
    "qwen3": DECODER,
    "gemma3_text": DECODER,
    "t5": {"d_model": 64, "num_layers": 4, "num_heads": 4, "d_kv": 16, "d_ff": 128},
    "xlm-roberta": SHAPE,
}
PROMPTS = {
    "bert": {},
    "qwen3": {"query": "Instruct: Given a question, find the passage that answers it\nQuery:", "document": ""},
    "xlm-roberta": {"query": "query: ", "document": "passage: "},
}
QUESTIONS = [*TEXTS, "", "word " * 40]  # the last one is longer than the limit


def byte_level_tokenizer():
    """A tokenizer without a token for unknown words, as Qwen and Llama have."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([*TEXTS, *PROMPTS["qwen3"].values()], vocab_size=400, show_progress=False)
    names = {"pad_token": "<pad>", "eos_token": "<eos>"}
    trained.add_special_tokens(list(names.values()))
    return PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, padding_side="left", **names)


@functools.cache
def saved(architecture):
    """The folder of a random model with 4 layers and 64 dimensions."""
    folder = tempfile.mkdtemp()
    decoder = architecture == "qwen3"
    tokenizer = byte_level_tokenizer() if decoder else AutoTokenizer.from_pretrained(model_path("all-MiniLM-L6-v2"))
    shape = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **SHAPES[architecture]}
    config = AutoConfig.for_model(architecture, **shape)
    torch.manual_seed(0)
    network = T5EncoderModel(config) if architecture == "t5" else AutoModel.from_config(config)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.08)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    modules = [Transformer(folder, max_seq_length=32), Pooling(64, pooling_mode="lasttoken" if decoder else "mean")]
    whole = tempfile.mkdtemp()
    SentenceTransformer(modules=modules, prompts=PROMPTS.get(architecture, {}), device="cpu").save_pretrained(whole)
    return whole


@pytest.fixture(params=SHAPES)
def model(request):
    return load_model(saved(request.param), device="cpu")


def vectors(model):
    """Vectors of the texts as queries and as documents."""
    return np.concatenate([encode(model, QUESTIONS, prompt=prompt) for prompt in prompts_of(model)])


def same(first, second, tolerance=1e-5):
    np.testing.assert_allclose(first, second, atol=tolerance)


def test_encodes_as_stock(model):
    stock = SentenceTransformer(model_folder(model), device="cpu")
    queries = stock.encode_query(QUESTIONS, normalize_embeddings=True)
    same(vectors(model), np.concatenate([queries, stock.encode_document(QUESTIONS, normalize_embeddings=True)]))


def model_folder(model):
    return next(saved(name) for name in SHAPES if AutoConfig.from_pretrained(saved(name)).model_type == kind(model))


def kind(model):
    return model[0].model.config.model_type


def test_trains_and_comes_back_from_disk(model, tmp_path):
    rows, before = number_rows([(text, text[:12]) for text in TEXTS]), vectors(model)
    train_contrastive(model, rows, FitSettings(max_steps=2, batch_size=4), output_dir=str(tmp_path / "scratch"))
    tuned = vectors(model)
    assert np.isfinite(tuned).all() and np.abs(tuned - before).max() > 1e-3
    save_model(model, tmp_path / "model")
    same(vectors(load_model(str(tmp_path / "model"), device="cpu")), tuned, 1e-6)


def test_fewer_layers_come_back_from_disk(model, tmp_path):
    student = keep_layers(model, [0, 3])
    assert layer_count(student) == 2 and layer_count(model) == 4
    save_model(student, tmp_path)
    same(vectors(load_model(str(tmp_path), device="cpu")), vectors(student), 1e-6)


def test_the_last_layer_alone_is_right_or_refused(model, tmp_path):
    if kind(model) in ("modernbert", "t5"):  # their first layer has other weights
        with pytest.raises(ModelError, match="first layer of .* has other weights"):
            keep_layers(model, [3])
        return
    student = keep_layers(model, [3])
    save_model(student, tmp_path)
    same(vectors(load_model(str(tmp_path), device="cpu")), vectors(student), 1e-6)


def test_2d_matryoshka_trains_what_the_cut_model_returns(model):
    model.eval()
    features = to_features(model, token_ids(model, TEXTS))
    with torch.no_grad():
        for depth, columns in zip((4, 2, 1), embed_layers(model, [dict(features)], (4, 2, 1)), strict=True):
            cut = keep_layers(model, range(depth)).eval()(dict(features))["sentence_embedding"]
            same(columns[0].numpy(), cut.numpy())


def test_lora_merges_exactly(model):
    model.eval()
    add_lora(model, 2)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    adapted = vectors(model)
    same(vectors(merge_lora(model)), adapted)


def test_a_merge_with_itself_is_the_model(model):
    same(vectors(merge([model, copy.deepcopy(model)], [0.5, 0.5])), vectors(model), 1e-6)


def test_learning_rates_reach_every_layer(model):
    import re

    rates = learning_rates(model, 1.0, layer_decay=0.5)
    for name, _ in model.named_parameters():
        rate = [value for pattern, value in rates.items() if re.search(pattern, name)]
        layer = re.search(r"\.(?:layer|layers|block)\.(\d)\.", name)
        if layer:
            assert rate[-1:] == [0.5 ** (3 - int(layer[1]))], name
    assert any(value == 0.5**4 for value in rates.values())


def test_the_saved_concatenation_is_the_evaluated_one(model, tmp_path):
    """Prompts are left out of the static half, and so is text after the limit."""
    static = static_student(model, TEXTS)
    save_model(concat_static(model, static, 0.3), tmp_path)
    loaded = load_model(str(tmp_path), device="cpu")
    for prompt in prompts_of(model):
        halves = encode(model, QUESTIONS, prompt=prompt), static_part(static)(model, QUESTIONS, prompt=prompt)
        same(encode(loaded, QUESTIONS, prompt=prompt), concatenate(*halves, 0.3), 2e-6)
    if kind(model) == "xlm-roberta":
        words = encode(static, TEXTS)
        same(static_part(static)(model, TEXTS, prompt="query: "), words, 1e-6)


def test_which_ones_run_packed():
    packed = {name for name in SHAPES if is_packed(load_model(saved(name), device="cpu"))}
    assert {"bert", "xlm-roberta"} <= packed


class TestStatic:
    @pytest.fixture
    def static(self, tmp_path):
        static_student(load_model(saved("bert"), device="cpu"), TEXTS).save_pretrained(str(tmp_path / "static"))
        return load_model(str(tmp_path / "static"), device="cpu")

    def test_features_are_those_of_stock(self, static):
        ours, stock = to_features(static, token_ids(static, QUESTIONS)), static.preprocess(QUESTIONS)
        assert all(torch.equal(ours[name], stock[name]) for name in ("input_ids", "offsets"))

    def test_training_goes_on(self, static, tmp_path):
        rows, before = number_rows([(text, text[:12]) for text in TEXTS]), encode(static, TEXTS)
        settings = FitSettings(max_steps=3, batch_size=4, learning_rate=1e-2)
        train_contrastive(static, rows, settings, output_dir=str(tmp_path / "scratch"))
        tuned = encode(static, TEXTS)
        assert np.abs(tuned - before).max() > 1e-3
        save_model(static, tmp_path / "model")
        same(encode(load_model(str(tmp_path / "model"), device="cpu"), TEXTS), tuned, 1e-6)

    @pytest.mark.parametrize("technique", [layer_count, lambda model: add_lora(model, 2)])
    def test_what_needs_layers_is_refused(self, static, technique):
        with pytest.raises(ModelError):
            technique(static)
