"""Shards on Dask workers of their own processes that are killed: every piece counts once, and vectors are the same."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedlab.deploy.parts import VECTORS, all_parts, read_plan, remove_orphans
from embedlab.deploy.search_shards import search_shards
from embedlab.deploy.shards import embed_shards
from embedlab.deploy.storage import Storage
from embedlab.search.exact import search
from embedlab.sweeps.pools import DaskPool, SerialPool, local_cluster
from tests.unit.test_deploy_space import FakeEncoder

PIECES, ROWS = 12, 40


class MortalEncoder(FakeEncoder):
    """Kills its process at some texts, as long as a file with the text's name lies in a folder."""

    def __init__(self, folder: str):
        super().__init__(0)
        self.folder = Path(folder)

    def encode_documents(self, texts):
        for text in texts:
            if (deadly := self.folder / text).exists():
                deadly.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_documents(texts)


class DoomedEncoder(FakeEncoder):
    """Kills its process at one text, every time."""

    def __init__(self, model: str):
        super().__init__(0)

    def encode_documents(self, texts):
        if "text 77" in texts:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_documents(texts)


@pytest.fixture(scope="module")
def client():
    with local_cluster(2, preload=[__name__]) as client:
        assert all(address.startswith("tcp://127.0.0.1:") for address in client.scheduler_info()["workers"])
        yield client


@pytest.fixture
def pool(client):
    client.wait_for_workers(2)  # the last test may have killed some
    return DaskPool(client)


@pytest.fixture
def source(tmp_path) -> Storage:
    (tmp_path / "source").mkdir()
    numbers = range(PIECES * ROWS)
    table = pa.table({"id": [f"d{i}" for i in numbers], "text": [f"text {i}" for i in numbers]})
    pq.write_table(table, tmp_path / "source" / "all.parquet", row_group_size=ROWS)
    return Storage.at(str(tmp_path / "source"))


def expected() -> np.ndarray:
    return FakeEncoder(0).encode_queries([f"text {i}" for i in range(PIECES * ROWS)])


def vectors_in(folder: Storage) -> np.ndarray:
    return np.concatenate([block for part in all_parts(folder, read_plan(folder)) for block in part.vectors()])


def test_killed_workers_pieces_are_done_again_and_count_once(source, tmp_path, pool):
    deadly = tmp_path / "deadly"
    deadly.mkdir()
    for number in (5, 111, 300):  # three workers die, in the middle of three pieces
        (deadly / f"text {number}").touch()
    target = Storage.at(str(tmp_path / "target"))
    encoder = FakeEncoder(0)
    report = embed_shards(source, target, str(deadly), encoder, pool, make_encoder=MortalEncoder, rows=ROWS)
    assert not list(deadly.iterdir())
    assert report.failures == {} and len(report.manifests) == PIECES
    folder = target.within(encoder.space.fingerprint)
    np.testing.assert_array_equal(vectors_in(folder), expected())
    plan = read_plan(folder)
    assert remove_orphans(folder, plan) == 6  # two files of every killed attempt
    assert len(folder.names(VECTORS)) == PIECES and not folder.names(".claim")

    queries = FakeEncoder(0).encode_queries([f"query {i}" for i in range(5)])
    top = search_shards(folder, plan, queries, 7, pool)
    np.testing.assert_array_equal(top.documents, search(queries, expected(), 7)[1])


def test_a_piece_that_kills_every_worker_is_a_failure_and_the_others_are_done(source, tmp_path, pool):
    target, encoder = Storage.at(str(tmp_path / "target")), FakeEncoder(0)
    report = embed_shards(source, target, "", encoder, pool, make_encoder=DoomedEncoder, rows=ROWS)
    ((piece, error),) = report.failures.items()
    assert (piece.first, type(error).__name__) == (1, "KilledWorker")
    assert report.encoded == (PIECES - 1) * ROWS
    again = embed_shards(source, target, "", encoder, SerialPool(), make_encoder=lambda name: FakeEncoder(0), rows=ROWS)
    assert again.encoded == ROWS
    np.testing.assert_array_equal(vectors_in(target.within(encoder.space.fingerprint)), expected())


def _end_after(seconds: float) -> float:
    """Wait, and return when that ended, on the clock that all processes of a machine share."""
    time.sleep(seconds)
    return time.monotonic()


def _fail(number: int) -> int:
    if number == 3:
        raise ValueError("three")
    return number


def test_results_come_as_they_end_and_errors_with_their_item(pool):
    ends = [end for _, end in pool.run(_end_after, [0.6, 0.1])]  # one after the other if one worker got both
    assert len(ends) == 2 and ends == sorted(ends)
    outcomes = dict(pool.run(_fail, range(20)))
    assert isinstance(outcomes.pop(3), ValueError)
    assert outcomes == {number: number for number in range(20) if number != 3}
