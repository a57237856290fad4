"""Loading, encoding and fingerprints."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from embedlab.errors import ModelError
from embedlab.models.encode import encode
from embedlab.models.fingerprint import model_fingerprint
from embedlab.models.load import load_model
from embedlab.models.packing import is_packed, pack
from tests.conftest import tiny_model


def test_base_model_loads_offline_and_gives_its_known_similarity():
    """The model card's own example pair; a wrong pooling or a missing normalisation would change it."""
    model = load_model()
    assert is_packed(model)
    vectors = encode(model, ["That is a happy person", "That is a happy dog"])
    assert float(vectors[0] @ vectors[1]) == pytest.approx(0.695, abs=2e-3)


def test_unknown_model_is_one_clear_error():
    with pytest.raises(ModelError, match=r"\[model_name\]: the model 'no/such-model' cannot be loaded"):
        load_model("no/such-model")


@pytest.mark.parametrize("packed", [False, True])
def test_encode_keeps_order_and_normalises(tiny, texts, packed):
    vectors = encode(pack(tiny) if packed else tiny, texts, batch_tokens=20)
    alone = np.concatenate([encode(tiny, [text]) for text in texts])
    np.testing.assert_allclose(vectors, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert vectors.dtype == np.float32


def test_encode_prompt_and_empty_list(tiny, texts):
    assert not np.allclose(encode(tiny, texts, prompt="query: "), encode(tiny, texts), atol=1e-3)
    assert encode(tiny, []).shape == (0, 32)


def test_fingerprint_ignores_what_does_not_change_an_embedding(tmp_path):
    model = tiny_model()
    fingerprint = model_fingerprint(model)
    assert model_fingerprint(pack(copy.deepcopy(model))) == fingerprint
    model.save_pretrained(str(tmp_path))
    assert model_fingerprint(load_model(str(tmp_path), device="cpu")) == fingerprint


@pytest.mark.parametrize("change", ["weight", "pooling", "prompt", "truncation", "dimension"])
def test_fingerprint_sees_what_changes_an_embedding(change):
    model, reference = tiny_model(), model_fingerprint(tiny_model())
    if change == "weight":
        with torch.no_grad():
            next(model.parameters())[0, 0] += 1e-3
    elif change == "pooling":
        model[1].pooling_mode = "max"
    elif change == "prompt":
        model.prompts["query"] = "query: "
    elif change == "truncation":
        model.max_seq_length = 16
    else:
        model.truncate_dim = 16
    assert model_fingerprint(model) != reference
