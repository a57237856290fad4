"""Damaged model folders and models of other kinds: each is one clear ModelError, and the rest loads right."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Dense
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, CLIPConfig

from embedlab.errors import ModelError
from embedlab.models import load
from embedlab.models.cross_encoder import cross_encoder_from
from embedlab.models.encode import encode
from embedlab.models.fingerprint import model_fingerprint
from embedlab.models.folder import ModelFolder
from embedlab.models.load import load_model
from embedlab.models.packing import pack
from embedlab.models.reranker import load_reranker
from embedlab.models.save import save_model
from embedlab.training.contrastive import train_contrastive
from embedlab.training.examples import number_rows
from embedlab.training.fit import FitSettings
from tests.conftest import TEXTS, tiny_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny BERT as sentence-transformers saves it."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    tiny_model().save_pretrained(str(folder))
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of it to damage."""
    return shutil.copytree(saved, tmp_path / "model")


def no_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)


def added_tokens(folder):
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    tokenizer.add_tokens(["qzxa", "qzxb"])
    tokenizer.save_pretrained(str(folder))


def lfs_pointer(folder):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 90\n"
    (folder / "model.safetensors").write_text(text)


def lfs_tokenizer(folder):
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 90\n")


def truncated(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def empty_weights(folder):
    (folder / "model.safetensors").write_bytes(b"")


def garbled(folder):
    (folder / "model.safetensors").write_bytes(b"\xff" * 4096)


def modules_without_type(folder):
    modules = json.loads((folder / "modules.json").read_text())
    del modules[1]["type"]
    (folder / "modules.json").write_text(json.dumps(modules))


def modules_not_json(folder):
    (folder / "modules.json").write_text("[{")


def modules_not_a_list(folder):
    (folder / "modules.json").write_text('{"0": "Transformer"}')


def config_not_json(folder):
    (folder / "config.json").write_text("{,")


def no_pooling(folder):
    shutil.rmtree(folder / "1_Pooling")


def text_limit(folder):
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": "256"}')


def weights_of_another_model(folder):
    from safetensors.torch import save_file

    save_file({"tower.projection.weight": torch.zeros(2, 2)}, folder / "model.safetensors")


def deep_config(folder):
    (folder / "config.json").write_text('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}")


def weights_that_are_a_folder(folder):
    (folder / "extra.safetensors").mkdir()


def weights_that_are_a_pipe(folder):
    os.mkfifo(folder / "extra.bin")


def a_function_as_activation(folder):
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense" / "config.json").write_text('{"activation_function": "torch.distributed.run.main"}')


DAMAGE = {
    deep_config: r"config\.json.*not valid JSON",
    weights_that_are_a_folder: r"extra\.safetensors.*not a file",
    weights_that_are_a_pipe: r"extra\.bin.*not a file",
    a_function_as_activation: r"2_Dense/config\.json.*'torch\.distributed\.run\.main' is not a layer of PyTorch",
    no_tokenizer: r"no tokenizer that fits: \d+ tokens for 30,522 embeddings",
    added_tokens: r"token ids up to 30,523, but there are 30,522 embeddings.*resize_token_embeddings",
    lfs_pointer: r"model\.safetensors.*Git LFS pointer.*git lfs pull",
    lfs_tokenizer: r"tokenizer\.json.*Git LFS pointer",
    truncated: r"model\.safetensors.*cut off, [\d,]+ of [\d,]+ bytes",
    empty_weights: r"model\.safetensors.*holds no weights, it has 0 bytes",
    garbled: r"model\.safetensors.*header of the weights is damaged",
    modules_without_type: r"modules\.json.*module 1 has no text 'type'",
    modules_not_json: r"modules\.json.*not valid JSON",
    modules_not_a_list: r"modules\.json.*expected a list of modules",
    config_not_json: r"config\.json.*not valid JSON",
    no_pooling: r"1_Pooling/config\.json.*missing",
    text_limit: r"sentence_bert_config\.json.*max_seq_length must be a whole number of tokens, got '256'",
    weights_of_another_model: r"no weight in this file belongs to the model",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damage_is_one_line(folder, damage):
    damage(folder)
    with pytest.raises(ModelError, match=DAMAGE[damage]) as raised:
        load_model(str(folder))
    assert "\n" not in str(raised.value) and raised.value.field == "model_name"


class _Evil:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def test_pickled_objects_in_a_model_folder_never_run(folder, tmp_path):
    (folder / "training_args.bin").write_bytes(pickle.dumps(_Evil(tmp_path / "ran"), protocol=2))
    load_model(str(folder))
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Evil(tmp_path / "ran"), protocol=2))
    with pytest.raises(ModelError, match="Weights only load failed"):
        load_model(str(folder))
    assert not (tmp_path / "ran").exists()


def test_the_dimension_is_read_without_loading(folder):
    assert ModelFolder(folder, "model").dimension() == load_model(str(folder)).get_embedding_dimension()
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": 9, "name": "9", "path": "", "type": "embedlab.models.static_concat.Other"})
    (folder / "modules.json").write_text(json.dumps(modules))
    assert ModelFolder(folder, "model").dimension() is None


def test_a_missing_normalisation_folder_is_harmless(tmp_path):
    """Git keeps no empty folders."""
    from sentence_transformers.base.modules import Normalize

    model = tiny_model()
    model.append(Normalize())
    model.save_pretrained(str(tmp_path))
    shutil.rmtree(tmp_path / "2_Normalize", ignore_errors=True)
    assert encode(load_model(str(tmp_path)), TEXTS) == pytest.approx(encode(model, TEXTS), abs=1e-6)


def cross_encoder_folder(path, labels=1):
    tokenizer = AutoTokenizer.from_pretrained(load.model_path(load.BASE_MODEL))
    shape = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    config = AutoConfig.for_model("bert", vocab_size=len(tokenizer), num_labels=labels, **shape)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


class TestOtherKinds:
    def test_cross_encoders(self, tmp_path):
        plain = cross_encoder_folder(tmp_path / "plain")
        CrossEncoder(str(plain), device="cpu").save_pretrained(str(tmp_path / "stock"))
        save_model(cross_encoder_from(tiny_model()), tmp_path / "ours")
        for name in ("plain", "stock", "ours"):
            with pytest.raises(ModelError, match=r"cross-encoder.*reranker.*notebook 07"):
                load_model(str(tmp_path / name))
            assert load_reranker(str(tmp_path / name))([("a", "b")]).shape == (1,)

    def test_an_embedding_model_as_reranker(self, saved):
        with pytest.raises(ModelError, match=r"\[reranker\].*embedding model, not a cross-encoder"):
            load_reranker(str(saved))

    def test_a_transformer_without_a_scoring_layer_as_reranker(self, folder):
        (folder / "modules.json").unlink()
        (folder / "config_sentence_transformers.json").unlink()
        with pytest.raises(ModelError, match="scores would be random"):
            load_reranker(str(folder))

    def test_damage_of_a_reranker(self, tmp_path):
        truncated(cross_encoder_folder(tmp_path / "model"))
        with pytest.raises(ModelError, match=r"\[reranker\].*cut off"):
            load_reranker(str(tmp_path / "model"))

    @pytest.mark.parametrize(
        ("kind", "says"), [("SparseEncoder", "a sparse model"), ("MultiVectorEncoder", "one vector per token")]
    )
    def test_sparse_and_multi_vector_models(self, folder, kind, says):
        file = folder / "config_sentence_transformers.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "model_type": kind}))
        with pytest.raises(ModelError, match=says):
            load_model(str(folder))

    def test_images(self, tmp_path):
        from transformers import CLIPModel

        shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        text = {**shape, "vocab_size": 30_522, "bos_token_id": 101, "eos_token_id": 102, "pad_token_id": 0}
        vision = {**shape, "image_size": 8, "patch_size": 4}
        CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(tmp_path)
        AutoTokenizer.from_pretrained(load.model_path(load.BASE_MODEL)).save_pretrained(tmp_path)
        with pytest.raises(ModelError, match="texts only"):
            load_model(str(tmp_path))

    def test_a_plain_transformer_says_how_it_is_pooled(self, folder, caplog):
        (folder / "modules.json").unlink()
        with caplog.at_level(logging.WARNING):
            model = load_model(str(folder))
        assert "mean of the token vectors is assumed" in caplog.text
        assert encode(model, TEXTS) == pytest.approx(encode(tiny_model(), TEXTS), abs=1e-5)


class TestCode:
    @pytest.fixture
    def coded(self, folder):
        """A model with a module of its own, which leaves a mark when it is imported."""
        code = "from sentence_transformers.base.modules import Normalize\nclass Mine(Normalize):\n    pass\n"
        (folder / "mine.py").write_text(f"open({str(folder / 'ran')!r}, 'w').close()\n{code}")
        modules = json.loads((folder / "modules.json").read_text())
        modules.append({"idx": 2, "name": "2", "path": "2_Mine", "type": "mine.Mine"})
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "2_Mine").mkdir()
        (folder / "2_Mine" / "config.json").write_text("{}")
        return folder

    def test_does_not_run_by_default(self, coded):
        with pytest.raises(ModelError, match=r"third-party code \(mine\.Mine\).*EMBEDLAB_TRUST_REMOTE_CODE"):
            load_model(str(coded))
        assert not (coded / "ran").exists()

    def test_runs_when_the_user_says_so(self, coded):
        assert encode(load_model(str(coded), trust_remote_code=True), TEXTS).shape == (len(TEXTS), 32)
        assert (coded / "ran").exists()

    def test_runs_when_the_environment_names_the_model(self, coded, monkeypatch):
        monkeypatch.setenv("EMBEDLAB_TRUST_REMOTE_CODE", "another/model")
        with pytest.raises(ModelError):
            load_model(str(coded))
        monkeypatch.setenv("EMBEDLAB_TRUST_REMOTE_CODE", f"another/model,{coded}")
        assert encode(load_model(str(coded)), TEXTS).shape == (len(TEXTS), 32)

    def test_of_an_unknown_architecture(self, folder):
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "mine", "auto_map": {"AutoModel": "mine.Mine", "AutoConfig": "mine.Config"}}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError, match=r"third-party code \(auto_map in config.json\)"):
            load_model(str(folder))


class TestNumberTypes:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_stored_halves_load_as_float32(self, tmp_path, dtype):
        model = tiny_model()
        model.append(Dense(32, 16))
        whole = encode(model, TEXTS)
        model.to(dtype).save_pretrained(str(tmp_path))
        loaded = load_model(str(tmp_path), device="cpu")
        assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}
        assert encode(loaded, TEXTS) == pytest.approx(whole, abs=0.02)
        assert model_fingerprint(loaded) == model_fingerprint(model.float())

    def test_a_half_model_has_a_fingerprint_of_its_own(self):
        assert len({model_fingerprint(tiny_model().to(dtype)) for dtype in (torch.float32, torch.bfloat16)}) == 2

    def test_fingerprints_of_float32_stay(self):
        """Records and caches hold them."""
        assert model_fingerprint(load_model()) == "9d8395b7c8981c17"

    def test_training_a_half_model_lowers_the_loss(self, tmp_path):
        """Pure fp16 with AdamW diverged: loss .318, .200, 2.56, 4.00."""
        tiny_model().half().save_pretrained(str(tmp_path / "half"))
        rows = number_rows([(text.split()[0], text) for text in TEXTS])
        losses = {}
        for name, model in (("half", load_model(str(tmp_path / "half"))), ("whole", pack(tiny_model()))):
            settings = FitSettings(steps=8, batch_size=4, learning_rate=2e-3)
            result = train_contrastive(model, rows, settings, output_dir=str(tmp_path / "scratch"))
            losses[name] = [row["loss"] for row in result.history if row.get("loss") is not None]
        assert losses["half"][-1] < losses["half"][0]
        np.testing.assert_allclose(losses["half"], losses["whole"], atol=0.05)


class TestOptionsInTheName:
    def test_limit_and_prompts(self, saved, tmp_path):
        model = tiny_model()
        model.prompts = {"search_query": "find: ", "search_document": "text: "}
        model.save_pretrained(str(tmp_path))
        loaded = load_model(f"{tmp_path}?max_seq_length=16&query_prompt=search_query&document_prompt=my text:%0A")
        assert loaded.max_seq_length == 16
        assert (loaded.prompts["query"], loaded.prompts["document"]) == ("find: ", "my text:\n")

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ("max_seq_length=long", "whole number"),
            ("max_seq_length=0", "whole number"),
            ("max_seq_length=100000", "has positions for 512 tokens"),
            ("prompt=a", "unknown option 'prompt'"),
            ("", "unknown option"),
            ("trust_remote_code=true", "unknown option 'trust_remote_code'"),
        ],
    )
    def test_mistakes(self, saved, options, says):
        with pytest.raises(ModelError, match=says):
            load_model(f"{saved}?{options}")

    def test_a_folder_with_a_question_mark(self, saved, tmp_path):
        folder = shutil.copytree(saved, tmp_path / "why?")
        assert encode(load_model(str(folder)), TEXTS).shape == (len(TEXTS), 32)


class TestWhatIsSaved:
    def test_has_no_path_and_no_text_of_the_training(self, saved, tmp_path):
        model = load_model(str(saved))
        rows = number_rows([(f"patient xqz9 {i}", text) for i, text in enumerate(TEXTS)])
        train_contrastive(model, rows, FitSettings(steps=1, batch_size=4), output_dir=str(tmp_path / "scratch"))
        save_model(model, tmp_path / "out", facts={"Run": "03_contrastive-1a2b3c4d-s0"})
        texts = {file: file.read_text() for file in (tmp_path / "out").rglob("*") if file.suffix in (".json", ".md")}
        wrong = [str(file) for file, text in texts.items() if str(saved.parent) in text or "/site-packages/" in text]
        assert not wrong and not any("xqz9" in text for text in texts.values())
        card = texts[tmp_path / "out" / "README.md"]
        assert f"Base model: {saved.parent.name}\n" in card and "Run: 03_contrastive-1a2b3c4d-s0" in card

    def test_an_adapter_names_the_base_model(self, tmp_path):
        from embedlab.models.lora import add_lora, save_lora

        model = load_model()
        add_lora(model, 2)
        save_lora(model, tmp_path)
        config = json.loads((tmp_path / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == "sentence-transformers/all-MiniLM-L6-v2"
        assert not any("site-packages" in file.read_text() for file in tmp_path.glob("*.[jm]*[nd]"))


def test_run_ids_see_a_folder_with_options(saved):
    from embedlab.runs.inputs import named_paths

    values = {"model_name": f"{saved}?max_seq_length=16"}
    assert [path for _, _, path in named_paths(values)] == [saved]
