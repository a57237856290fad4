"""Pre-training: which texts, that it learns, that a kill costs nothing, that what is kept is what was asked for."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from embedlab.data.dataset import Dataset
from embedlab.engine import EngineParams
from embedlab.errors import ModelError, ParameterError
from embedlab.models.packing import pack
from embedlab.training.fit import FitSettings
from embedlab.training.pretraining import objectives
from embedlab.training.pretraining.mlm import IGNORED, MaskingCollator, unigram_perplexity
from embedlab.training.pretraining.objectives import DomainTexts, PretrainSettings, domain_texts, make_task
from embedlab.training.pretraining.train import PretrainingParams, PretrainResult, pretrain
from tests.conftest import TEXTS, tiny_model

OBJECTIVES = ("mlm", "tsdae", "simcse")
DOMAIN = DomainTexts(TEXTS, TEXTS[:3], [])
ALWAYS = EngineParams(checkpoint_minutes=1e-9)  # a checkpoint after every step
QUICK = FitSettings(steps=8, batch_size=3, learning_rate=1e-3)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def settings(objective, **changes):
    return PretrainSettings(objective, **{"fit": QUICK, **changes})


def toy_dataset():
    corpus = {f"d{i}": f"document number {i}" for i in range(40)} | {
        "twin": "Reading like, a TEST query",
        "copy": "document number 1",
    }
    queries = {
        "q1": "a training query",
        "q2": "a dev query",
        "q3": "reading like a test query",
        "q4": "document number 2",
    }
    qrels = {"train": {"q1": {"d1": 1}, "q4": {"d3": 1}}, "dev": {"q2": {"d5": 1}}, "test": {"q3": {"d7": 1}}}
    return Dataset("toy", corpus, queries, qrels)


class TestTexts:
    def test_documents_and_training_queries_once_and_no_held_out_query(self):
        texts = domain_texts(toy_dataset())
        everything = texts.training + texts.held_out
        assert sorted(everything) == sorted([*(f"document number {i}" for i in range(40)), "a training query"])
        assert texts.removed == ["Reading like, a TEST query"]
        assert len(texts.held_out) == 3

    def test_a_document_that_equals_a_dev_query_is_removed(self):
        data = toy_dataset()
        assert domain_texts(replace(data, corpus={**data.corpus, "dev": "A dev query!"})).removed == [
            "Reading like, a TEST query",
            "A dev query!",
        ]

    def test_what_is_held_out_does_not_depend_on_the_order(self):
        data = toy_dataset()
        turned = replace(data, corpus=dict(reversed(data.corpus.items())))
        assert domain_texts(turned).held_out == domain_texts(data).held_out


class TestMasking:
    def test_share_of_words_by_count(self, tiny):
        """15 % of 6,000 words are predicted, special tokens never."""
        collator = MaskingCollator(tiny, [" ".join(["fever cough rash pain"] * 15)] * 100, seed=1)
        labels = collator([{"label": i} for i in range(100)])["label"]
        assert (labels[:, [0, -1]] == IGNORED).all()
        assert (labels != IGNORED).sum().item() / 6000 == pytest.approx(0.15, abs=0.015)

    def test_batch_number_alone_decides(self, tiny, texts):
        rows = [{"label": i} for i in range(len(texts))]
        one, two = MaskingCollator(tiny, texts, seed=1), MaskingCollator(tiny, texts, seed=1)
        third = [one(rows) for _ in range(3)][2]
        two.batches = 2
        assert torch.equal(two(rows)["label"], third["label"])

    def test_unigram_perplexity_by_hand(self, tiny):
        """Every hidden token of "fever fever" is the one that training shows 3 times, with 1 other token."""
        size = len(tiny.tokenizer)
        expected = (size + 4) / 4
        assert unigram_perplexity(tiny, ["fever fever", "fever rash"], ["fever fever"]) == pytest.approx(expected)


class TestTraining:
    @pytest.mark.parametrize("objective", OBJECTIVES)
    def test_loss_falls(self, objective, tmp_path):
        model = pack(tiny_model())
        fit = replace(QUICK, steps=40, batch_size=7, learning_rate=3e-3)
        result = pretrain(model, DOMAIN, settings(objective, fit=fit, head_learning_rate=5e-3), cache=tmp_path)
        losses = [row["loss"] for row in result.history if "loss" in row]
        assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])
        assert result.fit.steps == 40
        if objective == "simcse":
            assert (result.before, result.after) == (None, None)
        else:
            assert result.after < 0.5 * result.before

    def test_none_leaves_the_model_alone(self, tiny, tmp_path):
        before = weights(tiny)
        assert pretrain(tiny, DOMAIN, settings("none"), cache=tmp_path) == PretrainResult()
        assert same(weights(tiny), before) and not list(tmp_path.iterdir())

    def test_head_has_a_learning_rate_of_its_own(self, tmp_path):
        """With nothing for the model and much for the head only the head moves, and perplexity falls all the same."""
        model = tiny_model()
        before = weights(model)
        fit = replace(QUICK, steps=30, learning_rate=1e-20, weight_decay=0.0)
        result = pretrain(model, DOMAIN, settings("mlm", fit=fit, head_learning_rate=1e-2), cache=tmp_path)
        assert same(weights(model), before)
        assert result.after < result.before

    @pytest.mark.parametrize("objective", OBJECTIVES)
    def test_same_seed_same_bits_other_seed_other_bits(self, objective, tmp_path):
        made = []
        for place, seed in enumerate((1, 1, 2)):
            torch.manual_seed(place)  # whatever happened before
            model = pack(tiny_model())
            pretrain(model, DOMAIN, settings(objective, fit=replace(QUICK, seed=seed)), cache=tmp_path / str(place))
            made.append(weights(model))
        assert same(made[0], made[1])
        assert not same(made[0], made[2])

    def test_saves_as_a_stock_model_with_its_pooling(self, tmp_path):
        model = pack(tiny_model())
        pretrain(model, DOMAIN, settings("tsdae"), cache=tmp_path)
        model.save_pretrained(str(tmp_path / "saved"))
        stock = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
        assert stock[1].pooling_mode == "mean"
        np.testing.assert_allclose(stock.encode(TEXTS), model.encode(TEXTS), atol=1e-5)


class Killed(Exception):
    pass


def kill_in_step(monkeypatch, step):
    """Let the loss of the given step raise, once."""
    made = itertools.count(1)
    build = objectives.make_task

    def deadly(*arguments):
        task = build(*arguments)
        forward = task.loss.forward

        def counted(features, labels=None):
            if task.loss.model.training and next(made) == step:
                raise Killed
            return forward(features, labels)

        task.loss.forward = counted
        return task

    monkeypatch.setattr("embedlab.training.pretraining.train.make_task", deadly)


class TestKept:
    @pytest.mark.parametrize("objective", OBJECTIVES)
    def test_killed_and_resumed_gives_the_same_bits(self, objective, tmp_path, monkeypatch):
        """3 steps an epoch; killed in step 6, in the second epoch and after the checkpoint of step 5."""
        monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path / "cache"))
        how = settings(objective, fit=replace(QUICK, engine=ALWAYS))
        whole = pack(tiny_model())
        expected = pretrain(whole, DOMAIN, how, cache=tmp_path / "whole")
        kill_in_step(monkeypatch, 6)
        with pytest.raises(Killed):
            pretrain(pack(tiny_model()), DOMAIN, how, cache=tmp_path / "killed")
        assert list((tmp_path / "cache" / "checkpoints").glob("*/checkpoint-5"))
        resumed = pack(tiny_model())
        result = pretrain(resumed, DOMAIN, how, cache=tmp_path / "killed")
        assert same(weights(resumed), weights(whole))
        assert (result.before, result.after) == (expected.before, expected.after)
        assert [row["step"] for row in result.history] == [1, 2, 3, 4, 5, 6, 7, 8]
        assert not list((tmp_path / "cache" / "checkpoints").glob("*"))

    def test_made_once_and_read_back(self, tmp_path, monkeypatch):
        first, second = tiny_model(), tiny_model()
        made = pretrain(first, DOMAIN, settings("mlm"), cache=tmp_path)
        monkeypatch.setattr("embedlab.training.pretraining.train.make_task", None)  # would raise
        less_often = settings("mlm", fit=replace(QUICK, engine=EngineParams(checkpoint_minutes=60.0)))
        assert pretrain(second, DOMAIN, less_often, cache=tmp_path) == made
        assert same(weights(first), weights(second))

    @pytest.mark.parametrize(
        "changed",
        [
            {"how": settings("mlm", masking_share=0.2)},
            {"how": settings("mlm", fit=replace(QUICK, seed=1))},
            {"texts": DomainTexts(TEXTS[1:], TEXTS[:3], [])},
            {"model": 1},
        ],
        ids=["share", "seed", "texts", "model"],
    )
    def test_anything_that_matters_makes_it_anew(self, changed, tmp_path):
        pretrain(tiny_model(), DOMAIN, settings("mlm"), cache=tmp_path)
        model = tiny_model(seed=changed.get("model", 0))
        pretrain(model, changed.get("texts", DOMAIN), changed.get("how", settings("mlm")), cache=tmp_path)
        assert len(list(tmp_path.iterdir())) == 2


class TestParams:
    VALUES = {
        "dataset": "icd10cm:smoke",
        "model_name": "m",
        "seed": 3,
        "max_steps": 7,
        "objective": "tsdae",
        "pretrain_epochs": 1.5,
        "pretrain_learning_rate": 1e-4,
        "deletion_share": 0.5,
        "fine_tune_pairs": 0,
        "fine_tune_epochs": 2.0,
        "fine_tune_learning_rate": 2e-4,
    }

    def test_settings_carry_what_was_asked_for(self):
        params = PretrainingParams.checked(self.VALUES)
        how = params.pretrain_settings()
        assert (how.objective, how.deletion_share, how.masking_share) == ("tsdae", 0.5, 0.15)
        assert how.fit == FitSettings(epochs=1.5, max_steps=7, batch_size=64, learning_rate=1e-4, seed=3)
        tuned = params.fine_tune_settings()
        assert tuned == FitSettings(epochs=2.0, max_steps=7, batch_size=64, learning_rate=2e-4, seed=3)

    @pytest.mark.parametrize("name, value", [("objective", "bert"), ("masking_share", 0.0), ("fine_tune_pairs", -1)])
    def test_impossible_values_are_refused(self, name, value):
        with pytest.raises(ParameterError, match=name):
            PretrainingParams.checked({**self.VALUES, name: value})


def test_new_weights_come_from_the_seed_alone(tiny):
    heads = []
    for state in (5, 6):
        torch.manual_seed(state)
        state_dict = make_task(tiny, DOMAIN, settings("tsdae")).loss.state_dict()
        heads.append({name: value for name, value in state_dict.items() if not name.startswith("model.")})
    assert same(*heads)
    assert "decoder.layers.0.linear1.weight" in heads[0]


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_dropout_as_it_was_and_out_of_the_value(tiny, training):
    """The Trainer switches the model to training, never the head: measuring must not take its dropout away."""
    task = make_task(tiny, DOMAIN, settings("tsdae"))
    task.loss.train(training)
    assert task.perplexity(TEXTS) == task.perplexity(TEXTS)
    assert {module.training for module in task.loss.decoder.modules()} == {training}


@pytest.mark.parametrize("objective", ["mlm", "tsdae"])
@pytest.mark.parametrize("whole_words", [True, False])
def test_settings_reach_what_changes_the_texts(tiny, objective, whole_words):
    words = DomainTexts(["cholangiocarcinoma of hepatopancreatic ampulla"], [], [])
    task = make_task(tiny, words, settings(objective, whole_words=whole_words, deletion_share=0.25, masking_share=0.35))
    collator = task.collator
    assert collator.share == 0.25 if objective == "tsdae" else collator.probability == 0.35
    numbers = [number for number in collator.words[0] if number is not None]
    assert len(set(numbers)) == (4 if whole_words else len(numbers)) and len(numbers) > 4


def test_models_that_cannot_be_pre_trained_are_refused_in_one_line(tiny):
    static = SentenceTransformer(modules=[StaticEmbedding(tiny.tokenizer, embedding_dim=8)], device="cpu")
    with pytest.raises(ModelError, match="got StaticEmbedding"):
        make_task(static, DOMAIN, settings("simcse"))
    tiny.tokenizer.mask_token = None
    with pytest.raises(ModelError, match=r"\[objective\]: pre-training with mlm needs a mask token"):
        make_task(tiny, DOMAIN, settings("mlm"))
