"""Vectors in a file: as in memory, after any interruption, in blocks of texts."""

import json

import numpy as np
import pytest

from embedlab.models import vector_array
from embedlab.models.vector_array import encode_to_file
from embedlab.search.exact import search

TEXTS = [f"text number {number}" for number in range(11)]


class Stopped(Exception):
    """Stands for a kill."""


class Encoder:
    """Vectors that depend on the text only; raises at its n-th call."""

    def __init__(self, fails_at=0):
        self.calls, self.fails_at = [], fails_at

    def __call__(self, model, texts, *, stage, prompt):
        self.calls.append(list(texts))
        if len(self.calls) == self.fails_at:
            raise Stopped
        return np.array([[len(text), sum(map(ord, text)), len(prompt or "")] for text in texts], dtype=np.float64)


@pytest.fixture(autouse=True)
def model(monkeypatch):
    monkeypatch.setattr(vector_array, "dimension", lambda model: 3)
    monkeypatch.setattr(vector_array, "model_fingerprint", lambda model: model)


def to_file(path, texts=TEXTS, model="m", prompt=None, encoder=None):
    encoder = encoder or Encoder()
    vectors = encode_to_file(model, iter(texts), path, prompt=prompt, encode=encoder, block_texts=4)
    return vectors, encoder.calls


def expected(texts=TEXTS, prompt=None):
    return Encoder()(None, texts, stage="", prompt=prompt).astype(np.float32)


def test_file_equals_the_vectors_in_memory_and_reads_blocks(tmp_path):
    vectors, calls = to_file(tmp_path / "v.npy", prompt="p: ")
    assert isinstance(vectors, np.memmap)
    assert np.array_equal(vectors, expected(prompt="p: "))
    assert list(map(len, calls)) == [4, 4, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["v.npy"]


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_an_interrupted_call_continues_where_it_was(tmp_path, fails_at):
    with pytest.raises(Stopped):
        to_file(tmp_path / "v.npy", encoder=Encoder(fails_at))
    assert not (tmp_path / "v.npy").exists()
    vectors, calls = to_file(tmp_path / "v.npy")
    assert sum(map(len, calls)) == 11 - 4 * (fails_at - 1)
    assert np.array_equal(vectors, expected())


@pytest.mark.parametrize(
    ("changes", "encoded"),
    [
        ({"model": "other"}, 11),
        ({"prompt": "p: "}, 11),
        ({"texts": ["changed", *TEXTS[1:]]}, 11),
        ({"texts": [*TEXTS[:5], "changed", *TEXTS[6:]]}, 7),
        ({"texts": TEXTS[:6]}, 2),
    ],
)
def test_what_changed_is_encoded_again(tmp_path, changes, encoded):
    with pytest.raises(Stopped):
        to_file(tmp_path / "v.npy", encoder=Encoder(3))
    vectors, calls = to_file(tmp_path / "v.npy", **changes)
    assert sum(map(len, calls)) == encoded
    assert np.array_equal(vectors, expected(changes.get("texts", TEXTS), changes.get("prompt")))


def test_a_file_that_lost_its_end_is_filled_again(tmp_path):
    with pytest.raises(Stopped):
        to_file(tmp_path / "v.npy", encoder=Encoder(3))
    part = tmp_path / "v.npy.part"
    part.write_bytes(part.read_bytes()[:-1])
    vectors, calls = to_file(tmp_path / "v.npy")
    assert calls[0] == TEXTS[4:8]
    assert np.array_equal(vectors, expected())


def test_a_damaged_note_starts_again(tmp_path):
    with pytest.raises(Stopped):
        to_file(tmp_path / "v.npy", encoder=Encoder(2))
    (tmp_path / "v.npy.part.json").write_text(json.dumps({"blocks": 1}))
    assert sum(map(len, to_file(tmp_path / "v.npy")[1])) == 11


def test_no_texts(tmp_path):
    assert to_file(tmp_path / "v.npy", texts=[])[0].shape == (0, 3)


def test_search_over_the_file_equals_search_in_memory(tmp_path):
    vectors, _ = to_file(tmp_path / "v.npy")
    queries = np.eye(3, dtype=np.float32)
    for found, wanted in zip(search(queries, vectors, 4, block_docs=3), search(queries, expected(), 4), strict=True):
        assert np.array_equal(found, wanted)
