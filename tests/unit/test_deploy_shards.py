"""Documents in Parquet files: pieces, exactly-once results, resumption, and search over all pieces."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from typer.testing import CliRunner

from embedlab.cli import deploy as deploy_cli
from embedlab.cli import deploy_shards as cli
from embedlab.deploy import claims, parts, shards
from embedlab.deploy.claims import Claim
from embedlab.deploy.index_shards import (
    build_shard_index,
    measure_recall,
    read_shard_index,
    search_shard_index,
)
from embedlab.deploy.indexes import IndexSpec
from embedlab.deploy.parts import MANIFEST, VECTORS, all_parts, finished, read_plan, remove_orphans
from embedlab.deploy.pieces import Columns, find_pieces, read_piece
from embedlab.deploy.search_shards import named, search_shards
from embedlab.deploy.shards import Task, embed_piece, embed_shards
from embedlab.deploy.space import SpaceMismatch
from embedlab.deploy.storage import Storage
from embedlab.errors import DataError, EmbedlabError, ParameterError, StorageError
from embedlab.search.exact import search
from embedlab.search.merging import TopK
from embedlab.search.ranking_file import read_ranking, write_ranking
from embedlab.sweeps.pools import SerialPool
from tests.unit.test_deploy_space import FakeEncoder

POOL = SerialPool()
ENCODER = FakeEncoder(0)
SIZES = {"a.parquet": (30, 10), "b.parquet": (45, 20), "c.parquet": (5, 20)}  # rows, rows per group


def make_encoder(model: str) -> FakeEncoder:
    return FakeEncoder(int(model))


def documents(start: int, count: int) -> pa.Table:
    numbers = range(start, start + count)
    return pa.table({"id": [f"d{i}" for i in numbers], "text": [f"text {i}" for i in numbers]})


@pytest.fixture
def source(tmp_path) -> Storage:
    start = 0
    for name, (rows, group) in SIZES.items():
        (tmp_path / "source").mkdir(exist_ok=True)
        pq.write_table(documents(start, rows), tmp_path / "source" / name, row_group_size=group)
        start += rows
    return Storage.at(str(tmp_path / "source"))


@pytest.fixture(params=["disk", "memory"])
def target(request, tmp_path):
    """A folder on the disk, and one on a remote storage."""
    if request.param == "disk":
        yield Storage.at(str(tmp_path / "target"))
        return
    yield Storage.at("memory://shards/target")
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def embed(source: Storage, target: Storage, model: str = "0", **options):
    return embed_shards(source, target, model, make_encoder(model), POOL, make_encoder=make_encoder, rows=25, **options)


def folder_of(target: Storage, model: str = "0") -> Storage:
    return target.within(make_encoder(model).space.fingerprint)


def vectors_in(folder: Storage) -> np.ndarray:
    return np.concatenate([block for part in all_parts(folder, read_plan(folder)) for block in part.vectors()])


def test_pieces_follow_the_row_groups(source):
    pieces = find_pieces(source, Columns(), rows=25)
    assert [(p.file[0], p.first, p.last, p.start, p.rows) for p in pieces] == [
        ("a", 0, 1, 0, 20),
        ("a", 2, 2, 20, 10),
        ("b", 0, 0, 30, 20),
        ("b", 1, 2, 50, 25),
        ("c", 0, 0, 75, 5),
    ]
    assert len({piece.key for piece in pieces}) == 5
    blocks = [list(read_piece(source, piece, Columns(), block=8)) for piece in pieces]
    assert [len(ids) for ids, _ in blocks[0]] == [8, 8, 4]
    read = [(name, text) for piece in blocks for ids, texts in piece for name, text in zip(ids, texts, strict=True)]
    assert read == [(f"d{i}", f"text {i}") for i in range(80)]


def test_a_changed_file_makes_new_pieces_and_the_others_stay(source, tmp_path):
    old = find_pieces(source, Columns(), rows=25)
    table = documents(0, 30).set_column(1, "text", pa.array(["another text"] * 30))
    pq.write_table(table, tmp_path / "source" / "a.parquet", row_group_size=10)
    new = find_pieces(source, Columns(), rows=25)
    assert [a.key == b.key for a, b in zip(old, new, strict=True)] == [False, False, True, True, True]


def test_every_document_is_embedded_once_and_in_order(source, target):
    report = embed(source, target)
    assert (report.pieces, report.documents, report.encoded, report.failures) == (5, 80, 80, {})
    folder = folder_of(target)
    np.testing.assert_array_equal(vectors_in(folder), ENCODER.encode_queries([f"text {i}" for i in range(80)]))
    found = all_parts(folder, read_plan(folder))
    assert [name for part in found for name in part.ids()] == [f"d{i}" for i in range(80)]
    assert [part.damage() for part in found] == [None] * 5
    manifest = found[0].manifest
    assert (manifest.rows, manifest.space) == (20, ENCODER.space) and len(manifest.sha256[VECTORS]) == 64
    assert not folder.names(".claim")
    again = embed(source, target)
    assert again.encoded == 0 and sorted(m.stem for m in again.manifests) == sorted(p.manifest.stem for p in found)


def test_vectors_are_a_plain_npy_file(source, tmp_path):
    target = Storage.at(str(tmp_path / "target"))
    embed(source, target)
    part = all_parts(folder_of(target), read_plan(folder_of(target)))[1]
    stored = np.load(tmp_path / "target" / ENCODER.space.fingerprint / (part.manifest.stem + VECTORS))
    np.testing.assert_array_equal(stored, ENCODER.encode_queries([f"text {i}" for i in range(20, 30)]))


def test_a_second_model_does_not_touch_the_first(source, target):
    embed(source, target)
    before = vectors_in(folder_of(target))
    embed(source, target, "1")
    assert len(target.folders()) == 2
    np.testing.assert_array_equal(vectors_in(folder_of(target)), before)


def test_a_worker_with_another_model_is_refused(source, target):
    """Its weights differ although the name is the same."""
    report = embed_shards(source, target, "0", ENCODER, POOL, make_encoder=lambda name: FakeEncoder(7), rows=25)
    assert report.encoded == 0 and len(report.failures) == 5
    assert all(isinstance(error, SpaceMismatch) for error in report.failures.values())
    folder = folder_of(target)
    assert folder.names() == ["plan.json"]
    with pytest.raises(StorageError, match="5 of 5 pieces are not finished.*embed` again"):
        all_parts(folder, read_plan(folder))


def damage_manifest(folder, part):
    folder.write(part.piece.key + MANIFEST, b'{"piece": ')


def shorten_vectors(folder, part):
    name = part.manifest.stem + VECTORS
    folder.write(name, folder.read(name)[:-4])


def lose_ids(folder, part):
    folder.remove(part.manifest.stem + parts.IDS)


def another_space(folder, part):
    manifest = part.manifest.model_copy(update={"space": FakeEncoder(3).space})
    folder.write(part.piece.key + MANIFEST, manifest.to_bytes())


def path_of_another_folder(folder, part):
    content = json.loads(part.manifest.to_bytes()) | {"stem": "../elsewhere"}
    folder.write(part.piece.key + MANIFEST, json.dumps(content).encode())


@pytest.mark.parametrize(
    "damage",
    [damage_manifest, shorten_vectors, lose_ids, another_space, path_of_another_folder],
    ids=lambda f: f.__name__,
)
def test_a_damaged_piece_is_done_again_and_no_other(source, target, damage):
    embed(source, target)
    folder = folder_of(target)
    damage(folder, all_parts(folder, read_plan(folder))[3])
    assert embed(source, target).encoded == 25
    np.testing.assert_array_equal(vectors_in(folder), ENCODER.encode_queries([f"text {i}" for i in range(80)]))


def test_a_flipped_bit_is_found_by_the_checksum(source, target):
    embed(source, target)
    folder = folder_of(target)
    part = all_parts(folder, read_plan(folder))[0]
    content = bytearray(folder.read(part.manifest.stem + VECTORS))
    content[-3] ^= 1
    folder.write(part.manifest.stem + VECTORS, bytes(content))
    assert "checksum" in part.damage()


def task_of(source, target, number=0, driver="one"):
    plan = find_pieces(source, Columns(), rows=25)
    return Task(source, folder_of(target), plan[number], Columns(), "0", ENCODER.space, driver, make_encoder)


def test_of_two_workers_on_one_piece_the_first_counts(source, target, monkeypatch):
    """The second one finishes after the first: its files are removed, and both report the same manifest."""
    original, first = shards.write_part, []

    def overtaken(*args):
        if not first:
            first.append(None)
            first.append(embed_piece(task_of(source, target)))
        return original(*args)

    monkeypatch.setattr(shards, "write_part", overtaken)
    second = embed_piece(task_of(source, target))
    assert first[1] == second
    assert folder_of(target).names(VECTORS) == [second.stem + VECTORS]


def test_a_claim_keeps_others_away_until_it_is_old(target, monkeypatch):
    mine, theirs = Claim(target, "x.claim", "one"), Claim(target, "x.claim", "two")
    assert mine.take() and not theirs.take()
    assert Claim(target, "x.claim", "one").take()  # the driver gave the piece to another of its workers
    now = claims.time.time()
    monkeypatch.setattr(claims.time, "time", lambda: now + claims.LEASE_S + 1)
    assert theirs.take() and not mine.take()
    mine.release()
    assert not mine.take()
    theirs.release()
    assert mine.take()


def test_a_renewed_claim_does_not_expire(target, monkeypatch):
    mine, theirs = Claim(target, "x.claim", "one"), Claim(target, "x.claim", "two")
    mine.take()
    clock = claims.time.time(), claims.time.monotonic()
    for seconds in (claims.LEASE_S - 1, 2 * claims.LEASE_S - 2):
        monkeypatch.setattr(claims.time, "time", lambda later=seconds: clock[0] + later)
        monkeypatch.setattr(claims.time, "monotonic", lambda later=seconds: clock[1] + later)
        assert not theirs.take()
        mine.renew()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"driver": "two", "time": "soon"}'])
def test_a_damaged_claim_is_taken_over(target, content):
    target.write("x.claim", content)
    assert Claim(target, "x.claim", "one").take()


def test_what_another_driver_does_is_waited_for(source, target, monkeypatch):
    other = task_of(source, target, 2, driver="two")
    folder = folder_of(target)
    assert Claim(folder, other.piece.key + shards.CLAIM, "two").take()

    def meanwhile(seconds):
        assert finished(folder, other.piece, ENCODER.space) is None
        embed_piece(other)

    monkeypatch.setattr(shards.time, "sleep", meanwhile)
    report = embed(source, target)
    assert report.encoded == 60 and len(report.manifests) == 5


def test_an_interrupted_call_leaves_no_claims_of_its_own(source, target, monkeypatch):
    """Otherwise the next call would wait until they expire."""

    def interrupted(*args):
        raise KeyboardInterrupt

    folder, pieces = folder_of(target), find_pieces(source, Columns(), rows=25)
    for piece, driver in ((pieces[0], "one"), (pieces[4], "other")):
        Claim(folder, piece.key + shards.CLAIM, driver).take()
    monkeypatch.setattr(shards, "_round", interrupted)
    monkeypatch.setattr(shards.uuid, "uuid4", lambda: SimpleNamespace(hex="one"))
    with pytest.raises(KeyboardInterrupt):
        embed(source, target)
    assert folder.names(shards.CLAIM) == [pieces[4].key + shards.CLAIM]


def test_files_of_killed_workers_are_removed_and_nothing_else(source, target):
    embed(source, target)
    folder = folder_of(target)
    plan = read_plan(folder)
    folder.write(f"{plan.pieces[0].key}-0123456789ab{VECTORS}", b"half")
    folder.write("mine.npy", b"not ours")
    files = set(folder.names())
    assert remove_orphans(folder, plan) == 1
    assert files - set(folder.names()) == {f"{plan.pieces[0].key}-0123456789ab{VECTORS}"}


def test_one_bad_piece_does_not_stop_the_others(source, target, tmp_path):
    table = documents(30, 45).to_pydict()
    table["text"][3] = None
    pq.write_table(pa.table(table), tmp_path / "source" / "b.parquet", row_group_size=20)
    report = embed(source, target)
    ((piece, error),) = report.failures.items()
    assert (piece.file, report.encoded) == ("b.parquet", 60)
    assert "b.parquet [text]: document 33 has no value" in str(error)
    assert not folder_of(target).names(".claim")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": ["a"], "text": ["x"]}, r"\[id\]: The column is missing. The columns are name, text"),
        ({"id": ["a"], "text": [1.5]}, r"\[text\]: Expected text, got double"),
        ({"id": [1.5], "text": ["x"]}, r"\[id\]: Expected text, got double"),
    ],
)
def test_a_file_without_the_columns_is_refused_before_anything_is_done(tmp_path, table, message):
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=f"(?i){message}"):
        find_pieces(Storage.at(str(tmp_path)), Columns())


def test_what_is_no_parquet_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="there are no documents"):
        find_pieces(Storage.at(str(tmp_path)), Columns())
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(DataError, match="a.parquet.*cannot be read as Parquet"):
        find_pieces(Storage.at(str(tmp_path)), Columns())


def test_integer_ids_and_other_columns(tmp_path, target):
    table = pa.table({"number": [7, 8], "body": pa.array(["one", "two"], pa.large_string()), "extra": [None, 1]})
    pq.write_table(table, tmp_path / "a.parquet")
    embed(Storage.at(str(tmp_path)), target, columns=Columns("number", "body"))
    (part,) = all_parts(folder_of(target), read_plan(folder_of(target)))
    assert part.ids() == ["7", "8"]


def test_an_id_that_comes_twice_is_an_error(tmp_path, target):
    pq.write_table(pa.table({"id": ["a", "b", "a"], "text": ["x", "y", "z"]}), tmp_path / "a.parquet")
    report = embed(Storage.at(str(tmp_path)), target)
    assert "two documents have the id 'a'" in str(*report.failures.values())


class TestSearch:
    QUERIES = FakeEncoder(0).encode_queries([f"query {i}" for i in range(6)] + ["text 33", "text 79"])

    def test_equals_one_search_over_everything(self, source, target):
        embed(source, target)
        folder = folder_of(target)
        scores, rows = search(self.QUERIES, vectors_in(folder), 30)  # more than some pieces have
        top = search_shards(folder, read_plan(folder), self.QUERIES, 30, POOL)
        np.testing.assert_array_equal(top.documents, rows)
        np.testing.assert_allclose(top.scores, scores, rtol=0, atol=1e-6)
        ranking = named(top, list("abcdefgh"), all_parts(folder, read_plan(folder)))
        assert ranking.doc_ids[6, 0] == "d33" and ranking.doc_ids[7, 0] == "d79"
        assert ranking.doc_ids.tolist() == [[f"d{row}" for row in found] for found in rows.tolist()]

    def test_more_ranks_than_documents_stay_empty(self, source, target):
        embed(source, target)
        top = search_shards(folder_of(target), read_plan(folder_of(target)), self.QUERIES, 100, POOL)
        assert (top.documents[:, 80:] == -1).all() and np.isneginf(top.scores[:, 80:]).all()
        assert (top.documents[:, :80] >= 0).all()

    def test_an_unfinished_piece_is_an_error(self, source, target):
        embed(source, target)
        folder = folder_of(target)
        folder.remove(read_plan(folder).pieces[2].key + MANIFEST)
        with pytest.raises(StorageError, match="1 of 5 pieces are not finished"):
            search_shards(folder, read_plan(folder), self.QUERIES, 3, POOL)

    def test_merging_does_not_depend_on_the_order(self):
        """Against a stable sort of everything; scores of few values, so that many tie."""
        rng = np.random.default_rng(0)
        scores = rng.integers(0, 4, size=(3, 40)) / 4
        expected = np.stack([np.lexsort((np.arange(40), -row))[:7] for row in scores])
        for _ in range(5):
            top = TopK(3, 7)
            for part in np.array_split(rng.permutation(40), 6):
                top.add(scores[:, part], np.tile(part, (3, 1)))
            np.testing.assert_array_equal(top.documents, expected)
            np.testing.assert_array_equal(top.scores, np.take_along_axis(scores, expected, 1))

    def test_ranking_file(self, source, target, tmp_path):
        embed(source, target)
        folder = folder_of(target)
        top = search_shards(folder, read_plan(folder), self.QUERIES, 3, POOL)
        top.documents[1, 2], top.scores[1, 2] = -1, -np.inf
        ranking = named(top, [f"q{i}" for i in range(8)], all_parts(folder, read_plan(folder)))
        write_ranking(ranking, tmp_path / "ranking.parquet")
        assert read_ranking(tmp_path / "ranking.parquet").as_candidates() == ranking.as_candidates()
        assert len(ranking.as_candidates()["q1"]) == 2

    def test_a_file_that_is_no_ranking(self, tmp_path):
        pq.write_table(documents(0, 3), tmp_path / "a.parquet")
        (tmp_path / "b.parquet").write_bytes(b"x")
        for name in ("a.parquet", "b.parquet", "c.parquet"):
            with pytest.raises(DataError, match=f"{name}.*cannot be read as a ranking"):
                read_ranking(tmp_path / name)


class TestIndex:
    ROWS, DIM, LISTS = 3000, 16, 8
    SPEC = IndexSpec(kind="ivfpq", lists=LISTS, code_bytes=8, nprobe=2, shortlist=20)

    @pytest.fixture(scope="class")
    def built(self, tmp_path_factory):
        place = tmp_path_factory.mktemp("indexed")
        pq.write_table(documents(0, self.ROWS), place / "a.parquet", row_group_size=700)
        target = Storage.at(str(place / "target"))
        embed_shards(Storage.at(str(place)), target, "0", ENCODER, POOL, make_encoder=make_encoder, rows=700)
        folder = folder_of(target)
        plan = read_plan(folder)
        return folder, plan, all_parts(folder, plan)

    def test_all_lists_and_candidates_give_the_exact_result(self, built):
        """Then nothing but the numbering of documents and the merging of pieces can be wrong."""
        folder, plan, parts = built
        queries, every = FakeEncoder(0).encode_queries([f"query {i}" for i in range(20)]), {"shortlist": self.ROWS}
        exact = search_shards(folder, plan, queries, 10, POOL)
        merged = build_shard_index(folder, plan, parts, self.SPEC, POOL, merged=True)
        assert merged.sizes["merged.lists"] == self.ROWS * (8 * 6 // 8 + 8)  # 8 codes of 6 bits, and a number
        for index in (merged, build_shard_index(folder, plan, parts, self.SPEC, POOL)):
            assert len(index.files) == (2 if index.merged else len(parts) + 1)
            thorough = index.model_copy(update={"spec": self.SPEC.model_copy(update=every)})
            top = search_shard_index(thorough, parts, queries, 10, POOL, nprobe=self.LISTS)
            np.testing.assert_array_equal(top.documents, exact.documents)
            np.testing.assert_allclose(top.scores, exact.scores, atol=1e-6)
        assert read_shard_index(folder, parts) == index

    def test_recall_is_that_of_the_documents_found(self, built):
        """Uses the index that the last test has left."""
        folder, plan, parts = built
        queries = FakeEncoder(0).encode_queries([f"query {i}" for i in range(30)])
        index = read_shard_index(folder, parts)
        exact = search_shards(folder, plan, queries, 5, POOL)
        measured = measure_recall(index, parts, queries, exact, POOL, nprobes=(1, self.LISTS))
        for row in measured.recall:
            top = search_shard_index(index, parts, queries, 5, POOL, nprobe=row.nprobe)
            pairs = zip(top.documents.tolist(), exact.documents.tolist(), strict=True)
            assert row.recall == pytest.approx(np.mean([len({*a} & {*b}) / 5 for a, b in pairs]))
        assert measured.recall[0].recall < measured.recall[1].recall
        assert folder.read("index.json") == measured.model_dump_json(indent=1).encode() and measured.k == 5

    def test_damage_and_other_documents_are_errors(self, built):
        folder, _, parts = built
        index = read_shard_index(folder, parts)
        name = next(name for name in index.files if name.endswith(".ivfpq"))
        content = bytearray(folder.read(name))
        content[len(content) // 2] ^= 1
        folder.write(name, bytes(content))
        with pytest.raises(StorageError, match="checksum does not match.*shards index` again"):
            search_shard_index(index, parts, ENCODER.encode_queries(["x"]), 3, POOL)
        with pytest.raises(StorageError, match="covers other documents"):
            read_shard_index(folder, parts[:-1])
        folder.write("index.json", b"{")
        with pytest.raises(StorageError, match="the index is damaged"):
            read_shard_index(folder, parts)

    def test_a_remote_folder_cannot_be_merged(self, source):
        target = Storage.at("memory://merged")
        embed(source, target)
        folder = folder_of(target)
        plan = read_plan(folder)
        with pytest.raises(ParameterError, match="needs a local folder"):
            build_shard_index(folder, plan, all_parts(folder, plan), self.SPEC, POOL, merged=True)


class TestStorage:
    @pytest.mark.parametrize("name", ["../x", "a/b", "..", "", "a\\b", "x*", "a\nb"])
    def test_names_stay_inside(self, target, name):
        for action in (target.read, target.size, lambda n: target.write(n, b""), target.within):
            with pytest.raises(ParameterError, match="is not a plain name"):
                action(name)

    def test_a_link_out_of_the_folder_is_not_followed(self, tmp_path):
        (tmp_path / "inside").mkdir()
        (tmp_path / "secret").write_text("x")
        (tmp_path / "inside" / "link").symlink_to(tmp_path / "secret")
        with pytest.raises(ParameterError, match="is a link to another place"):
            Storage.at(str(tmp_path / "inside")).read("link")

    @pytest.mark.parametrize(
        ("place", "message"),
        [
            ("s3://user:secret12@bucket/x", "holds a key"),
            ("simplecache::s3://bucket", "is not a folder"),
            ("", "is not a folder"),
            ("nothing://bucket", "unknown protocol"),
        ],
    )
    def test_places_that_are_refused(self, place, message):
        with pytest.raises(ParameterError, match=message) as error:
            Storage.at(place)
        assert "secret12" not in str(error.value)

    def test_a_commit_counts_once(self, target):
        assert target.commit_once("x", b"one") and not target.commit_once("x", b"two")
        assert target.read("x") == b"one"

    def test_a_file_that_fails_half_way_is_not_there(self, target):
        with pytest.raises(ZeroDivisionError), target.writing("x") as file:
            file.write(b"half")
            raise ZeroDivisionError
        assert target.names() == []

    def test_errors_of_the_storage_are_one_line_without_keys(self, target, monkeypatch):
        class Refusing:
            def cat_file(self, *args, **kwargs):
                raise PermissionError("403 for https://host/x?token=abcdefgh12345678 Forbidden")

        monkeypatch.setattr(Storage, "_system", Refusing())
        monkeypatch.setattr(Storage, "local", None)
        with pytest.raises(StorageError, match="403 for .*token=.key. Forbidden.*Check the address"):
            target.read("x")


def test_an_error_survives_the_way_to_another_process():
    import pickle

    error = DataError("it is broken", remedy="Repair it", file="a.csv", line=3, field="text")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is DataError and str(copy) == str(error)
    assert (copy.problem, copy.remedy, copy.line) == ("it is broken", "Repair it", 3)


class TestCommands:
    @pytest.fixture
    def call(self, monkeypatch):
        monkeypatch.setattr(cli, "make_encoder", lambda model, device=None: FakeEncoder(int(model)))

        def run(*arguments, exit_code=0):
            result = CliRunner().invoke(deploy_cli.app, ["shards", *map(str, arguments)], terminal_width=200)
            assert result.exit_code == exit_code, (result.output, result.exception)
            return result.output

        return run

    def test_embed_status_search(self, call, source, tmp_path):
        place = ("source", "target")
        documents_folder, folder = (tmp_path / name for name in place)
        assert "80 documents in 5 pieces: 80 encoded" in call(
            "embed", documents_folder, folder, "--model", 0, "--rows", 25
        )
        assert ": 0 encoded" in call("embed", documents_folder, folder, "--model", 0, "--rows", 25)
        assert "80 of 80 documents, 0 pieces damaged" in call("status", folder, "--verify")
        assert "d42" in call("search", folder, "--query", "text 42", "-k", 2)
        assert "recall@10" in call("index", folder, "--lists", 2, "--code-bytes", 8)
        assert "d42" in call("search", folder, "--query", "text 42", "-k", 2, "--index")
        queries = tmp_path / "queries.csv"
        queries.write_text("id,query\nq1,text 3\nq2,text 79\n")
        call("search", folder, "--queries", queries, "-k", 5, "--output", tmp_path / "found.parquet")
        candidates = read_ranking(tmp_path / "found.parquet").as_candidates()
        assert {query: found[0][0] for query, found in candidates.items()} == {"q1": "d3", "q2": "d79"}
        assert all(len(found) == 5 for found in candidates.values())

    def test_status_finds_damage_and_embed_repairs_it(self, call, source, tmp_path):
        documents_folder, folder = tmp_path / "source", tmp_path / "target"
        call("embed", documents_folder, folder, "--model", 0, "--rows", 25)
        path = next((folder / ENCODER.space.fingerprint).glob("*.npy"))
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        assert "80 of 80 documents" in call("status", folder)
        assert "1 pieces damaged" in call("status", folder, "--verify", exit_code=1)
        call("embed", documents_folder, folder, "--model", 0, "--rows", 25)
        call("status", folder, "--verify")

    def test_a_failed_piece_is_exit_code_1(self, call, tmp_path):
        pq.write_table(pa.table({"id": ["a", None], "text": ["x", "y"]}), tmp_path / "a.parquet")
        call("embed", tmp_path, tmp_path / "target", "--model", 0, exit_code=1)

    def test_two_models_need_a_choice(self, call, source, tmp_path):
        for model in (0, 1):
            call("embed", tmp_path / "source", tmp_path / "target", "--model", model)
        result = CliRunner().invoke(cli.app, ["search", str(tmp_path / "target"), "--query", "x"])
        assert isinstance(result.exception, ParameterError) and "has vectors of" in str(result.exception)
        assert "d5" in call("search", tmp_path / "target", "--query", "text 5", "--model", 1)

    def test_a_model_that_changed_is_refused(self, call, source, tmp_path, monkeypatch):
        call("embed", tmp_path / "source", tmp_path / "target", "--model", 0)
        monkeypatch.setattr(cli, "make_encoder", lambda model, device=None: FakeEncoder(5))
        result = CliRunner().invoke(cli.app, ["search", str(tmp_path / "target"), "--query", "x"])
        assert isinstance(result.exception, SpaceMismatch)


def test_the_space_is_part_of_every_manifest(source, target):
    embed(source, target)
    folder = folder_of(target)
    piece = read_plan(folder).pieces[0]
    assert finished(folder, piece, replace(ENCODER.space, query_prompt="query: ")) is None


def test_errors_are_expected_ones():
    assert issubclass(SpaceMismatch, EmbedlabError)
