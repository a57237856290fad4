"""Shipping under fire: kills at every step and at random moments, full disks, races, a corpus that changes.

Whatever happens, what is served is whole and of one space, and running the same command again finishes the work.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import signal
import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from embedlab import io
from embedlab.deploy import build as building
from embedlab.deploy import versions
from embedlab.deploy.build import Source, build_version, store_of
from embedlab.deploy.embed import embed_corpus
from embedlab.deploy.indexes import IndexSpec
from embedlab.deploy.serve import open_version
from embedlab.errors import StorageError
from tests.unit.test_deploy_space import FakeEncoder

# A server that has imported everything and never ran a thread: its children start in milliseconds and may be killed.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.faults.test_deploy", "faiss"])

OLD, NEW = FakeEncoder(0), FakeEncoder(1)
DOCUMENTS = {f"d{i}": f"text {i}" for i in range(64)}
CHANGED = {**{f"d{i}": f"text {i}" for i in range(10, 64)}, "new": "a new one"}
SPEC = IndexSpec(kind="flat")
CHUNK = 8
MOMENTS = 25  # random kills


class SlowEncoder(FakeEncoder):
    """Takes a moment per chunk, so that kills fall between chunks too."""

    def encode_documents(self, texts):
        time.sleep(0.002)
        return super().encode_documents(texts)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(building, "CHUNK", CHUNK)


def ship(root: Path, encoder: FakeEncoder, documents: dict[str, str]) -> str:
    """Build and promote, as `embedlab deploy index` and `promote` do."""
    building.CHUNK = CHUNK  # in a child, which no fixture reaches
    version, _ = build_version(root, encoder, Source(documents.items()), SPEC)
    versions.promote(root, version)
    return version


def ship_and_die(root: Path, documents: dict[str, str], step: int, after: bool) -> None:
    """Ship, and be killed before or after the step-th operation that changes the disk."""
    left = count(step, -1)

    def deadly(operation):
        def run(*args, **kwargs):
            last = next(left) == 0
            if last and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = operation(*args, **kwargs)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return run

    os.fsync = deadly(os.fsync)
    for name in ("rename", "replace", "mkdir", "unlink"):
        setattr(Path, name, deadly(getattr(Path, name)))
    ship(root, NEW, documents)


def run(target, *args) -> multiprocessing.Process:
    process = SERVER.Process(target=target, args=args)
    process.start()
    return process


def assert_whole(root: Path, expected: dict[str, dict[str, str]]) -> str:
    """What is served is complete, of one space, and finds every document; returns its space's model."""
    served = open_version(root)
    model = served.space.model
    documents = expected[model]
    encoder = OLD if model == OLD.space.model else NEW
    assert served.ids == tuple(documents)
    assert served.manifest.documents == len(documents) == len(served.index.vectors)
    np.testing.assert_array_equal(served.index.vectors, encoder.encode_queries(list(documents.values())))
    ranking = served.rank(encoder, documents, 1)
    assert [names[0] for names in ranking.doc_ids] == list(documents)
    return model


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_at_every_step_leaves_the_old_or_the_new(tmp_path, after):
    """Every fsync, rename, replace, mkdir and unlink of embedding, building and promoting, one by one."""
    few = dict(list(DOCUMENTS.items())[:20])
    expected = {OLD.space.model: few, NEW.space.model: few}
    seen = []
    for step in count():
        root = tmp_path / str(step)
        ship(root, OLD, few)
        process = run(ship_and_die, root, few, step, after)
        process.join()
        seen.append(assert_whole(root, expected))
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        ship(root, NEW, few)
        assert assert_whole(root, expected) == NEW.space.model
        assert not list(root.glob("*/.draft-*"))
        assert versions.rollback(root).version.startswith(OLD.space.fingerprint)
    assert len(seen) > 15  # 3 chunks, 4 files, folders, the pointer
    assert seen == sorted(seen)  # old up to one step, new from there on


def kill_at_random_moments(tmp_path: Path, moments: int) -> set[str]:
    """Kill shippers of a changed corpus at random moments; what they had encoded is not encoded again."""
    rng, states = random.Random(0), set()
    expected = {OLD.space.model: DOCUMENTS, NEW.space.model: CHANGED}
    began = time.perf_counter()
    run(ship, tmp_path / "timed", SlowEncoder(1), CHANGED).join()
    took = time.perf_counter() - began
    for moment in range(moments):
        root, encoder = tmp_path / str(moment), FakeEncoder(1)
        ship(root, OLD, DOCUMENTS)
        process = run(ship, root, SlowEncoder(1), CHANGED)
        time.sleep(rng.random() * 1.2 * took)
        process.kill()
        process.join()
        states.add(assert_whole(root, expected))
        store = store_of(root, encoder)
        kept = len(store)
        store.close()
        ship(root, encoder, CHANGED)
        assert assert_whole(root, expected) == NEW.space.model
        assert len(encoder.encoded) == len(CHANGED) - kept
    return states


def test_kills_at_random_moments_cost_one_chunk(tmp_path):
    kill_at_random_moments(tmp_path, MOMENTS)


@pytest.mark.long
def test_kills_at_random_moments_cost_one_chunk_full_count(tmp_path):
    assert len(kill_at_random_moments(tmp_path, 500)) == 2


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", range(14))
def test_a_full_disk_is_one_clear_error_and_changes_nothing_that_is_served(tmp_path, monkeypatch, call):
    ship(tmp_path, OLD, DOCUMENTS)
    left, fsync = count(call, -1), os.fsync
    with monkeypatch.context() as patch:
        patch.setattr(io.os, "fsync", lambda descriptor: full_disk() if next(left) <= 0 else fsync(descriptor))
        with pytest.raises(StorageError, match="No space left on device.*the served version has not changed"):
            ship(tmp_path, NEW, DOCUMENTS)
    assert assert_whole(tmp_path, {OLD.space.model: DOCUMENTS}) == OLD.space.model
    ship(tmp_path, NEW, DOCUMENTS)
    assert assert_whole(tmp_path, {NEW.space.model: DOCUMENTS}) == NEW.space.model


def test_a_pointer_that_could_not_be_written_whole_is_never_read(tmp_path, monkeypatch):
    old = ship(tmp_path, OLD, DOCUMENTS)
    new, _ = build_version(tmp_path, NEW, Source(DOCUMENTS.items()), SPEC)

    write_bytes = Path.write_bytes

    def half(path, content):
        write_bytes(path, content[: len(content) // 2])
        full_disk()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half)
        with pytest.raises(StorageError, match="No space left"):
            versions.promote(tmp_path, new)
    assert versions.current(tmp_path) == old
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"current.json", ".lock"}


def promote_often(root: Path, version: str, others: str, times: int) -> None:
    for _ in range(times):
        versions.promote(root, version)
        versions.promote(root, others)


def test_two_promotions_at_once_lose_nothing(tmp_path):
    """Every promotion is in the history, each after the one it replaced: nobody overwrote what another had written."""
    shipped = [ship(tmp_path, FakeEncoder(seed), DOCUMENTS) for seed in range(4)]
    before = len(versions.read_pointer(tmp_path).previous)
    processes = [run(promote_often, tmp_path, *shipped[:2], 20), run(promote_often, tmp_path, *shipped[2:], 20)]
    while any(process.is_alive() for process in processes):
        assert open_version(tmp_path).manifest.version in shipped
    assert [process.exitcode for process in processes] == [0, 0]
    pointer = versions.read_pointer(tmp_path)
    history = [*pointer.previous, pointer.version]
    assert all(a != b for a, b in zip(history, history[1:], strict=False))
    assert {pointer.version} < set(shipped)
    # A promotion of what is served anyway adds nothing; with four versions in turn that cannot happen here.
    assert len(history) - 1 - before == 80


def test_two_builders_in_one_space_do_not_mix(tmp_path):
    folder = tmp_path / OLD.space.fingerprint
    with io.locked(folder / ".lock"), pytest.raises(StorageError, match="another process is using this folder"):
        ship(tmp_path, OLD, DOCUMENTS)
    ship(tmp_path, OLD, DOCUMENTS)


def ship_or_wait(root: Path) -> None:
    """Ship, again and again until no other process builds."""
    while True:
        try:
            ship(root, SlowEncoder(1), DOCUMENTS)
            return
        except StorageError as error:
            assert "another process is using this folder" in str(error)
            time.sleep(0.01)


def test_two_builds_at_once_make_one_version(tmp_path):
    processes = [run(ship_or_wait, tmp_path) for _ in range(3)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(versions.versions(tmp_path)) == 1
    assert not list(tmp_path.glob("*/.draft-*"))
    assert_whole(tmp_path, {NEW.space.model: DOCUMENTS})


def damage_store(root: Path) -> None:
    """Break the catalogue and flip bits of three vectors."""
    folder = root / NEW.space.fingerprint / "store"
    catalogue = bytearray((folder / "catalogue.sqlite").read_bytes())
    catalogue[4096:4200] = b"\xff" * 104
    (folder / "catalogue.sqlite").write_bytes(catalogue)
    content = bytearray((folder / "vectors.bin").read_bytes())
    for row in (3, 20, 40):
        content[row * 64] ^= 1
    (folder / "vectors.bin").write_bytes(content)


def test_a_kill_at_every_step_of_a_repair(tmp_path):
    """The store is damaged; every fsync, rename, replace, mkdir and unlink of the next build is the last one once."""
    expected = {NEW.space.model: DOCUMENTS}
    for step in count():
        root = tmp_path / str(step)
        ship(root, NEW, {"other": "text"} | DOCUMENTS)
        ship(root, NEW, DOCUMENTS)
        damage_store(root)
        versions_before = versions.versions(root)
        (root / versions_before[-1] / "vectors.npy").unlink()  # so that it must be built again from the store
        process = run(ship_and_die, root, DOCUMENTS, step, False)
        process.join()
        ship(root, FakeEncoder(1), DOCUMENTS)
        assert assert_whole(root, expected) == NEW.space.model
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    assert step > 8


def embed_part(root: Path) -> None:
    store = store_of(root, NEW)
    embed_corpus(NEW, list(DOCUMENTS.items())[:40], store, chunk=CHUNK)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_corpus_that_changes_between_kill_and_restart(tmp_path):
    """What was embedded of the old corpus is kept where its text is still there, and nothing else is served."""
    encoder = FakeEncoder(1)
    ship(tmp_path, OLD, DOCUMENTS)
    run(embed_part, tmp_path).join()
    ship(tmp_path, encoder, CHANGED)
    assert assert_whole(tmp_path, {NEW.space.model: CHANGED}) == NEW.space.model
    assert sorted(encoder.encoded) == sorted([f"text {i}" for i in range(40, 64)] + ["a new one"])


def test_a_corpus_that_changes_while_it_is_read(tmp_path):
    """The version holds what was read, each document with the vector of the text that was read."""

    def changing():
        for number, (name, text) in enumerate(DOCUMENTS.items()):
            yield name, (text if number < 30 else f"{text}, revised")

    version, _ = build_version(tmp_path, NEW, Source(changing()), SPEC)
    versions.promote(tmp_path, version)
    read = dict(changing())
    assert_whole(tmp_path, {NEW.space.model: read})
