"""What LanceDB answers is what our own index answers, also behind a filter, and never for another space."""

from __future__ import annotations

import sys

import pytest

from embedlab.deploy.build import Source, build_version
from embedlab.deploy.indexes import IndexSpec
from embedlab.deploy.lance import export_lance, search_lance
from embedlab.deploy.serve import open_version
from embedlab.deploy.space import SpaceMismatch
from embedlab.errors import DataError, EmbedlabError, ParameterError, StorageError
from tests.unit.test_deploy_space import FakeEncoder

DOCUMENTS = {f"d{i}": f"text {i}" for i in range(80)}
FIELDS = {f"d{i}": {"chapter": "even" if i % 2 == 0 else "odd"} for i in range(79)}


@pytest.fixture
def served(tmp_path):
    version, _ = build_version(tmp_path, FakeEncoder(), Source(DOCUMENTS.items()), IndexSpec(kind="flat"))
    return open_version(tmp_path, version)


@pytest.fixture
def database(tmp_path, served):
    pytest.importorskip("lancedb")
    assert export_lance(served, tmp_path / "lance", DOCUMENTS, FIELDS) == 80
    return tmp_path / "lance"


QUERIES = {f"q{i}": f"question {i}" for i in range(5)}


def test_it_answers_as_our_own_index_does(served, database):
    encoder = FakeEncoder()
    ours = served.rank(encoder, QUERIES, 10).as_candidates()
    theirs = search_lance(database, encoder.encode_queries(list(QUERIES.values())), encoder.space, 10)
    for expected, found in zip(ours.values(), theirs, strict=True):
        assert [name for name, _ in found] == [name for name, _ in expected]
        assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-5)


def test_a_filter_is_applied_before_the_search(served, database):
    encoder = FakeEncoder()
    vectors = encoder.encode_queries(list(QUERIES.values()))
    everything = served.rank(encoder, QUERIES, 80).as_candidates()
    found = search_lance(database, vectors, encoder.space, 10, where="chapter = 'odd'")
    for expected, names in zip(everything.values(), found, strict=True):
        odd = [name for name, _ in expected if FIELDS.get(name, {}).get("chapter") == "odd"]
        assert [name for name, _ in names] == odd[:10]
    without = search_lance(database, vectors[:1], encoder.space, 10, where="chapter IS NULL")
    assert [name for name, _ in without[0]] == ["d79"]


def test_another_space_is_refused_and_a_new_export_stands_beside_the_old(served, database, tmp_path):
    other = FakeEncoder(1)
    with pytest.raises(SpaceMismatch, match="no vectors of space"):
        search_lance(database, other.encode_queries(["x"]), other.space, 3)
    version, _ = build_version(tmp_path, other, Source(DOCUMENTS.items()), IndexSpec(kind="flat"))
    export_lance(open_version(tmp_path, version), database, DOCUMENTS)
    for encoder in (other, FakeEncoder()):
        assert search_lance(database, encoder.encode_queries(["text 7"]), encoder.space, 1)[0][0][0] == "d7"


def test_exporting_again_replaces(served, database):
    assert export_lance(served, database, DOCUMENTS) == 80


@pytest.mark.parametrize("damage", ["flip", "gone", "checksums"])
def test_a_damaged_export_is_one_clear_error(served, database, damage):
    (checksums,) = database.glob("*.sha256.json")
    path = max(database.rglob("*.lance"), key=lambda path: path.is_file() and path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    if damage == "checksums":
        checksums.write_text('{"../x": "0"}')
    elif damage == "flip":
        path.write_bytes(content)
    else:
        path.unlink()
    encoder = FakeEncoder()
    message = {"flip": "does not match", "gone": "is missing", "checksums": "checksums are damaged"}[damage]
    with pytest.raises(StorageError, match=f"{message}.*embedlab deploy export"):
        search_lance(database, encoder.encode_queries(["x"]), encoder.space, 1)
    export_lance(served, database, DOCUMENTS)
    assert search_lance(database, encoder.encode_queries(["x"]), encoder.space, 1)


def test_bad_input_is_one_clear_error(served, tmp_path):
    with pytest.raises(DataError, match="document 'd0' has no text"):
        export_lance(served, tmp_path / "lance", {})
    with pytest.raises(DataError, match="may not be called 'vector'"):
        export_lance(served, tmp_path / "lance", DOCUMENTS, {"d0": {"vector": "x"}})
    with pytest.raises(StorageError, match="no database"):
        search_lance(tmp_path / "none", FakeEncoder().encode_queries(["x"]), served.space, 1)


@pytest.mark.parametrize("where", ["part = 'odd'", "chapter = (", "chapter"])
def test_a_filter_that_is_no_condition_is_one_clear_error(served, database, where):
    with pytest.raises(ParameterError, match=r"^\[where\]: .* not a condition .* on the columns id, text, chapter\.$"):
        search_lance(str(database), FakeEncoder().encode_queries(["x"]), served.space, 1, where=where)


def test_without_lancedb_the_extra_is_named(served, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(EmbedlabError, match=r"LanceDB is not installed.*embedlab\[deploy\]"):
        export_lance(served, tmp_path / "lance", DOCUMENTS)
