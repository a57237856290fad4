"""File operations: the old content or the new, one winner per commit, one holder per lock."""

from __future__ import annotations

import hashlib
import multiprocessing
from pathlib import Path

import pytest

from embedlab import io
from embedlab.errors import StorageError


def test_atomic_write_replaces_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "new" / "file.txt"
    io.write_atomic(path, "old")
    io.write_atomic(path, b"\xc3\xa9")
    assert path.read_text(encoding="utf-8") == "é"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_content(tmp_path):
    path = tmp_path / "file.txt"
    io.write_atomic(path, "old")
    with pytest.raises(ZeroDivisionError), io.atomic_path(path) as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_only_the_first_commit_wins(tmp_path):
    path = tmp_path / "run" / "record.json"
    assert [io.commit_once(path, content) for content in (b"first", b"second")] == [True, False]
    assert path.read_bytes() == b"first" and list(path.parent.iterdir()) == [path]


def _commit(path: Path, number: int) -> bool:
    return io.commit_once(path, str(number).encode())


def test_of_many_processes_one_commits(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        created = pool.starmap(_commit, [(tmp_path / "record.json", number) for number in range(40)])
    assert sum(created) == 1
    assert (tmp_path / "record.json").read_text() == str(created.index(True))


def test_a_lock_is_held_and_released(tmp_path):
    lock = tmp_path / "folder" / "lock"
    with io.locked(lock), pytest.raises(StorageError, match="another process"), io.locked(lock, wait=False):
        pass
    with io.locked(lock, wait=False):
        pass


def test_append_and_checksum(tmp_path):
    path = tmp_path / "lines"
    for line in ("a", "b"):
        io.append_line(path, line)
    assert path.read_text() == "a\nb\n"
    assert io.sha256_of(path) == hashlib.sha256(b"a\nb\n").hexdigest()
