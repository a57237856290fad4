"""Re-embedding: only what is new, in flat memory, in one space; damage is noticed."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest

from embedlab.deploy.embed import embed_corpus, estimate, read_listing
from embedlab.deploy.space import SpaceMismatch
from embedlab.deploy.store import VectorStore, content_key
from embedlab.errors import DataError, StorageError
from embedlab.io import locked
from tests.unit.test_deploy_space import FakeEncoder

DOCUMENTS = {f"d{i}": f"text {i}" for i in range(50)}


@pytest.fixture
def encoder():
    return FakeEncoder()


@pytest.fixture
def store(tmp_path, encoder):
    return VectorStore(tmp_path / "store", encoder.space)


def take(store, texts):
    return store.take([content_key(text) for text in texts])


def test_round_trip_in_the_order_asked_for(encoder, store):
    report = embed_corpus(encoder, DOCUMENTS.items(), store, chunk=7)
    assert (report.documents, report.encoded, report.reused, len(store)) == (50, 50, 0, 50)
    asked = ["text 41", "text 3", "text 3", "text 0"]
    np.testing.assert_array_equal(take(store, asked), encoder.encode_queries(asked))


def test_only_changed_documents_are_encoded(encoder, store):
    embed_corpus(encoder, DOCUMENTS.items(), store, chunk=7)
    encoder.encoded.clear()
    later = {**DOCUMENTS, "d3": "text 3, revised", "new": "text 4"}
    del later["d5"]
    report = embed_corpus(encoder, later.items(), store, chunk=7)
    assert encoder.encoded == ["text 3, revised"]
    assert (report.documents, report.encoded, report.reused) == (50, 1, 49)


def test_equal_texts_are_encoded_once(encoder, store):
    report = embed_corpus(encoder, [("a", "same"), ("b", "same"), ("c", "other")], store)
    assert encoder.encoded == ["same", "other"]
    assert (report.encoded, report.reused) == (2, 1)


def test_the_listing_says_what_was_read(encoder, store, tmp_path):
    listing = tmp_path / "documents.jsonl"
    embed_corpus(encoder, [("é", "x"), ("b", "y")], store, listing=listing)
    assert list(read_listing(listing)) == [("é", content_key("x")), ("b", content_key("y"))]


def test_a_stream_is_enough(encoder, store):
    stream = ((name, text) for name, text in DOCUMENTS.items())
    assert embed_corpus(encoder, stream, store, chunk=7).documents == 50


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    def peak(count):
        encoder = FakeEncoder(dimension=64)
        encoder.encode_documents = lambda texts: np.ones((len(texts), 64), np.float32)
        store = VectorStore(tmp_path / str(count), encoder.space)
        stream = ((str(i), f"text {i}") for i in range(count))
        tracemalloc.start()
        embed_corpus(encoder, stream, store, listing=tmp_path / "listing", chunk=100)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(200)  # imports and caches
    assert peak(4000) < 1.3 * peak(1000)


def test_estimate_counts_what_is_missing_and_keeps_its_sample(encoder, store, monkeypatch):
    monkeypatch.setattr("embedlab.deploy.embed.SAMPLE", 9)
    embed_corpus(encoder, [("d3", "text 3")], store)
    ahead = estimate(encoder, DOCUMENTS.items(), store)
    assert ahead.missing == 49 and ahead.seconds >= 0
    assert len(store) == 10
    embed_corpus(encoder, DOCUMENTS.items(), store)
    assert estimate(encoder, DOCUMENTS.items(), store) == (0, 0.0)


@pytest.mark.parametrize(
    "other",
    [FakeEncoder(1), FakeEncoder(dimension=8), FakeEncoder(document_prompt="p: ")],
    ids=["model", "d", "prompt"],
)
def test_vectors_of_another_space_are_refused(encoder, store, tmp_path, other):
    embed_corpus(encoder, DOCUMENTS.items(), store)
    with pytest.raises(SpaceMismatch):
        store.add([content_key("x")], other.encode_queries(["x"]), other.space)
    with pytest.raises(SpaceMismatch):
        embed_corpus(other, [("x", "x")], store)
    with pytest.raises(SpaceMismatch):
        VectorStore(tmp_path / "store", other.space)
    assert len(store) == 50


def test_half_precision_halves_the_file_and_is_another_space(tmp_path):
    half = FakeEncoder(quantisation="float16")
    store = VectorStore(tmp_path / "half", half.space)
    embed_corpus(half, DOCUMENTS.items(), store)
    assert (tmp_path / "half" / "vectors.bin").stat().st_size == 50 * 16 * 2
    np.testing.assert_allclose(take(store, ["text 9"]), half.encode_queries(["text 9"]), atol=1e-3)


def test_what_a_kill_left_behind_the_catalogue_is_overwritten(encoder, store, tmp_path):
    embed_corpus(encoder, list(DOCUMENTS.items())[:10], store)
    with open(tmp_path / "store" / "vectors.bin", "ab") as file:
        file.write(b"half a chunk")
    embed_corpus(encoder, DOCUMENTS.items(), VectorStore(tmp_path / "store", encoder.space))
    np.testing.assert_array_equal(take(store, DOCUMENTS.values()), encoder.encode_queries(list(DOCUMENTS.values())))


def assert_repaired(encoder, folder, lost):
    """The next pass encodes exactly the lost texts, and afterwards everything is right."""
    encoder.encoded.clear()
    embed_corpus(encoder, DOCUMENTS.items(), VectorStore(folder, encoder.space), chunk=7)
    assert encoder.encoded == lost
    encoder.encoded.clear()
    store = VectorStore(folder, encoder.space)
    embed_corpus(encoder, DOCUMENTS.items(), store)
    assert encoder.encoded == []
    np.testing.assert_array_equal(take(store, DOCUMENTS.values()), encoder.encode_queries(list(DOCUMENTS.values())))


def test_a_truncated_file_loses_only_the_vectors_that_are_gone(encoder, store, tmp_path, caplog):
    embed_corpus(encoder, DOCUMENTS.items(), store)
    data = tmp_path / "store" / "vectors.bin"
    data.write_bytes(data.read_bytes()[: 16 * 4 * 30 - 1])
    with pytest.raises(StorageError, match=r"vectors.bin: row 30 does not match.*Run the same command again"):
        take(store, ["text 30"])
    assert_repaired(encoder, tmp_path / "store", [f"text {i}" for i in range(29, 50)])
    assert "vectors are damaged. They are encoded again." in caplog.text


def test_a_flipped_bit_is_noticed_and_its_vector_encoded_again(encoder, store, tmp_path, caplog):
    embed_corpus(encoder, DOCUMENTS.items(), store)
    data = tmp_path / "store" / "vectors.bin"
    content = bytearray(data.read_bytes())
    content[16 * 4 * 7] ^= 1
    data.write_bytes(content)
    take(store, ["text 6", "text 8"])
    with pytest.raises(StorageError, match="row 7 does not match its checksum"):
        take(store, ["text 7"])
    assert_repaired(encoder, tmp_path / "store", ["text 7"])
    assert caplog.messages == [f"{data}: 1 vectors are damaged. They are encoded again."]


def test_a_catalogue_that_cannot_be_read_is_moved_aside(encoder, store, tmp_path, caplog):
    embed_corpus(encoder, DOCUMENTS.items(), store)
    store.close()
    catalogue = tmp_path / "store" / "catalogue.sqlite"
    catalogue.write_bytes(b"garbage" * 1000)
    assert_repaired(encoder, tmp_path / "store", list(DOCUMENTS.values()))
    assert catalogue.with_suffix(".damaged").read_bytes().startswith(b"garbage")
    assert len(caplog.messages) == 1 and str(catalogue) in caplog.text and "catalogue.damaged" in caplog.text


def test_a_catalogue_with_a_bad_page_keeps_what_can_be_read(tmp_path, caplog):
    encoder, texts = FakeEncoder(), {f"d{i}": f"text {i}" for i in range(2000)}
    store = VectorStore(tmp_path, encoder.space)
    embed_corpus(encoder, texts.items(), store)
    store.close()
    catalogue = tmp_path / "catalogue.sqlite"
    content = bytearray(catalogue.read_bytes())
    middle = len(content) // 4096 // 2 * 4096
    content[middle : middle + 4096] = b"\xff" * 4096
    catalogue.write_bytes(content)
    encoder.encoded.clear()
    embed_corpus(encoder, texts.items(), VectorStore(tmp_path, encoder.space))
    assert 0 <= len(encoder.encoded) < 500
    assert "is damaged" in caplog.text
    store = VectorStore(tmp_path, encoder.space)
    np.testing.assert_array_equal(take(store, texts.values()), encoder.encode_queries(list(texts.values())))


@pytest.mark.parametrize("seed", range(30))
def test_damage_anywhere_in_the_catalogue_never_gives_a_wrong_vector(encoder, store, tmp_path, seed):
    rng = random.Random(seed)
    embed_corpus(encoder, DOCUMENTS.items(), store)
    store.close()
    catalogue = tmp_path / "store" / "catalogue.sqlite"
    content = bytearray(catalogue.read_bytes())
    start, size = rng.randrange(len(content)), rng.choice([1, 16, 512, 4096])
    content[start : start + size] = rng.randbytes(size) if seed % 2 else bytes(size)
    catalogue.write_bytes(content if seed % 5 else content[:start])
    for _ in range(2):
        store = VectorStore(tmp_path / "store", encoder.space)
        embed_corpus(encoder, DOCUMENTS.items(), store, chunk=7)
        np.testing.assert_array_equal(take(store, DOCUMENTS.values()), encoder.encode_queries(list(DOCUMENTS.values())))
        store.close()


def test_a_damaged_note_of_the_space_is_one_clear_error(encoder, store, tmp_path):
    embed_corpus(encoder, DOCUMENTS.items(), store)
    store.close()
    (tmp_path / "store" / "space.json").write_bytes(b"garbage" * 1000)
    with pytest.raises(StorageError, match="cannot be read"):
        VectorStore(tmp_path / "store", encoder.space)


def test_impossible_vectors_are_refused(encoder, store):
    with pytest.raises(DataError, match="one vector per text"):
        store.add([content_key("x")], np.ones((2, 16), np.float32), encoder.space)
    with pytest.raises(DataError, match="NaN"):
        store.add([content_key("x")], np.full((1, 16), np.nan, np.float32), encoder.space)
    with pytest.raises(DataError, match="1 texts have no vector"):
        take(store, ["x"])


def test_two_writers_do_not_mix(encoder, store, tmp_path):
    with locked(tmp_path / "store" / ".lock"), pytest.raises(StorageError, match="another process"):
        embed_corpus(encoder, DOCUMENTS.items(), store)
