"""Prompts are applied the same way in training, packed and padded encoding, distillation and search."""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from embedlab.data.dataset import Dataset
from embedlab.errors import ModelError
from embedlab.models import load, truncation
from embedlab.models.concatenation import concat_static, concatenate
from embedlab.models.cross_encoder import cosine_rows
from embedlab.models.encode import encode
from embedlab.models.load import load_model
from embedlab.models.packing import pack
from embedlab.models.prompts import Prompts, prompts_of
from embedlab.models.static import static_student
from embedlab.models.tokens import token_ids
from embedlab.models.truncation import count_truncated, tell_truncation
from embedlab.search.vectors import encode_split
from embedlab.training.contrastive.matryoshka_2d import train_matryoshka
from embedlab.training.distillation import cross_encoder, distil_layers
from embedlab.training.distillation.embeddings import PromptedTexts
from embedlab.training.examples import number_rows
from embedlab.training.fit import FitSettings
from tests.conftest import TEXTS, tiny_model

QUERY, DOCUMENT = "query: ", "passage: "


def token_rows(model, text, prompt=None):
    return token_ids(model, [text], prompt)[0].tolist()


@pytest.fixture
def prompted():
    model = pack(tiny_model())
    model.prompts = {"query": QUERY, "document": DOCUMENT}
    return model


class TestDefaultPrompt:
    """It is used nowhere, as in `encode_query` and `encode_document`."""

    @pytest.mark.parametrize("packed", [True, False])
    def test_encoding(self, packed):
        model = tiny_model()
        model.prompts, model.default_prompt_name = {"query": "", "document": "", "task": "topic: "}, "task"
        expected = model.encode_query(TEXTS, normalize_embeddings=True)
        vectors = encode(pack(model) if packed else model, TEXTS, prompt=prompts_of(model).query)
        assert vectors == pytest.approx(expected, abs=1e-5)
        with_default = model.encode(TEXTS, normalize_embeddings=True)
        assert np.abs(vectors - with_default).max() > 1e-2

    def test_training(self):
        model = tiny_model()
        model.prompts, model.default_prompt_name = {"task": "topic: "}, "task"
        assert prompts_of(model) == Prompts(None, None)
        assert token_rows(model, "fracture", prompts_of(model).query) == token_rows(model, "fracture")


class TestOtherNames:
    def test_a_notice_says_which_are_not_used(self, tmp_path, caplog):
        model = tiny_model()
        model.prompts = {"search_query": "find: ", "search_document": "text: "}
        model.save_pretrained(str(tmp_path))
        with caplog.at_level(logging.WARNING):
            assert prompts_of(load_model(str(tmp_path))) == Prompts(None, None)
        assert all(words in caplog.text for words in ("are not used: search_", "search_document", "?query_prompt="))
        caplog.clear()
        chosen = load_model(str(tmp_path), query_prompt="search_query", document_prompt="my text: ")
        assert prompts_of(chosen) == Prompts("find: ", "my text: ") and "not used" not in caplog.text

    @pytest.mark.parametrize("name", ["document", "passage", "corpus"])
    def test_names_of_the_document_prompt(self, name):
        model = tiny_model()
        model.prompts = {"query": "", "document": "", name: "text: "}
        assert prompts_of(model) == Prompts(None, "text: ")

    def test_none_can_be_chosen(self, tmp_path):
        model = tiny_model()
        model.prompts = {"query": QUERY, "passage": DOCUMENT}
        model.save_pretrained(str(tmp_path))
        assert prompts_of(load_model(f"{tmp_path}?query_prompt=&document_prompt=")) == Prompts(None, None)


class TestDistillation:
    def test_every_text_has_the_prompt_of_its_role(self, prompted):
        collator = PromptedTexts(prompted, ["cholera", "fracture"], queries={"fracture"})
        batch = collator([{"label": [1]}, {"label": [0]}])
        ids = batch["text_input_ids"].flatten().tolist()
        expected = [token_rows(prompted, "fracture", QUERY), token_rows(prompted, "cholera", DOCUMENT)]
        assert ids == [token for row in expected for token in row]

    def test_pooling_without_the_prompt_cannot_mix_lengths(self, prompted):
        prompted[1].include_prompt = False
        prompted.prompts["query"] = "a much longer instruction: "
        with pytest.raises(ModelError, match="pooling leaves out the prompt"):
            PromptedTexts(prompted, TEXTS, queries={TEXTS[0]})
        PromptedTexts(prompted, TEXTS)

    def test_a_student_of_all_layers_has_nothing_to_learn(self, prompted, tmp_path):
        """With the wrong prompts its loss would not start at zero."""
        queries, instruction = set(TEXTS[:3]), "Instruct: given a question, find the passage that answers it: "
        prompted.prompts["query"] = instruction
        prompts = [instruction if text in queries else DOCUMENT for text in TEXTS]
        vectors = np.concatenate([encode(prompted, [text], prompt=p) for text, p in zip(TEXTS, prompts, strict=True)])
        for module in prompted.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        settings = FitSettings(steps=1, batch_size=len(TEXTS), learning_rate=1e-9)
        options = {"output_dir": str(tmp_path)}
        _, right = distil_layers(prompted, 2, TEXTS, vectors, settings, queries=queries, **options)
        _, wrong = distil_layers(prompted, 2, TEXTS, vectors, settings, **options)
        assert 100 * right.history[0]["loss"] < wrong.history[0]["loss"]

    def test_scores(self, prompted, monkeypatch):
        seen = []
        monkeypatch.setattr(cross_encoder, "fit", lambda *args, collator, **options: seen.append(collator))
        rows = number_rows([("fracture", "cholera")])
        cross_encoder.distil_scores(prompted, rows, np.zeros((1, 1), np.float32), FitSettings(), output_dir="")
        batch = seen[0]([{"label": [0, 1]}])
        assert batch["query_input_ids"].flatten().tolist() == token_rows(prompted, "fracture", QUERY)
        assert batch["positive_input_ids"].flatten().tolist() == token_rows(prompted, "cholera", DOCUMENT)

    def test_cosines(self, prompted):
        (cosine,) = cosine_rows(prompted, [("fracture", "cholera")])[0]
        vectors = encode(prompted, ["fracture"], prompt=QUERY), encode(prompted, ["cholera"], prompt=DOCUMENT)
        assert cosine == pytest.approx(float(vectors[0][0] @ vectors[1][0]), abs=1e-5)


def test_2d_matryoshka_trains_with_prompts(prompted, monkeypatch):
    from embedlab.training.contrastive import matryoshka_2d

    seen = []
    monkeypatch.setattr(matryoshka_2d, "fit", lambda *args, collator, **options: seen.append(collator))
    rows = number_rows([("fracture", "cholera")])
    train_matryoshka(prompted, rows, FitSettings(), layers=[2], dims=[32], output_dir="")
    batch = seen[0]([{"label": [0, 1]}])
    assert batch["query_input_ids"].flatten().tolist() == token_rows(prompted, "fracture", QUERY)


class TestConcatenation:
    def test_a_split_is_what_the_saved_model_returns(self, prompted):
        prompted.max_seq_length = 16
        prompted.prompts["query"] = "Instruct: given a question, find the passage that answers it: "
        corpus = {str(number): text for number, text in enumerate([*TEXTS, "word " * 50])}
        data = Dataset(name="toy", corpus=corpus, queries={"q": TEXTS[2]}, qrels={"test": {"q": {"0": 1}}})
        static = static_student(prompted, TEXTS)
        model = concat_static(prompted, static, 0.4)
        halves = encode_split(prompted, data), encode_split(prompted, data, static=static)
        saved = encode_split(model, data)
        for name in ("queries", "corpus"):
            evaluated = concatenate(*(getattr(half, name) for half in halves), 0.4)
            assert getattr(saved, name) == pytest.approx(evaluated, abs=2e-6)

    def test_left_padding(self, prompted):
        module = concat_static(prompted, static_student(prompted, TEXTS), 1.0)[-1]
        features = {"sentence_embedding": torch.ones(2, 32), "prompt_length": 2}
        right = {"input_ids": [[5, 6, 7, 8], [5, 6, 9, 0]], "attention_mask": [[1, 1, 1, 1], [1, 1, 1, 0]]}
        left = {"input_ids": [[5, 6, 7, 8], [0, 5, 6, 9]], "attention_mask": [[1, 1, 1, 1], [0, 1, 1, 1]]}
        results = [
            module({**features, **{name: torch.tensor(values) for name, values in side.items()}})["sentence_embedding"]
            for side in (right, left)
        ]
        assert torch.equal(*results)
        only = {"input_ids": torch.tensor([[9]]), "attention_mask": torch.tensor([[1]])}
        alone = module({"sentence_embedding": torch.ones(1, 32), **only})["sentence_embedding"]
        assert torch.allclose(results[0][1], alone[0], atol=1e-6)


class TestTruncation:
    @pytest.fixture(autouse=True)
    def forget(self, monkeypatch):
        monkeypatch.setattr(truncation, "_datasets_warned", set())
        monkeypatch.setattr(load, "_notices_shown", set())

    def test_counts(self):
        model = tiny_model()
        model.max_seq_length = 10
        count = count_truncated(model, ["one two three", "word " * 8, "word " * 9, "word " * 30])
        assert (count.texts, count.longer, count.limit, count.median) == (4, 2, 10, 21.5)
        sentence = "2 of 4 documents exceed the model's 10 tokens (median 22)."
        assert count.sentence("documents") == sentence
        assert count_truncated(model, ["short"]).sentence("documents") == ""

    def test_the_prompt_counts(self):
        model = tiny_model()
        model.max_seq_length = 10
        assert count_truncated(model, ["word " * 8]).longer == 0
        assert count_truncated(model, ["word " * 8], "query: ").longer == 1

    def test_a_large_corpus_is_sampled(self):
        model = tiny_model()
        model.max_seq_length = 10
        count = count_truncated(model, ["word " * 20] * 5000)
        assert count.counted <= 2000 and count.share == 1
        assert count.sentence("documents").startswith("100% of the documents (in a sample of")

    def test_a_dataset_is_reported_once(self, caplog):
        model = tiny_model()
        model.max_seq_length = 10
        corpus = {"0": "word " * 20, "1": "fracture"}
        data = Dataset(name="toy", corpus=corpus, queries={"q": "word"}, qrels={"test": {"q": {"0": 1}}})
        with caplog.at_level(logging.WARNING):
            encode_split(model, data)
            encode_split(copy.deepcopy(model), data)
        told = [record.getMessage() for record in caplog.records if "exceed" in record.getMessage()]
        assert len(told) == 1 and told[0].startswith("toy: 1 of 2 documents exceed the model's 10 tokens (median 22).")

    @pytest.mark.parametrize(
        ("name", "remedy"),
        [
            ("pairs:a.csv", ", or chunks"),
            ("docs:manuals?chunk=200+20", ", or smaller chunks, such as docs:manuals?chunk=96+16"),
        ],
    )
    def test_chunks_that_are_too_long_get_a_smaller_size(self, caplog, name, remedy):
        model = tiny_model()
        model.max_seq_length = 10
        with caplog.at_level(logging.WARNING):
            tell_truncation(model, name, documents={"0": "word " * 20}, queries={})
        assert caplog.records[-1].getMessage().endswith(f"Use a longer limit, MODEL?max_seq_length=N{remedy}")

    def test_a_static_model_has_no_limit(self):
        model: SentenceTransformer = static_student(tiny_model(), TEXTS)
        assert count_truncated(model, ["word " * 5000]).longer == 0
