"""Encoding equals sentence-transformers' own; the cache returns the same vectors and encodes only what is new."""

from __future__ import annotations

import json
import sqlite3
import threading

import numpy as np
import pytest

from embedlab.models import encode as encoding
from embedlab.models.cache import EmbeddingCache
from embedlab.models.encode import _token_batches, encode
from embedlab.models.packing import pack


@pytest.fixture
def counted(monkeypatch):
    """Counts the texts that reach a model."""
    seen, inner = [], encoding._encode_chunk

    def counting(model, texts, *rest):
        seen.extend(texts)
        return inner(model, texts, *rest)

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


def test_cache_encodes_only_what_is_new(tiny, texts, tmp_path, counted):
    cache = EmbeddingCache(tmp_path)
    cache.encode(tiny, texts[:3])
    counted.clear()
    vectors = cache.encode(tiny, [texts[4], texts[0], texts[4], texts[2]])
    assert counted == [texts[4]]
    np.testing.assert_allclose(vectors, encode(tiny, [texts[i] for i in (4, 0, 4, 2)]), atol=1e-6)


@pytest.mark.parametrize("change", ["prompt", "truncation", "dimension", "weights"])
def test_cache_never_mixes_vector_spaces(tiny, texts, tmp_path, change):
    cache, prompt = EmbeddingCache(tmp_path), None
    cache.encode(tiny, texts)
    if change == "prompt":
        prompt = "query: "
    elif change == "truncation":
        tiny.max_seq_length = 4
    elif change == "dimension":
        tiny.truncate_dim = 8
    else:
        next(tiny.parameters()).data.mul_(1.5)
    expected = encode(tiny, texts, prompt=prompt)
    np.testing.assert_allclose(cache.encode(tiny, texts, prompt=prompt), expected, atol=1e-6)


def test_cache_keeps_its_size(tiny, texts, tmp_path, monkeypatch):
    monkeypatch.setattr("embedlab.models.cache.MAX_BYTES", 3 * 32 * 4)
    cache = EmbeddingCache(tmp_path)
    cache.encode(tiny, texts)
    (file,) = tmp_path.glob("*.sqlite")
    with sqlite3.connect(file) as database:
        assert database.execute("SELECT COUNT(*) FROM vectors").fetchone() == (3,)
    np.testing.assert_allclose(cache.encode(tiny, texts), encode(tiny, texts), atol=1e-6)


def test_cache_with_many_writers(tiny, texts, tmp_path):
    expected, failures = encode(tiny, texts), []

    def work():
        try:
            np.testing.assert_allclose(EmbeddingCache(tmp_path).encode(tiny, texts), expected, atol=1e-6)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_damaged_cache_is_set_aside(tiny, texts, tmp_path, caplog):
    cache = EmbeddingCache(tmp_path)
    cache.encode(tiny, texts)
    (file,) = tmp_path.glob("*.sqlite")
    file.write_bytes(b"not a database" * 100)
    np.testing.assert_allclose(cache.encode(tiny, texts), encode(tiny, texts), atol=1e-6)
    assert "damaged" in caplog.text


def test_a_damaged_vector_is_encoded_again_once(tiny, texts, tmp_path, counted, caplog):
    cache = EmbeddingCache(tmp_path)
    expected = cache.encode(tiny, texts)
    (file,) = tmp_path.glob("*.sqlite")
    with sqlite3.connect(file) as database:
        (row,) = database.execute("SELECT rowid FROM vectors LIMIT 1").fetchone()
        database.execute("UPDATE vectors SET vector = zeroblob(LENGTH(vector)) WHERE rowid = ?", (row,))
    counted.clear()
    np.testing.assert_allclose(cache.encode(tiny, texts), expected, atol=1e-6)
    assert len(counted) == 1 and "1 cached vectors are damaged" in caplog.text
    caplog.clear()
    np.testing.assert_allclose(cache.encode(tiny, texts), expected, atol=1e-6)
    assert len(counted) == 1 and caplog.text == ""


def test_an_interrupted_call_keeps_what_it_encoded(tiny, texts, tmp_path, counted, monkeypatch):
    inner = encoding._encode_chunk

    def interrupted(model, chunk, *rest):
        if len(counted) >= 2:
            raise KeyboardInterrupt
        return inner(model, chunk, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(encoding, "_encode_chunk", interrupted)
        with pytest.raises(KeyboardInterrupt):
            EmbeddingCache(tmp_path).encode(tiny, texts)
    counted.clear()
    EmbeddingCache(tmp_path).encode(tiny, texts)
    assert counted == texts[2:]


def test_a_cache_that_cannot_be_written_is_said_once(tiny, texts, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file where the folder should be")
    cache = EmbeddingCache(tmp_path / "cache")
    for _ in range(2):
        np.testing.assert_allclose(cache.encode(tiny, texts), encode(tiny, texts), atol=1e-6)
    assert caplog.text.count("cannot be used") == 1


def test_vectors_and_progress_come_along_the_way(tiny, monkeypatch, tmp_path):
    """A chunk of long texts is reported and stored in parts, and the parts are the whole."""
    monkeypatch.setattr(encoding, "KEEP_BATCHES", 2)
    monkeypatch.setattr(encoding.progress, "EVERY_S", 0.0)
    monkeypatch.setenv(encoding.progress.ENVIRONMENT_NAME, str(tmp_path / "progress.jsonl"))
    texts, kept = [f"text {'word ' * number}" for number in range(10)], {}
    parts = []

    def keep(rows, block):
        parts.append(len(rows))
        kept.update(zip(rows, block, strict=True))

    vectors = encode(pack(tiny), texts, batch_tokens=16, keep=keep)
    assert len(parts) > 1 and sorted(kept) == list(range(10))
    assert all((kept[row] == vectors[row]).all() for row in kept)
    steps = [json.loads(line)["step"] for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and steps[-1] == 10 and len(set(steps)) > 3
