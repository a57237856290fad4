"""Merged weights are the mean they say, the ends are exact copies, and what does not belong together is refused."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense

from embedlab.errors import ModelError, ParameterError
from embedlab.models.merging import cocktail_weights, merge
from embedlab.models.packing import pack
from tests.conftest import TEXTS, tiny_model


def filled(value):
    """A tiny model whose floating-point weights are all `value`."""
    model = tiny_model()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.fill_(value)
    return model


def bits(model):
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def interpolate(first, second, weight):
    return merge([first, second], [1 - weight, weight])


def test_midpoint_by_hand():
    half = interpolate(filled(1.0), filled(4.0), 0.5)
    assert {value for tensor in half.parameters() for value in tensor.unique().tolist()} == {2.5}


def test_weights_belong_to_their_models():
    mixed = merge([filled(1.0), filled(10.0), filled(100.0)], [0.5, 0.3, 0.2])
    assert all(torch.allclose(tensor, torch.tensor(23.5)) for tensor in mixed.parameters())
    assert interpolate(filled(0.0), filled(1.0), 0.25)[0].model.embeddings.word_embeddings.weight[0, 0] == 0.25


def test_sums_are_taken_in_double_precision():
    """2**25 / 2 + 4 / 4 + 4 / 4 is 2**24 + 2; in single precision each 1 is lost, because 2**24 + 1 is no float32."""
    mixed = merge([filled(2.0**25), filled(4.0), filled(4.0)], [0.5, 0.25, 0.25])
    assert {value for tensor in mixed.parameters() for value in tensor.unique().tolist()} == {2.0**24 + 2}


@pytest.mark.parametrize(("share", "which"), [(0.0, 0), (1.0, 1)])
def test_ends_are_bitwise_copies(share, which):
    models = tiny_model(seed=1), tiny_model(seed=2)
    for model in models:  # a sum with 0 * weight would lose the sign of zero and spread a NaN
        model[0].model.embeddings.word_embeddings.weight.data[0, 0] = -0.0
    models[1 - which][0].model.embeddings.word_embeddings.weight.data[0, 1] = float("nan")
    assert bits(interpolate(*models, share)) == bits(models[which])


def test_limits_of_length_may_differ():
    """Only the network must be the same; the first model's limit stays."""
    longer, shorter = filled(1.0), filled(4.0)
    shorter.max_seq_length = 16
    mixed = interpolate(longer, shorter, 0.5)
    assert mixed.max_seq_length == 64
    assert {value for tensor in mixed.parameters() for value in tensor.unique().tolist()} == {2.5}


def test_what_is_merged_stays_as_it_is():
    models = tiny_model(seed=1), tiny_model(seed=2)
    before = [bits(model) for model in models]
    mixed = interpolate(*models, 0.5)
    for parameter in mixed.parameters():
        parameter.data.zero_()
    assert [bits(model) for model in models] == before


def test_same_model_twice_is_itself():
    model = tiny_model()
    assert bits(interpolate(model, copy.deepcopy(model), 0.5)) == bits(model)


def test_saved_it_is_a_plain_model(tmp_path):
    mixed = interpolate(pack(tiny_model(seed=1)), pack(tiny_model(seed=2)), 0.5)
    mixed.save_pretrained(str(tmp_path))
    loaded = SentenceTransformer(str(tmp_path), device="cpu")
    assert np.allclose(loaded.encode(TEXTS), mixed.encode(TEXTS), atol=1e-5)
    assert not np.allclose(loaded.encode(TEXTS), tiny_model(seed=1).encode(TEXTS), atol=1e-3)


def _other_tokens(model):
    model.tokenizer.add_tokens(["spondyloarthropathy"])
    return model


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (lambda: tiny_model(layers=3), "weights"),
        (lambda: tiny_model("distilbert"), "modules"),
        (lambda: tiny_model(pooling="cls"), "modules"),
        (lambda: SentenceTransformer(modules=list(tiny_model())[:1], device="cpu"), "modules"),
        (lambda: _other_tokens(tiny_model()), "vocabulary"),
    ],
)
def test_other_architectures_and_tokenizers_are_refused(other, what):
    with pytest.raises(ModelError, match=f"differ in their {what}"):
        interpolate(tiny_model(), other(), 0.5)


@pytest.mark.parametrize("weights", [[0.5, 0.6], [1.5, -0.5], [1.0], []])
def test_weights_that_are_no_mixture_are_refused(weights):
    with pytest.raises(ParameterError, match=r"\[weights\]"):
        merge([tiny_model(), tiny_model()], weights)


class TestCocktail:
    def test_by_hand(self):
        """Losses 1 and 1 + 0.1 ln 3 at temperature 0.1: three to one for the better of the others."""
        losses = {"base": 1.0, "target": 0.2, "other": 1.0 + 0.1 * math.log(3)}
        weights = cocktail_weights(losses, "target", share=0.6, temperature=0.1)
        assert weights == pytest.approx({"base": 0.3, "target": 0.6, "other": 0.1})
        assert list(weights) == list(losses)

    def test_two_models_are_an_interpolation(self):
        weights = cocktail_weights({"base": 3.0, "target": 1.0}, "target", share=0.7, temperature=0.1)
        assert weights == pytest.approx({"base": 0.3, "target": 0.7})

    def test_large_losses_do_not_vanish(self):
        weights = cocktail_weights({"a": 5000.0, "b": 5000.0, "t": 0.0}, "t", share=0.0, temperature=0.01)
        assert weights == pytest.approx({"a": 0.5, "b": 0.5, "t": 0.0})

    @pytest.mark.parametrize(("target", "share"), [("nobody", 0.5), ("t", 1.5)])
    def test_nonsense_is_refused(self, target, share):
        with pytest.raises(ParameterError):
            cocktail_weights({"t": 1.0, "base": 1.0}, target, share=share, temperature=0.1)


def test_errors_name_what_is_missing():
    with pytest.raises(ParameterError, match="got none"):
        cocktail_weights({}, target="a", share=0.5, temperature=1.0)
    with pytest.raises(ModelError, match=r"\(2: missing and \w+"):
        merge([tiny_model(), with_dense(tiny_model())], [0.5, 0.5])
    with pytest.raises(ModelError, match=r"\(2: \w.* and missing\)"):
        merge([with_dense(tiny_model()), tiny_model()], [0.5, 0.5])


def with_dense(model):
    model.append(Dense(32, 32))
    return model
