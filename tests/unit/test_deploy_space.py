"""Vectors of another space are refused, whatever makes it another one; and a cheap encoder for the other tests."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from embedlab.deploy.space import ModelEncoder, Space, SpaceMismatch, require_same
from embedlab.errors import EmbedlabError
from embedlab.models.encoders import Encoder


class FakeEncoder:
    """A text's vector is random and always the same; `seed` makes another model of the same dimension."""

    def __init__(self, seed: int = 0, dimension: int = 16, **space):
        self.space = Space(f"fake-{seed}", dimension, **space)
        self.encoded: list[str] = []

    def encode_documents(self, texts):
        self.encoded.extend(texts)
        return self.encode_queries(texts)

    def encode_queries(self, texts):
        vectors = np.stack([self._vector(text) for text in texts])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def _vector(self, text):
        digest = hashlib.sha256(f"{self.space.model} {text}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        return rng.normal(size=self.space.dimension).astype(np.float32)


SPACE = Space("model", 8)
OTHERS = {
    "weights": replace(SPACE, model="other"),
    "dimension": replace(SPACE, dimension=4),
    "document prompt": replace(SPACE, document_prompt="passage: "),
    "query prompt": replace(SPACE, query_prompt="query: "),
    "stored number type": replace(SPACE, quantisation="float16"),
}


def test_same_space_passes():
    require_same(SPACE, Space("model", 8), action="searching")
    assert SPACE.fingerprint == Space("model", 8).fingerprint


@pytest.mark.parametrize("what", OTHERS)
def test_any_difference_is_refused_and_named(what):
    assert OTHERS[what].fingerprint != SPACE.fingerprint
    with pytest.raises(SpaceMismatch, match=f"searching refused.*{what}.*re-embed"):
        require_same(SPACE, OTHERS[what], action="searching")


def test_unknown_number_type_is_refused():
    with pytest.raises(EmbedlabError, match="not stored as 'int4'.*float32 or float16"):
        Space("model", 8, quantisation="int4")


def test_the_model_decides_the_space(tiny, texts):
    """Everything that moves a vector moves the fingerprint; the device and the batch size do not."""
    spaces = [ModelEncoder(tiny).space]
    spaces.append(ModelEncoder(tiny, document_prompt="passage: ").space)
    spaces.append(ModelEncoder(tiny, query_prompt="query: ").space)
    tiny.max_seq_length = 16
    spaces.append(ModelEncoder(tiny).space)
    tiny.truncate_dim = 8
    spaces.append(ModelEncoder(tiny).space)
    next(tiny.parameters()).data.add_(1e-3)
    spaces.append(ModelEncoder(tiny).space)
    assert len({space.fingerprint for space in spaces}) == len(spaces)
    assert [space.dimension for space in spaces] == [32] * 4 + [8] * 2
    assert ModelEncoder(tiny).space == spaces[-1]


@pytest.mark.parametrize("name", ["document", "passage", "corpus"])
def test_document_prompts_are_found_as_everywhere_else(tiny, name):
    """Under the names of `prompts_of`, so that a corpus is deployed with the prompt that it was evaluated with."""
    tiny.prompts = {name: "p: "}
    assert ModelEncoder(tiny).space.document_prompt == "p: "
    assert Encoder("x", tiny.encode, tiny.prompts).document_prompt == "p: "


def test_the_models_own_prompts_are_used(tiny, texts):
    tiny.prompts = {"query": "q: ", "passage": "p: "}
    encoder = ModelEncoder(tiny)
    assert (encoder.space.query_prompt, encoder.space.document_prompt) == ("q: ", "p: ")
    expected = tiny.encode(texts, normalize_embeddings=True, prompt="q: ")
    np.testing.assert_allclose(encoder.encode_queries(texts), expected, atol=1e-5)
    expected = tiny.encode(texts, normalize_embeddings=True, prompt="p: ")
    np.testing.assert_allclose(encoder.encode_documents(texts), expected, atol=1e-5)
    bare = ModelEncoder(tiny, query_prompt="", document_prompt="")
    assert (bare.space.query_prompt, bare.space.document_prompt) == ("", "")
