"""Versions: whole or refused, promoted and rolled back in one step, built once, judged again."""

from __future__ import annotations

import json
import os
from datetime import datetime

import numpy as np
import pytest

from embedlab.data.dataset import Dataset
from embedlab.deploy import build as building
from embedlab.deploy import versions
from embedlab.deploy.build import Source, build_version
from embedlab.deploy.indexes import IndexSpec
from embedlab.deploy.recheck import checks_file, judge, read_checks, recheck
from embedlab.deploy.serve import open_version
from embedlab.deploy.space import SpaceMismatch
from embedlab.errors import DataError, ParameterError, StorageError
from embedlab.io import sha256_of_json
from tests.unit.test_deploy_space import FakeEncoder

DOCUMENTS = {f"d{i}": f"text {i}" for i in range(60)}
FLAT = IndexSpec(kind="flat")


def dataset(documents=DOCUMENTS, wrong=0, name="fake"):
    """Every query is the text of its answer, except the first `wrong` ones, which ask for what they do not say."""
    queries = {f"q{i}": f"text {i}" for i in range(40)}
    qrels = {f"q{i}": {f"d{i + 1 if i < wrong else i}": 1} for i in range(40)}
    return Dataset(name=name, corpus=documents, queries=queries, qrels={"test": qrels})


def build(root, encoder=None, documents=DOCUMENTS, spec=FLAT, **more):
    return build_version(root, encoder or FakeEncoder(), Source(documents.items()), spec, **more)[0]


def test_a_version_answers_with_the_documents_it_was_built_from(tmp_path):
    encoder = FakeEncoder()
    version = build(tmp_path, encoder)
    ranking = open_version(tmp_path, version).rank(encoder, {"a": "text 7", "b": "text 59"}, 3)
    assert ranking.doc_ids[:, 0].tolist() == ["d7", "d59"]
    np.testing.assert_allclose(ranking.scores[:, 0], 1, atol=1e-6)


def test_the_manifest_says_what_it_is(tmp_path):
    encoder = FakeEncoder()
    old = build(tmp_path, encoder)
    versions.promote(tmp_path, old)
    source = Source(DOCUMENTS.items(), "spec", lambda: "bytes", 60, "model")
    new, _ = build_version(tmp_path, encoder, source, IndexSpec(), assess=lambda s: judge(s, encoder, dataset()))
    found = versions.read_manifest(tmp_path, new)
    assert (found.version, found.space, found.parent, found.documents) == (new, encoder.space, old, 60)
    assert (found.dataset, found.data_fingerprint, found.model_name) == ("spec", "bytes", "model")
    assert found.judged.value == 1.0 and found.judged.n == 40
    assert set(found.files) == {"documents.jsonl", "vectors.npy", "index.bin"}
    assert new.startswith(encoder.space.fingerprint + "/")


def test_the_same_corpus_space_and_index_are_one_version(tmp_path):
    encoder = FakeEncoder()
    first = build(tmp_path, encoder)
    before = (tmp_path / first / versions.MANIFEST).read_bytes()
    assert build(tmp_path, encoder) == first
    assert (tmp_path / first / versions.MANIFEST).read_bytes() == before
    others = {build(tmp_path, encoder, spec=IndexSpec(kind="int8")), build(tmp_path, encoder, dict(islice10()))}
    others |= {build(tmp_path, FakeEncoder(1)), build(tmp_path, encoder, dict(reversed(DOCUMENTS.items())))}
    assert len(others | {first}) == 5
    assert len(encoder.encoded) == 60


def islice10():
    return list(DOCUMENTS.items())[:10]


def test_deleted_documents_are_gone_and_new_ones_there(tmp_path):
    encoder, later = FakeEncoder(), {**DOCUMENTS, "new": "something new"}
    del later["d7"]
    build(tmp_path, encoder)
    served = open_version(tmp_path, build(tmp_path, encoder, later))
    assert served.ids == tuple(later)
    ranking = served.rank(encoder, {"a": "text 7", "b": "something new"}, 60)
    assert "d7" not in ranking.doc_ids and ranking.doc_ids[1, 0] == "new"


@pytest.mark.parametrize(
    "other", [FakeEncoder(1), FakeEncoder(dimension=8), FakeEncoder(query_prompt="q: ")], ids=["model", "d", "prompt"]
)
def test_queries_of_another_space_are_refused(tmp_path, other, monkeypatch):
    served = open_version(tmp_path, build(tmp_path))
    with pytest.raises(SpaceMismatch):
        served.search(other.encode_queries(["text 7"]), other.space, 3)
    monkeypatch.setattr(other, "encode_queries", lambda texts: pytest.fail("encoded before it was refused"))
    with pytest.raises(SpaceMismatch, match="searching this version refused"):
        served.rank(other, {"a": "text 7"}, 3)


def test_promote_and_roll_back(tmp_path):
    a, b, c = (build(tmp_path, FakeEncoder(seed)) for seed in range(3))
    with pytest.raises(StorageError, match="No version is served"):
        versions.current(tmp_path)
    for version in (a, b, c, c):  # promoting what is served changes nothing
        versions.promote(tmp_path, version)
    assert versions.read_pointer(tmp_path) == versions.Pointer(version=c, previous=(a, b))
    assert versions.rollback(tmp_path).version == b
    assert versions.rollback(tmp_path).version == a
    with pytest.raises(StorageError, match="no earlier version"):
        versions.rollback(tmp_path)
    assert open_version(tmp_path).manifest.version == a


@pytest.mark.parametrize("file", ["documents.jsonl", "vectors.npy", "index.bin", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_damage_is_noticed_before_it_serves(tmp_path, file, damage):
    good, bad = build(tmp_path), build(tmp_path, FakeEncoder(1))
    versions.promote(tmp_path, good)
    path = tmp_path / bad / file
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "flip":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :])
    reason = {"cut": "bytes instead of", "flip": "checksum does not match", "gone": "the file is missing"}[damage]
    for action in (versions.promote, open_version):
        with pytest.raises(StorageError, match=".*" if file == "manifest.json" else reason):
            action(tmp_path, bad)
    assert open_version(tmp_path).manifest.version == good


def test_a_rollback_to_a_damaged_version_is_refused(tmp_path):
    old, new = build(tmp_path), build(tmp_path, FakeEncoder(1))
    versions.promote(tmp_path, old)
    versions.promote(tmp_path, new)
    (tmp_path / old / "vectors.npy").write_bytes(b"")
    with pytest.raises(StorageError, match="damaged"):
        versions.rollback(tmp_path)
    assert versions.current(tmp_path) == new


def test_a_damaged_version_is_built_again(tmp_path):
    encoder = FakeEncoder()
    version = build(tmp_path, encoder)
    (tmp_path / version / "index.bin").write_bytes(b"")
    assert build(tmp_path, encoder) == version
    assert open_version(tmp_path, version).manifest.documents == 60
    assert len(encoder.encoded) == 60  # the vectors were kept


def test_an_edited_manifest_is_refused(tmp_path):
    version = build(tmp_path)
    path = tmp_path / version / versions.MANIFEST
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "documents": 61}))
    with pytest.raises(StorageError, match="not what was written"):
        versions.verify(tmp_path, version)


@pytest.mark.parametrize("files", [{}, {"../../../secret": {"bytes": 1, "sha256": ""}}])
def test_a_manifest_that_lists_other_files_is_refused(tmp_path, files):
    version = build(tmp_path)
    path = tmp_path / version / versions.MANIFEST
    content = {**json.loads(path.read_text()), "files": files}
    del content["sha256"]
    path.write_text(json.dumps({**content, "sha256": sha256_of_json(content)}))
    with pytest.raises(StorageError, match=f"it lists {next(iter(files), 'no files')}"):
        open_version(tmp_path, version)


def test_a_version_that_is_a_link_to_another_place_is_refused(tmp_path):
    version = build(tmp_path / "elsewhere")
    root = tmp_path / "root"
    root.mkdir()
    (root / version.split("/")[0]).symlink_to(tmp_path / "elsewhere" / version.split("/")[0])
    with pytest.raises(StorageError, match="link to another place"):
        open_version(root, version)


def test_a_version_under_another_spaces_name_is_refused(tmp_path):
    """Somebody copies a version into another space's folder and mends the manifest's name and digest."""
    ours, theirs = build(tmp_path), build(tmp_path, FakeEncoder(1))
    fake = f"{ours.split('/')[0]}/copied"
    manifest = versions.read_manifest(tmp_path, theirs).model_copy(update={"version": fake})
    (tmp_path / theirs).rename(tmp_path / fake)
    (tmp_path / fake / versions.MANIFEST).write_bytes(manifest.to_bytes())
    with pytest.raises(StorageError, match="its vectors are of space"):
        versions.promote(tmp_path, fake)


def test_a_copy_under_another_name_is_refused(tmp_path):
    version = build(tmp_path)
    (tmp_path / version).rename(tmp_path / f"{version}-copy")
    with pytest.raises(StorageError, match="not what was written") as caught:
        versions.read_manifest(tmp_path, f"{version}-copy")
    assert str(tmp_path / f"{version}-copy" / versions.MANIFEST) in str(caught.value)


def test_a_damaged_pointer_is_one_clear_error_and_promotion_mends_it(tmp_path):
    version = build(tmp_path)
    versions.promote(tmp_path, version)
    (tmp_path / versions.POINTER).write_text('{"version": 1')
    with pytest.raises(StorageError, match="The pointer is damaged.*Promote"):
        open_version(tmp_path)
    versions.promote(tmp_path, version)
    assert open_version(tmp_path).manifest.version == version


def test_a_version_under_another_name_is_refused(tmp_path):
    """Somebody renames a version's folder: it is not the build that its name says."""
    version = build(tmp_path)
    renamed = f"{version.split('/')[0]}/renamed"
    (tmp_path / version).rename(tmp_path / renamed)
    with pytest.raises(StorageError, match="not what was written"):
        versions.verify(tmp_path, renamed)


def test_versions_are_in_the_order_they_were_built_whatever_the_clocks_say(tmp_path, monkeypatch):
    """The machine that builds second is a year behind, and a copy changed the times of the files."""
    built = [build(tmp_path, FakeEncoder(seed)) for seed in (1, 0)]

    class Behind(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2020, 1, 1, tzinfo=tz)

    monkeypatch.setattr(building, "datetime", Behind)
    built += [build(tmp_path, FakeEncoder(seed)) for seed in (3, 2)]
    for age, version in enumerate(built):
        os.utime(tmp_path / version, (1000 - age, 1000 - age))
    assert versions.versions(tmp_path) == built
    assert [versions.read_manifest(tmp_path, version).number for version in built] == [1, 2, 3, 4]
    (tmp_path / built[2] / versions.MANIFEST).write_bytes(b"{}")
    assert versions.versions(tmp_path) == [built[2], built[0], built[1], built[3]]


def test_versions_of_older_code_are_ordered_by_their_time(tmp_path):
    built = [build(tmp_path, FakeEncoder(seed)) for seed in (1, 0)]
    for version, year in zip(built, (2025, 2024), strict=True):
        path = tmp_path / version / versions.MANIFEST
        content = json.loads(path.read_text()) | {"created": f"{year}-01-01T00:00:00+00:00"}
        del content["sha256"], content["number"]
        path.write_text(json.dumps({**content, "sha256": sha256_of_json(content)}))
    newest = build(tmp_path, FakeEncoder(2))
    assert versions.versions(tmp_path) == [built[1], built[0], newest]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "x", "x/y/z", "x/..", "", "x/y/"])
def test_what_is_no_version_name_is_refused(tmp_path, name):
    version = build(tmp_path)
    for action in (versions.promote, versions.verify):
        with pytest.raises(StorageError, match=f"is not the name of a version.*{version}"):
            action(tmp_path, name)


def test_a_build_that_fails_leaves_no_draft(tmp_path):
    def assess(served):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, assess=assess)
    assert not list(tmp_path.glob("*/.draft-*"))
    assert versions.versions(tmp_path) == []


def test_a_collapsed_model_is_said_when_a_version_is_built(tmp_path, caplog):
    encoder = FakeEncoder()
    build(tmp_path, encoder)
    assert caplog.text == ""
    same = FakeEncoder(9)
    same.encode_documents = lambda texts: np.tile(encoder.encode_queries(["same"]), (len(texts), 1))
    build(tmp_path, same)
    assert "document vectors: the vectors of different texts are nearly the same (mean cosine 1.000)" in caplog.text


def test_a_search_for_no_documents_is_refused_before_encoding(tmp_path, monkeypatch):
    encoder = FakeEncoder()
    served = open_version(tmp_path, build(tmp_path, encoder))
    monkeypatch.setattr(encoder, "encode_queries", lambda texts: pytest.fail("encoded before it was refused"))
    for k in (0, -3):
        with pytest.raises(ParameterError, match="k must be at least 1"):
            served.rank(encoder, {"a": "text 7"}, k)


def test_unknown_version_names_the_known(tmp_path):
    version = build(tmp_path)
    with pytest.raises(StorageError, match=f"no version 'x/y'.*{version}"):
        versions.promote(tmp_path, "x/y")


def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path):
    encoder, answers = FakeEncoder(), iter(["before", "after"])
    with pytest.raises(DataError, match="changed while it was embedded"):
        build_version(tmp_path, encoder, Source(DOCUMENTS.items(), fingerprint=lambda: next(answers)), FLAT)
    assert versions.versions(tmp_path) == []
    build(tmp_path, encoder)
    assert len(encoder.encoded) == 60


@pytest.mark.parametrize(
    ("documents", "problem"), [([], "corpus is empty"), ([("a", "x"), ("a", "y")], "Two documents have the id 'a'")]
)
def test_an_impossible_corpus_is_refused(tmp_path, documents, problem):
    with pytest.raises(DataError, match=problem):
        build_version(tmp_path, FakeEncoder(), Source(documents), FLAT)
    assert versions.versions(tmp_path) == []


def test_recheck_keeps_a_line_and_says_worse_only_when_the_interval_does(tmp_path):
    encoder = FakeEncoder()
    version = build(tmp_path, encoder, assess=lambda served: judge(served, encoder, dataset()))
    versions.promote(tmp_path, version)
    same = recheck(tmp_path, encoder, dataset(), data_fingerprint="abc")
    slightly = recheck(tmp_path, encoder, dataset(wrong=1))
    worse = recheck(tmp_path, encoder, dataset(wrong=20, name="fresh"))
    assert (same.worse, same.found.value, same.stored.value) == (False, 1.0, 1.0)
    assert slightly.found.value < 1 and not slightly.worse
    assert worse.worse and worse.found.value < 0.7 and worse.found.dataset == "fresh"
    assert read_checks(tmp_path, version) == [same, slightly, worse]
    assert len(checks_file(tmp_path, version).read_text().splitlines()) == 3
    versions.verify(tmp_path, version)  # checks lie beside the version, not in it


def test_recheck_counts_documents_that_come_and_go(tmp_path):
    encoder, later = FakeEncoder(), {**DOCUMENTS, "n1": "x", "n2": "y"}
    del later["d50"]
    versions.promote(tmp_path, build(tmp_path, encoder))
    check = recheck(tmp_path, encoder, dataset(later))
    assert (check.missing_documents, check.gone_documents) == (2, 1)
    assert check.stored is None and not check.worse


def test_recheck_refuses_what_it_cannot_judge(tmp_path):
    encoder = FakeEncoder()
    versions.promote(tmp_path, build(tmp_path, encoder))
    with pytest.raises(SpaceMismatch):
        recheck(tmp_path, FakeEncoder(1), dataset())
    with pytest.raises(ParameterError, match="no dev queries"):
        judge(open_version(tmp_path), encoder, dataset(), "dev")
    checks_file(tmp_path, versions.current(tmp_path)).write_text("{}\n")
    with pytest.raises(StorageError, match=":1: The line is damaged"):
        read_checks(tmp_path, versions.current(tmp_path))
