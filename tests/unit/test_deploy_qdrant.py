"""What Qdrant answers is what our own index answers, also behind a filter, and never for another space."""

from __future__ import annotations

import os
import pickle
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedlab.deploy.build import Source, build_version, store_of
from embedlab.deploy.indexes import IndexSpec
from embedlab.deploy.qdrant import export_qdrant, import_qdrant, search_qdrant
from embedlab.deploy.serve import open_version
from embedlab.deploy.space import SpaceMismatch
from embedlab.deploy.store import content_key
from embedlab.errors import DataError, EmbedlabError, ParameterError, StorageError
from tests.unit.test_deploy_space import FakeEncoder

DOCUMENTS = {f"d{i}": f"text {i}" for i in range(80)}
FIELDS = {f"d{i}": {"chapter": "even" if i % 2 == 0 else "odd", "a.b c": str(i % 3)} for i in range(79)}
QUERIES = {f"q{i}": f"question {i}" for i in range(5)}


@pytest.fixture
def served(tmp_path):
    version, _ = build_version(tmp_path, FakeEncoder(), Source(DOCUMENTS.items()), IndexSpec(kind="flat"))
    return open_version(tmp_path, version)


@pytest.fixture
def database(tmp_path, served, monkeypatch):
    pytest.importorskip("qdrant_client")
    monkeypatch.setattr("embedlab.deploy.qdrant.BATCH", 30)
    assert export_qdrant(served, str(tmp_path / "qdrant"), DOCUMENTS, FIELDS) == 80
    return str(tmp_path / "qdrant")


def vectors_of(encoder):
    return encoder.encode_queries(list(QUERIES.values()))


def storage_of(database):
    (path,) = Path(database).rglob("storage.sqlite")
    return path


def replace_point(database, content):
    with sqlite3.connect(storage_of(database)) as connection:
        connection.execute("UPDATE points SET point = ? WHERE rowid = 7", (content,))
    connection.close()


def test_it_answers_as_our_own_index_does(served, database):
    encoder = FakeEncoder()
    ours = served.rank(encoder, QUERIES, 10).as_candidates()
    theirs = search_qdrant(database, vectors_of(encoder), encoder.space, 10)
    for expected, found in zip(ours.values(), theirs, strict=True):
        assert [name for name, _ in found] == [name for name, _ in expected]
        assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-5)


@pytest.mark.parametrize(
    "where", [{"chapter": "odd"}, {"a.b c": "1"}, {"chapter": "even", "a.b c": "2"}, {"chapter": None}]
)
def test_a_filter_is_applied_before_the_search(served, database, where):
    encoder = FakeEncoder()
    everything = served.rank(encoder, QUERIES, 80).as_candidates()
    results = search_qdrant(database, vectors_of(encoder), encoder.space, 10, where=where)
    for expected, found in zip(everything.values(), results, strict=True):
        passing = [
            name for name, _ in expected if all(FIELDS.get(name, {}).get(key) == value for key, value in where.items())
        ]
        assert [name for name, _ in found] == passing[:10] and passing


def test_another_space_is_refused_and_a_new_export_does_not_replace_the_old(served, database, tmp_path):
    other = FakeEncoder(1)
    with pytest.raises(SpaceMismatch, match="no vectors of space"):
        search_qdrant(database, vectors_of(other), other.space, 3)
    version, _ = build_version(tmp_path, other, Source(DOCUMENTS.items()), IndexSpec(kind="flat"))
    export_qdrant(open_version(tmp_path, version), database, DOCUMENTS)
    for encoder in (other, FakeEncoder()):
        assert search_qdrant(database, encoder.encode_queries(["text 7"]), encoder.space, 1)[0][0][0] == "d7"


def test_a_collection_under_the_name_of_another_space_is_refused(served, database):
    """Somebody renamed it, or wrote vectors of another model into it."""
    from qdrant_client import QdrantClient

    client, space = QdrantClient(path=database), served.space
    claimed = {"space": {**space.__dict__, "query_prompt": "query: "}}
    client.update_collection(f"space_{space.fingerprint}", metadata=claimed)
    client.close()
    with pytest.raises(SpaceMismatch, match="query prompts differ"):
        search_qdrant(database, vectors_of(FakeEncoder()), space, 3)


def test_exporting_again_replaces(served, database):
    fewer = replace(served, ids=served.ids[:10])
    object.__setattr__(fewer.index, "vectors", served.index.vectors[:10])
    assert export_qdrant(fewer, database, DOCUMENTS) == 10


def test_an_export_that_was_killed_cannot_be_searched(served, database, monkeypatch):
    from qdrant_client import QdrantClient

    monkeypatch.setattr(QdrantClient, "update_collection", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        export_qdrant(served, database, DOCUMENTS)
    with pytest.raises(StorageError, match="not complete.*embedlab deploy export"):
        search_qdrant(database, vectors_of(FakeEncoder()), served.space, 3)


class TestImport:
    def test_vectors_come_back_and_nothing_is_encoded_again(self, database, tmp_path):
        encoder = FakeEncoder()
        store = store_of(tmp_path / "new", encoder)
        assert import_qdrant(database, encoder, store) == (80, 80)
        assert len(encoder.encoded) == 32  # the sample
        expected = FakeEncoder().encode_documents(list(DOCUMENTS.values()))
        found = store.take([content_key(text) for text in DOCUMENTS.values()])
        assert np.abs(found - expected).max() <= 1e-6
        assert import_qdrant(database, encoder, store) == (80, 0)
        store.close()

    def test_another_model_is_refused(self, database, tmp_path):
        other = FakeEncoder(1)
        with pytest.raises(SpaceMismatch, match="no vectors of space"):
            import_qdrant(database, other, store_of(tmp_path / "new", other))

    def test_vectors_that_the_model_does_not_give_are_refused(self, database, tmp_path):
        liar = FakeEncoder(1)
        liar.space = FakeEncoder().space  # claims the space, and encodes differently
        liar._vector = lambda text: np.ones(16, dtype=np.float32)
        store = store_of(tmp_path / "new", liar)
        with pytest.raises(SpaceMismatch, match="differ from those of the model"):
            import_qdrant(database, liar, store)
        assert len(store) == 0


class Evil:
    def __reduce__(self):
        return os.system, ("echo owned > owned",)


@pytest.mark.parametrize("content", [pickle.dumps(Evil()), pickle.dumps(np.float64(1)), b"\x80damage", b""])
def test_a_folder_that_would_run_code_is_not_opened(served, database, tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    replace_point(database, content)
    for action in (
        lambda: search_qdrant(database, vectors_of(FakeEncoder()), served.space, 1),
        lambda: import_qdrant(database, FakeEncoder(), store_of(tmp_path / "new", FakeEncoder())),
        lambda: export_qdrant(served, database, DOCUMENTS),
    ):
        with pytest.raises(StorageError, match="damaged or not safe to open"):
            action()
    assert not (tmp_path / "owned").exists()


def test_a_view_in_the_place_of_the_points_is_not_opened(served, database):
    with sqlite3.connect(storage_of(database)) as connection:
        connection.execute("ALTER TABLE points RENAME TO other")
        connection.execute("CREATE VIEW points AS SELECT * FROM other")
    connection.close()
    with pytest.raises(StorageError, match="not safe to open"):
        search_qdrant(database, vectors_of(FakeEncoder()), served.space, 1)


@pytest.mark.parametrize("meta", ["{", "[]", '{"collections": {"x": 1}, "aliases": {}}'])
def test_damaged_metadata_is_one_clear_error(served, database, meta):
    Path(database, "meta.json").write_text(meta)
    with pytest.raises(StorageError, match="Qdrant failed"):
        search_qdrant(database, vectors_of(FakeEncoder()), served.space, 1)


def test_bad_input_is_one_clear_error(served, tmp_path):
    pytest.importorskip("qdrant_client")
    with pytest.raises(DataError, match="document 'd0' has no text"):
        export_qdrant(served, str(tmp_path / "qdrant"), {})
    with pytest.raises(DataError, match="may not be called 'vector'"):
        export_qdrant(served, str(tmp_path / "qdrant"), DOCUMENTS, {"d0": {"vector": "x"}})
    with pytest.raises(StorageError, match="no database"):
        search_qdrant(str(tmp_path / "none"), vectors_of(FakeEncoder()), served.space, 1)
    with pytest.raises(StorageError, match="Qdrant failed"):
        export_qdrant(served, "http://127.0.0.1:9", DOCUMENTS)
    with pytest.raises(ParameterError, match="must not hold a user, a key"):
        export_qdrant(served, "http://user:password@127.0.0.1:9", DOCUMENTS)


def test_without_qdrant_the_extra_is_named(served, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(EmbedlabError, match=r"qdrant-client is not installed.*embedlab\[deploy\]"):
        export_qdrant(served, str(tmp_path / "qdrant"), DOCUMENTS)
