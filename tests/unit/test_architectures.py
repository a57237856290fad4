"""Every technique on every architecture, with tiny random models: exact, or refused in words."""

from __future__ import annotations

import json
import re

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Router

from embedlab.errors import ModelError, ParameterError
from embedlab.models.encode import encode
from embedlab.models.fingerprint import model_fingerprint
from embedlab.models.layers import keep_layers
from embedlab.models.load import load_model
from embedlab.models.packing import is_packed
from embedlab.models.save import save_model
from embedlab.models.sides import is_routed, sides_of
from embedlab.models.static import static_student
from embedlab.models.tokens import to_features, token_ids
from embedlab.paths import benchmarks_dir
from embedlab.training.batches import TokenisedCollator
from embedlab.training.contrastive import train_contrastive
from embedlab.training.examples import number_rows
from embedlab.training.fit import FitSettings
from embedlab.training.learning_rates import learning_rates
from experiments.architectures import table
from experiments.architectures.checks import PAIRS, QUESTIONS, TECHNIQUES, apart, load, stock_vectors, vectors
from experiments.architectures.models import DIM, FAMILIES, STATIC, TWO_ENCODERS, TWO_HEADS, folder
from experiments.benchmarks.table import read_results
from tests.conftest import TEXTS

ROUTERS = (TWO_ENCODERS, TWO_HEADS)
SETTINGS = FitSettings(steps=3, batch_size=4, learning_rate=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_holds_what_is_measured(family):
    """After a change that is meant, run `python -m experiments.architectures`."""
    assert table.measure(family) == table.read()[family]


def test_nothing_in_the_table_is_inexact():
    cells = {cell for family in table.read().values() for name, cell in family.items() if name != table.BATCHES}
    assert not [cell for cell in cells if cell.startswith("differs")]


def test_the_page_is_what_the_results_give():
    """After new benchmarks, run `python -m experiments.architectures --page`."""
    expected = table.page(table.read(), read_results(benchmarks_dir()))
    assert table.page_file().read_text(encoding="utf-8") == expected


def test_a_speed_is_the_ratio_of_its_benchmark():
    row = {"measure": "seconds", "against": "stock", "status": "measured", "value": 2.25}
    benchmarks = {"train_short_mpnet": {"rows": [{**row, "measure": "peak_bytes"}, row]}}
    benchmarks["train_short_qwen3"] = {"rows": [row], "smoke": True}
    speeds = table.page(table.read(), benchmarks).partition("## Batches")[2]
    assert "| MPNet | packed | 2.25 × | not measured |" in speeds
    assert re.search(r"\| Qwen3 \| packed \| not measured \| not measured \|", speeds)


def test_a_wrong_technique_is_written_down(monkeypatch):
    """The final norm of a decoder is forgotten between its layers."""
    monkeypatch.setattr("embedlab.training.contrastive.matryoshka_2d.final_norm", lambda model: None)
    technique = next(technique for technique in TECHNIQUES if technique.name == "2D Matryoshka")
    assert table._cell(technique, "Qwen3").startswith("differs by")


def test_the_last_layer_alone_is_right_or_refused(tmp_path):
    for family in ("ModernBERT", "T5 encoder"):  # their first layer has other weights
        with pytest.raises(ModelError, match="first layer of .* has other weights"):
            keep_layers(load(family), [3])
    student = keep_layers(load("Qwen3"), [3])
    save_model(student, tmp_path)
    assert apart(vectors(load_model(str(tmp_path), device="cpu")), vectors(student)) <= 1e-6


@pytest.mark.parametrize("family", ["BERT", "DistilBERT", "T5 encoder", "ModernBERT", "Qwen3"])
def test_learning_rates_reach_every_layer(family):
    model = load(family)
    rates = learning_rates(model, 1.0, layer_decay=0.5)
    for name, _ in model.named_parameters():
        rate = [value for pattern, value in rates.items() if re.search(pattern, name)]
        layer = re.search(r"\.(?:layer|layers|block)\.(\d)\.", name)
        if layer:
            assert rate[-1:] == [0.5 ** (3 - int(layer[1]))], name
    assert any(value == 0.5**4 for value in rates.values())


class TestPrecision:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_weights_are_the_same_model_in_fp32(self, dtype, tmp_path):
        """Fingerprint, vectors and a training step are those of the same values saved as float32."""
        half = SentenceTransformer(folder("Qwen3"), device="cpu").to(dtype)
        half.save_pretrained(str(tmp_path / "half"))
        half.float().save_pretrained(str(tmp_path / "full"))
        models = [load_model(str(tmp_path / name), device="cpu") for name in ("half", "full")]
        assert {weight.dtype for model in models for weight in model.parameters()} == {torch.float32}
        assert model_fingerprint(models[0]) == model_fingerprint(models[1])
        assert apart(*map(vectors, models)) == 0
        for number, model in enumerate(models):
            train_contrastive(model, number_rows(PAIRS), SETTINGS, output_dir=str(tmp_path / f"fit{number}"))
        assert apart(*map(vectors, models)) == 0
        save_model(models[0], tmp_path / "tuned")
        assert json.loads((tmp_path / "tuned" / "config.json").read_text())["dtype"] == "float32"


class TestDefaultPrompt:
    """`encode_query` and `encode_document` of sentence-transformers do not use it, so neither do we, anywhere."""

    @pytest.mark.parametrize("packed", [True, False])
    def test_it_is_used_nowhere(self, packed, tmp_path):
        stock = SentenceTransformer(folder("XLM-R"), device="cpu")
        stock.prompts |= {"clustering": "a long prompt for clusters: "}
        stock.default_prompt_name = "clustering"
        stock.save_pretrained(str(tmp_path))
        model = load_model(str(tmp_path), device="cpu", packed=packed)
        assert is_packed(model) is packed and model.default_prompt_name == "clustering"
        assert apart(vectors(model), stock_vectors(folder("XLM-R"))) <= 1e-6
        collator = TokenisedCollator(model, TEXTS, ["query"])
        batch = collator([{"label": [number]} for number in range(len(TEXTS))])
        expected = sum(map(len, model.tokenizer(list(TEXTS))["input_ids"]))
        mask = batch.get("query_attention_mask")
        assert (batch["query_input_ids"].numel() if mask is None else int(mask.sum())) == expected


class TestStatic:
    def test_features_are_those_of_stock(self):
        static = load(STATIC)
        ours, stock = to_features(static, token_ids(static, QUESTIONS)), static.preprocess(QUESTIONS)
        assert all(torch.equal(ours[name], stock[name]) for name in ("input_ids", "offsets"))


@pytest.mark.parametrize("family", ROUTERS)
class TestRouter:
    def test_both_sides_learn_and_nothing_is_shared_by_accident(self, family, tmp_path):
        model = load(family)
        before = {name: weight.clone() for name, weight in model.state_dict().items()}
        train_contrastive(model, number_rows(PAIRS), SETTINGS, output_dir=str(tmp_path))
        moved = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
        for side in ("query", "document"):
            assert any(f"sub_modules.{side}." in name for name in moved)

    def test_each_side_is_a_model_that_shares_its_weights(self, family):
        model = load(family)
        assert is_routed(model) and not any(is_routed(side.model) for side in sides_of(model))
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(0.5)
        query, document = (encode(side.model, TEXTS, prompt=side.prompt) for side in sides_of(model))
        assert apart(query, model.encode_query(TEXTS, normalize_embeddings=True)) <= 1e-6
        assert apart(document, model.encode_document(TEXTS, normalize_embeddings=True)) <= 1e-6
        assert apart(query, document) > 0.1

    def test_the_fingerprint_sees_both_sides(self, family):
        model = load(family)
        first = model_fingerprint(model)
        for route in ("query", "document"):
            changed = load(family)
            router = next(module for module in changed if isinstance(module, Router))
            with torch.no_grad():
                next(router.sub_modules[route].parameters()).add_(1)
            assert model_fingerprint(changed) != first
        assert model_fingerprint(load(family)) == first

    def test_encoding_without_a_side_is_refused(self, family):
        model = load(family)
        for technique in (encode, token_ids, lambda model, texts: to_features(model, [[2, 3]]), static_student):
            with pytest.raises(ModelError, match="queries and documents have their own"):
                technique(model, TEXTS)


@pytest.mark.parametrize("family", [STATIC, TWO_ENCODERS])
def test_the_cached_loss_of_a_static_side_is_refused(family, tmp_path):
    with pytest.raises(ParameterError, match="splits batches for transformers"):
        train_contrastive(load(family), number_rows(PAIRS), SETTINGS, loss="cached", output_dir=str(tmp_path))


def test_a_router_without_a_route_for_queries_is_refused(tmp_path):
    bert = SentenceTransformer(folder("BERT"), device="cpu")
    router = Router({"document": [Dense(DIM, DIM)]}, allow_empty_key=False)
    SentenceTransformer(modules=[*bert, router], device="cpu").save_pretrained(str(tmp_path))
    with pytest.raises(ModelError, match="no route for query texts"):
        load_model(str(tmp_path), device="cpu")


def test_sides_of_different_dimensions_are_refused(tmp_path):
    bert = SentenceTransformer(folder("BERT"), device="cpu")
    router = Router.for_query_document([Dense(DIM, 8)], [Dense(DIM, 16)])
    SentenceTransformer(modules=[*bert, router], device="cpu").save_pretrained(str(tmp_path))
    with pytest.raises(ModelError, match="have 8 dimensions, and documents 16"):
        load_model(str(tmp_path), device="cpu")
