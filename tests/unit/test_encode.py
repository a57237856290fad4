"""Encoding to a file survives a kill; the cache returns what encoding returns, and only encodes what is new."""

from __future__ import annotations

import sqlite3
import threading

import numpy as np
import pytest

from embedlab.errors import DataError
from embedlab.models import encode as encoding
from embedlab.models.cache import EmbeddingCache
from embedlab.models.encode import _token_batches, encode, encode_to_file
from embedlab.models.packing import pack


@pytest.fixture
def counted(monkeypatch):
    """Counts the texts that reach a model."""
    seen, inner = [], encoding._encode_chunk

    def counting(model, texts, prompt, batch_tokens):
        seen.extend(texts)
        return inner(model, texts, prompt, batch_tokens)

    monkeypatch.setattr(encoding, "_encode_chunk", counting)
    monkeypatch.setattr(encoding, "CHUNK", 2)
    return seen


def test_token_batches_by_hand():
    """Longest first; 5 + 4 exceeds 8, 4 + 3 fits, 12 is alone."""
    assert list(_token_batches([3, 12, 4, 5], 8)) == [[1], [3], [2, 0]]


def test_packed_encoding_is_sentence_transformers_own(tiny, texts):
    expected = tiny.encode(texts, normalize_embeddings=True, prompt="query: ")
    np.testing.assert_allclose(encode(pack(tiny), texts, prompt="query: "), expected, atol=1e-5)
    tiny.truncate_dim = 8
    short = tiny.encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(encode(tiny, texts), short, atol=1e-5)


def test_file_holds_what_encode_returns(tiny, texts, tmp_path, counted):
    path = tmp_path / "vectors.npy"
    vectors = encode_to_file(tiny, texts, path)
    np.testing.assert_allclose(vectors, encode(tiny, texts), atol=1e-6)
    assert [file.name for file in tmp_path.iterdir()] == ["vectors.npy"]
    counted.clear()
    encode_to_file(tiny, texts, path)
    assert counted == []


def test_a_kill_costs_one_chunk(tiny, texts, tmp_path, counted, monkeypatch):
    path, inner = tmp_path / "vectors.npy", encoding._encode_chunk

    def dying(model, chunk, prompt, batch_tokens):
        if len(counted) >= 4:
            raise KeyboardInterrupt
        return inner(model, chunk, prompt, batch_tokens)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(encoding, "_encode_chunk", dying)
        encode_to_file(tiny, texts, path)
    assert counted == texts[:4]
    assert not path.exists()
    vectors = encode_to_file(tiny, texts, path)
    assert counted == texts
    np.testing.assert_allclose(vectors, encode(tiny, texts), atol=1e-6)


def test_partial_file_of_other_texts_is_begun_anew(tiny, texts, tmp_path, counted, monkeypatch):
    path = tmp_path / "vectors.npy"
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(encoding, "_write_note", lambda note, place: (encoding.json, 1 / 0))
        encode_to_file(tiny, texts, path)
    vectors = encode_to_file(tiny, texts[::-1], path)
    np.testing.assert_allclose(vectors, encode(tiny, texts[::-1]), atol=1e-6)


def test_file_of_another_shape_is_refused(tiny, texts, tmp_path):
    encode_to_file(tiny, texts, tmp_path / "v.npy")
    with pytest.raises(DataError, match=r"holds \(7, 32\) vectors, wanted \(2, 32\)"):
        encode_to_file(tiny, texts[:2], tmp_path / "v.npy")


def test_cache_encodes_only_what_is_new(tiny, texts, tmp_path, counted):
    cache = EmbeddingCache(tmp_path)
    encode(tiny, texts[:3], cache=cache)
    counted.clear()
    vectors = encode(tiny, [texts[4], texts[0], texts[4], texts[2]], cache=cache)
    assert counted == [texts[4]]
    np.testing.assert_allclose(vectors, encode(tiny, [texts[i] for i in (4, 0, 4, 2)]), atol=1e-6)


@pytest.mark.parametrize("change", ["prompt", "truncation", "dimension", "weights"])
def test_cache_never_mixes_vector_spaces(tiny, texts, tmp_path, change):
    cache, prompt = EmbeddingCache(tmp_path), None
    encode(tiny, texts, cache=cache)
    if change == "prompt":
        prompt = "query: "
    elif change == "truncation":
        tiny.max_seq_length = 4
    elif change == "dimension":
        tiny.truncate_dim = 8
    else:
        next(tiny.parameters()).data.mul_(1.5)
    expected = encode(tiny, texts, prompt=prompt)
    np.testing.assert_allclose(encode(tiny, texts, cache=cache, prompt=prompt), expected, atol=1e-6)


def test_cache_keeps_its_size(tiny, texts, tmp_path):
    cache = EmbeddingCache(tmp_path, max_bytes=3 * 32 * 4)
    encode(tiny, texts, cache=cache)
    (file,) = tmp_path.glob("*.sqlite")
    with sqlite3.connect(file) as database:
        assert database.execute("SELECT COUNT(*) FROM vectors").fetchone() == (3,)
    np.testing.assert_allclose(encode(tiny, texts, cache=cache), encode(tiny, texts), atol=1e-6)


def test_cache_with_many_writers(tiny, texts, tmp_path):
    expected, failures = encode(tiny, texts), []

    def work():
        try:
            np.testing.assert_allclose(EmbeddingCache(tmp_path).encode(tiny, texts), expected, atol=1e-6)
        except Exception as error:  # noqa: BLE001 - handed to the main thread
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_damaged_cache_is_set_aside(tiny, texts, tmp_path, caplog):
    cache = EmbeddingCache(tmp_path)
    encode(tiny, texts, cache=cache)
    (file,) = tmp_path.glob("*.sqlite")
    file.write_bytes(b"not a database" * 100)
    np.testing.assert_allclose(encode(tiny, texts, cache=cache), encode(tiny, texts), atol=1e-6)
    assert "damaged" in caplog.text
