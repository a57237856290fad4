"""Records under fire: races, kills, full disks, damage. What is read is whole, what is committed is unique."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import signal
import time
import weakref
from pathlib import Path

import pytest

from embedlab import io
from embedlab.errors import RecordError
from embedlab.reporting import sweep_table
from embedlab.runs import record_index, records
from embedlab.runs.records import DamagedRecord, MetricRow, Record

FORK = multiprocessing.get_context("fork")


def make(run_id: str = "nb-01234567-s0", attempt: str = "1") -> Record:
    row = MetricRow(
        system="contrastive", technique="contrastive", split="test", metric="ndcg@10", dim=384, value=0.5, n=10
    )
    return Record(run_id=run_id, notebook="nb", parameters={"seed": 0, "lr": 1e-5}, metrics=[row], attempt=attempt)


def folder(tmp_path: Path, record: Record) -> Path:
    return tmp_path / record.run_id


def test_round_trip(tmp_path):
    record = make()
    assert records.commit(record, folder(tmp_path, record))
    assert records.read(folder(tmp_path, record)) == record
    assert [path.name for path in folder(tmp_path, record).iterdir()] == ["record.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_missing_metric_is_null_never_zero(tmp_path, value):
    row = MetricRow(system="m", technique="t", metric="x", value=value)
    record = make().model_copy(update={"metrics": [row]})
    records.commit(record, folder(tmp_path, record))
    assert json.loads((folder(tmp_path, record) / "record.json").read_text())["metrics"][0]["value"] is None


def test_second_commit_loses_and_changes_nothing(tmp_path):
    record = make()
    records.commit(record, folder(tmp_path, record))
    before = (folder(tmp_path, record) / "record.json").read_bytes()
    assert not records.commit(make(attempt="2"), folder(tmp_path, record))
    assert (folder(tmp_path, record) / "record.json").read_bytes() == before


def test_truncation_at_every_byte_is_noticed(tmp_path):
    record = make()
    records.commit(record, folder(tmp_path, record))
    path = folder(tmp_path, record) / "record.json"
    whole = path.read_bytes()
    for length in range(len(whole.rstrip())):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedRecord):
            records.read(folder(tmp_path, record))


def test_flipped_bits_are_noticed(tmp_path):
    """A flip in white space between tokens may leave the content as it was; any other must be refused."""
    record = make()
    records.commit(record, folder(tmp_path, record))
    path, rng = folder(tmp_path, record) / "record.json", random.Random(0)
    whole = path.read_bytes()
    for _ in range(1500):
        place, bit = rng.randrange(len(whole)), rng.randrange(8)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :])
        try:
            assert records.read(folder(tmp_path, record)) == record
        except DamagedRecord:
            continue


@pytest.mark.parametrize("change", ["id", "zero", "nan", "extra", "metric"])
def test_damage_is_set_aside_and_a_rerun_commits(tmp_path, change, caplog):
    record = make()
    place = folder(tmp_path, record)
    records.commit(record, place)
    content = json.loads((place / "record.json").read_text())
    if change == "id":
        content["run_id"] = "nb-76543210-s0"
    elif change == "nan":
        content["metrics"][0]["value"] = float("nan")
    elif change == "extra":
        content["unknown"] = 1
    elif change == "metric":
        content["metrics"][0]["value"] = 0.9
    (place / "record.json").write_text("" if change == "zero" else json.dumps(content))
    assert records.read_or_quarantine(place) is None
    assert "set aside" in caplog.text
    assert records.commit(record, place)
    assert records.read(place) == record


def test_record_of_another_run_is_refused(tmp_path):
    record = make()
    records.commit(record, folder(tmp_path, record))
    moved = folder(tmp_path, record).rename(tmp_path / "nb-76543210-s0")
    with pytest.raises(RecordError, match="it is the record of nb-01234567-s0"):
        records.read(moved)


def contend(root: Path, writer: int, ids: list[str], barrier, wins) -> None:
    for run_id in ids:
        barrier.wait()
        if records.commit(make(run_id, attempt=str(writer)), root / run_id):
            wins.put((run_id, str(writer)))


def race(tmp_path: Path, writers: int, contests: int) -> None:
    ids = [f"nb-{number:08x}-s0" for number in range(contests)]
    barrier, wins = FORK.Barrier(writers), FORK.Queue()
    processes = [FORK.Process(target=contend, args=(tmp_path, w, ids, barrier, wins)) for w in range(writers)]
    for process in processes:
        process.start()
    winners = dict(wins.get(timeout=120) for _ in ids)
    for process in processes:
        process.join()
    assert wins.empty()
    assert sorted(winners) == ids
    for run_id in ids:
        assert records.read(tmp_path / run_id).attempt == winners[run_id]
        assert [path.name for path in (tmp_path / run_id).iterdir()] == ["record.json"]


def test_contested_commits_have_one_winner(tmp_path):
    race(tmp_path, writers=16, contests=40)


@pytest.mark.long
def test_contested_commits_have_one_winner_full_count(tmp_path):
    race(tmp_path, writers=16, contests=1000)


def kill_committers(tmp_path: Path, count: int) -> int:
    """Kill a process at a random moment of its commits; returns how many records were found."""
    rng, found = random.Random(0), 0
    for number in range(count):
        record = make(f"nb-{number:08x}-s0")
        process = FORK.Process(target=records.commit, args=(record, folder(tmp_path, record)))
        process.start()
        time.sleep(rng.random() * 0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        if (folder(tmp_path, record) / "record.json").exists():
            assert records.read(folder(tmp_path, record)) == record
            found += 1
        else:
            assert records.commit(record, folder(tmp_path, record))
    return found


def test_killed_committers_leave_a_whole_record_or_none(tmp_path):
    kill_committers(tmp_path, 60)


@pytest.mark.long
def test_killed_committers_leave_a_whole_record_or_none_full_count(tmp_path):
    assert 0 < kill_committers(tmp_path, 1000) < 1000


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EACCES])
@pytest.mark.parametrize("call", ["fsync", "link"])
def test_full_disk_and_missing_permission(tmp_path, monkeypatch, error, call):
    record = make()
    with monkeypatch.context() as patch:
        patch.setattr(io.os, call, lambda *_: (_ for _ in ()).throw(OSError(error, os.strerror(error))))
        with pytest.raises(RecordError, match=os.strerror(error)):
            records.commit(record, folder(tmp_path, record))
    assert list(folder(tmp_path, record).iterdir()) == []
    assert records.commit(record, folder(tmp_path, record))


def leave_records(runs: Path, count: int) -> None:
    """Records of combinations with five seeds each, seven rows in each; not flushed to disk, for that lasts."""
    metrics = ("ndcg@10", "recall@10", "mrr@10", "map@10", "ndcg@100", "recall@100", "precision@1")
    for number in range(count):
        rows = [row.model_copy(update={"metric": metric}) for metric in metrics for row in make().metrics]
        parameters = {"seed": number % 5, "lr": number // 5 * 1e-5}
        record = make(f"nb-{number // 5:08x}-s{number % 5}").model_copy(
            update={"metrics": rows, "parameters": parameters}
        )
        (runs / record.run_id).mkdir(parents=True)
        (runs / record.run_id / records.FILE).write_text(records.file_text(record.content()))


def table_of(runs: Path, count: int) -> None:
    """The table of so many records never holds more than a few of them at once; prints its seconds."""
    references, most = [], 0

    def watched():
        nonlocal most
        for record in record_index.indexed_records(("ndcg@10", "recall@10"), folder=runs):
            references.append(weakref.ref(record))
            most = max(most, sum(reference() is not None for reference in references[-100:]))
            yield record

    began = time.perf_counter()
    table = sweep_table.sweep_table(watched(), paired=False, folder=runs)
    print(f"{count} records tabled in {time.perf_counter() - began:.1f} s, {most} in memory at once")
    assert len(references) == count and len(table.frame) == count // 5 and most <= 3


def test_a_table_holds_a_few_records_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    leave_records(tmp_path / "runs", 300)
    table_of(tmp_path / "runs", 300)


@pytest.mark.long
def test_a_table_of_ten_thousand_records(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    leave_records(tmp_path / "runs", 10_000)
    for _ in ("every record is read", "from the index"):
        table_of(tmp_path / "runs", 10_000)
