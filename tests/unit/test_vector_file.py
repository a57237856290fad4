"""Vectors on disk: every fault of the file or the disk costs time, and never a run or a result."""

from __future__ import annotations

import multiprocessing
import os
import random
import sqlite3
import threading

import numpy as np
import pytest

from embedlab.io import locked
from embedlab.models import vector_file
from embedlab.models.vector_file import VectorFile

DIM = 16
KEYS = [f"key-{i:012d}".encode() for i in range(300)]
VECTORS = np.random.default_rng(0).normal(size=(len(KEYS), DIM)).astype(np.float32)
EXPECTED = dict(zip(KEYS, VECTORS, strict=True))


@pytest.fixture
def path(tmp_path):
    """A file with all vectors, closed."""
    path = tmp_path / "space.sqlite"
    fill(path)
    return path


def fill(path):
    file = VectorFile(path, DIM)
    file.add(KEYS, VECTORS)
    assert file.is_usable


def read(path):
    """Read all keys; every vector that is returned must be the right one."""
    file = VectorFile(path, DIM)
    vectors = file.read(KEYS)
    for key, vector in vectors.items():
        np.testing.assert_array_equal(vector, EXPECTED[key])
    return vectors, file.is_usable


def change(path, statement, *values):
    with sqlite3.connect(path) as database:
        database.execute(statement, values)
    database.close()


def test_what_is_stored_is_read(path, caplog):
    assert read(path)[0].keys() == set(KEYS)
    assert caplog.text == ""


@pytest.mark.parametrize(
    "damage",
    ["UPDATE vectors SET vector = ?", "UPDATE vectors SET vector = zeroblob(60)", "UPDATE vectors SET vector = 'text'"],
    ids=["flipped bit", "wrong length", "wrong type"],
)
def test_a_damaged_vector_is_left_out_said_once_and_replaced(path, caplog, damage):
    flipped = bytearray(VECTORS[7].tobytes())
    flipped[3] ^= 1
    change(path, f"{damage} WHERE key = ?", *([bytes(flipped)] if "?" in damage else []), KEYS[7])
    vectors, usable = read(path)
    assert vectors.keys() == set(KEYS) - {KEYS[7]} and usable
    assert caplog.messages == [f"{path}: 1 cached vectors are damaged. They are encoded again."]
    caplog.clear()
    fill(path)
    assert read(path)[0].keys() == set(KEYS)
    assert caplog.text == ""


def test_a_vector_under_another_key_is_damage(path):
    other = VECTORS[1].tobytes()
    change(path, "UPDATE vectors SET vector = ?, checksum = (SELECT checksum FROM vectors WHERE key = ?) WHERE key = ?",
           other, KEYS[1], KEYS[0])  # fmt: skip
    assert KEYS[0] not in read(path)[0]


def test_vectors_with_nan_are_not_stored(tmp_path):
    file = VectorFile(tmp_path / "space.sqlite", DIM)
    vectors = VECTORS[:3].copy()
    vectors[1, 0], vectors[2, 5] = np.nan, np.inf
    file.add(KEYS[:3], vectors)
    assert list(file.read(KEYS[:3])) == KEYS[:1]


def damage_pages(path):
    content = bytearray(path.read_bytes())
    for start in range(4096, len(content), 4096):
        content[start : start + 64] = b"\xff" * 64
    path.write_bytes(content)


DAMAGED_FILES = {
    "not a database": lambda path: path.write_bytes(b"not a database" * 500),
    "pages": damage_pages,
    "truncated": lambda path: os.truncate(path, 4096 * 3),
    "truncated within a page": lambda path: os.truncate(path, 4096 * 3 + 100),
    "other table": lambda path: change(path, "ALTER TABLE vectors RENAME COLUMN checksum TO sum"),
    "no table": lambda path: change(path, "DROP TABLE vectors"),
}


@pytest.mark.parametrize("damage", DAMAGED_FILES.values(), ids=DAMAGED_FILES)
def test_a_damaged_file_is_moved_aside_and_filled_again(path, caplog, damage):
    damage(path)
    _, usable = read(path)
    assert usable
    assert f"{path} is damaged" in caplog.text and "space.damaged" in caplog.text
    assert path.with_suffix(".damaged").exists()
    caplog.clear()
    fill(path)
    assert read(path)[0].keys() == set(KEYS)
    assert caplog.text == ""


def test_an_empty_file_is_a_new_one(path, caplog):
    path.write_bytes(b"")
    fill(path)
    assert read(path)[0].keys() == set(KEYS) and caplog.text == ""


@pytest.mark.parametrize("seed", range(60))
def test_damage_anywhere_never_gives_a_wrong_vector_and_never_stops_the_next_run(path, seed, caplog):
    """Random bytes, zeros or a cut anywhere in the file."""
    rng = random.Random(seed)
    content = bytearray(path.read_bytes())
    start, size = rng.randrange(len(content)), rng.choice([1, 16, 512, 4096])
    if seed % 4 == 0:
        del content[start:]
    else:
        content[start : start + size] = rng.randbytes(size) if seed % 2 else bytes(size)
    path.write_bytes(content)
    for _ in range(5):  # damage may show only when a later run writes
        vectors, usable = read(path)
        assert usable
        missing = [row for row, key in enumerate(KEYS) if key not in vectors]
        file = VectorFile(path, DIM)
        file.add([KEYS[row] for row in missing], VECTORS[missing])
        file.trim(1 << 30)
    caplog.clear()
    assert read(path)[0].keys() == set(KEYS) and caplog.text == ""


def test_a_file_of_the_format_without_checksums_is_filled_again_without_a_word(tmp_path, caplog):
    path = tmp_path / "space.sqlite"
    change(path, "CREATE TABLE vectors (key BLOB PRIMARY KEY, vector BLOB, used INTEGER)")
    change(path, "INSERT INTO vectors VALUES (?, ?, 0)", KEYS[0], VECTORS[1].tobytes())
    assert read(path) == ({}, True)
    fill(path)
    assert read(path)[0].keys() == set(KEYS) and caplog.text == ""


def assert_ignored(path, caplog):
    """Nothing can be read or stored, nothing is raised, and one message names the file."""
    file = VectorFile(path, DIM)
    assert file.read(KEYS) == {}
    file.add(KEYS, VECTORS)
    file.trim(1)
    assert not file.is_usable
    assert caplog.text.count("cannot be used") == 1 and str(path) in caplog.text


def test_a_locked_file_is_ignored(path, caplog, monkeypatch):
    monkeypatch.setattr(vector_file, "LOCK_TIMEOUT_S", 0.01)
    other = sqlite3.connect(path)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    other.execute("DELETE FROM vectors")
    assert_ignored(path, caplog)
    assert "locked" in caplog.text
    other.rollback()
    other.close()
    assert read(path)[0].keys() == set(KEYS)


def test_what_was_read_before_a_lock_is_returned(path, caplog, monkeypatch):
    """Another writer holds the lock: reading works in WAL mode, only noting the use does not."""
    monkeypatch.setattr(vector_file, "LOCK_TIMEOUT_S", 0.01)
    other = sqlite3.connect(path)
    other.execute("BEGIN IMMEDIATE")
    vectors, usable = read(path)
    assert vectors.keys() == set(KEYS) and not usable and "locked" in caplog.text
    other.close()


def test_a_full_disk_is_ignored(tmp_path, caplog, monkeypatch):
    connect = sqlite3.connect

    def small_disk(*args, **options):
        database = connect(*args, **options)
        database.execute("PRAGMA max_page_count = 4")
        return database

    monkeypatch.setattr(vector_file.sqlite3, "connect", small_disk)
    assert_ignored(tmp_path / "space.sqlite", caplog)
    assert "full" in caplog.text


def test_a_folder_in_the_place_of_the_file_is_ignored(tmp_path, caplog):
    (tmp_path / "space.sqlite").mkdir()
    assert_ignored(tmp_path / "space.sqlite", caplog)


def test_a_file_in_the_place_of_the_folder_is_ignored(tmp_path, caplog):
    (tmp_path / "cache").write_text("")
    assert_ignored(tmp_path / "cache" / "space.sqlite", caplog)


def work(path, failures):
    for _ in range(5):
        file = VectorFile(path, DIM)
        vectors = file.read(KEYS)
        wrong = [key for key, vector in vectors.items() if not np.array_equal(vector, EXPECTED[key])]
        file.add(KEYS, VECTORS)
        if wrong or not file.is_usable:
            failures.put((wrong, file.is_usable))


@pytest.mark.parametrize("damaged", [False, True])
def test_processes_share_a_file(path, damaged):
    """Also one that all of them find damaged: they end with one whole file."""
    if damaged:
        damage_pages(path)
    context = multiprocessing.get_context("spawn")
    failures = context.Queue()
    processes = [context.Process(target=work, args=(path, failures)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0] and failures.empty()
    assert read(path)[0].keys() == set(KEYS)


def test_a_file_that_another_process_has_just_moved_aside_is_started_again(path, monkeypatch):
    damage_pages(path)
    locked = vector_file.locked

    def after_another(lock, **options):
        if not options.get("shared"):
            path.replace(path.with_suffix(".damaged"))
        return locked(lock, **options)

    monkeypatch.setattr(vector_file, "locked", after_another)
    assert read(path) == ({}, True)


def test_a_file_is_not_moved_aside_while_another_process_uses_it(path):
    damage_pages(path)
    with locked(path.with_suffix(".lock"), shared=True):
        reader = threading.Thread(target=read, args=(path,))
        reader.start()
        reader.join(timeout=0.5)
        assert reader.is_alive() and not path.with_suffix(".damaged").exists()
    reader.join()
    assert path.with_suffix(".damaged").exists()


def test_trim_deletes_the_least_recently_used(path):
    change(path, "UPDATE vectors SET used = 1")
    change(path, "UPDATE vectors SET used = 2 WHERE key IN (?, ?)", KEYS[5], KEYS[9])
    file = VectorFile(path, DIM)
    file.trim(2 * DIM * 4)
    assert set(file.read(KEYS)) == {KEYS[5], KEYS[9]}
