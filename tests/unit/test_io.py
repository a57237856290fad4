"""File operations: the old content or the new, one winner per commit, one holder per lock."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from embedlab import io
from embedlab.errors import ParameterError, StorageError


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
    path = tmp_path / "runs" / "run" / "record.json"
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


class TestConfined:
    def test_names_stay_in_the_folder(self, tmp_path):
        assert io.confined(tmp_path, "03_contrastive-f492a1d4-s0") == tmp_path / "03_contrastive-f492a1d4-s0"
        assert io.confined(tmp_path, "attempts/a b/é.csv", single=False) == tmp_path / "attempts/a b/é.csv"

    @pytest.mark.parametrize(
        "name",
        ["", ".", "..", "/etc", "../x", "a/../../x", "a//b", "a/./b", "a/", "/", "a\x00b", "a\nb", "a\x1b[2J", "..\\x"],
    )
    def test_every_other_name_is_refused(self, tmp_path, name):
        for single in (True, False):
            with pytest.raises(ParameterError, match=r"\[run\]"):
                io.confined(tmp_path / "home", name, field="run", single=single)

    def test_a_plain_name_has_no_slash(self, tmp_path):
        with pytest.raises(ParameterError, match="'a/b' is not a plain name"):
            io.confined(tmp_path, "a/b")

    def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_followed(self, tmp_path):
        (tmp_path / "home" / "kept").mkdir(parents=True)
        (tmp_path / "home" / "out").symlink_to(tmp_path)
        (tmp_path / "home" / "in").symlink_to(tmp_path / "home" / "kept")
        with pytest.raises(ParameterError, match="is a link to another place"):
            io.confined(tmp_path / "home", "out/x", single=False)
        assert io.confined(tmp_path / "home", "in") == tmp_path / "home" / "in"


class TestReplaceContents:
    def make(self, tmp_path, **files):
        for name, text in files.items():
            path = tmp_path / "source" / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "source"

    def contents(self, folder):
        return {
            path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("[!.]*") if path.is_file()
        }

    def test_files_of_an_earlier_call_go_and_those_of_others_stay(self, tmp_path):
        target = tmp_path / "site"
        io.replace_contents(target, self.make(tmp_path, index="1", old__page="2"))
        (target / "thesis.txt").write_text("mine")
        (target / "old" / "mine.txt").write_text("mine too")
        io.replace_contents(target, self.make(tmp_path, index="3", new__page="4"))
        others = {"thesis.txt": "mine", "old/mine.txt": "mine too"}
        assert self.contents(target) == {"index": "3", "new/page": "4"} | others

    def test_a_folder_of_somebody_else_is_refused_unchanged(self, tmp_path):
        (tmp_path / "docs").mkdir()
        (tmp_path / "docs" / "thesis.txt").write_text("mine")
        (tmp_path / "link").symlink_to(tmp_path / "docs")
        for target in (tmp_path / "docs", tmp_path / "link", tmp_path / "docs" / "thesis.txt"):
            with pytest.raises(StorageError):
                io.replace_contents(target, self.make(tmp_path, index="1"))
        assert self.contents(tmp_path / "docs") == {"thesis.txt": "mine"}

    def test_nothing_is_written_over_a_file_of_somebody_else(self, tmp_path):
        target = tmp_path / "site"
        io.replace_contents(target, self.make(tmp_path, index="1"))
        (target / "page").write_text("mine")
        with pytest.raises(StorageError, match="embedlab did not write this file"):
            io.replace_contents(target, self.make(tmp_path, index="2", page="3"))
        assert self.contents(target) == {"index": "1", "page": "mine"}

    def test_a_list_that_names_files_elsewhere_is_refused(self, tmp_path):
        target = tmp_path / "site"
        io.replace_contents(target, self.make(tmp_path, index="1"))
        (tmp_path / "thesis.txt").write_text("mine")
        (target / io.CONTENTS).write_text("../thesis.txt\n")
        with pytest.raises(ParameterError):
            io.replace_contents(target, self.make(tmp_path, index="2"))
        assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.fixture
def synced(monkeypatch, tmp_path):
    """Every fsync, in order: of a file or a folder, and whether `tmp_path/folder/file` exists by then."""
    calls, fsync = [], os.fsync

    def record(descriptor):
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        calls.append((kind, (tmp_path / "folder" / "file").exists()))
        fsync(descriptor)

    monkeypatch.setattr(io.os, "fsync", record)
    return calls


def test_content_is_on_the_disk_before_its_name_and_then_the_name_too(synced, tmp_path):
    """After a power cut the new name never stands for half a file, and a finished call is not forgotten."""
    path = tmp_path / "folder" / "file"
    assert io.commit_once(path, b"x")
    assert synced == [("file", False), ("folder", True)]
    path.unlink()
    synced.clear()
    io.write_atomic(path, "x")
    assert synced == [("file", False), ("folder", True)]
    synced.clear()
    io.append_line(path, "y")
    io.write_synced(path, b"z")
    io.fsync(path.parent)
    assert synced == [("file", True), ("file", True), ("folder", True)]
