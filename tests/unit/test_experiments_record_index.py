"""The index of records: the same answers as the records give, whatever happens to either."""

from __future__ import annotations

import multiprocessing

import pytest

from embedlab import paths
from embedlab.reporting import tables
from embedlab.runs import record_index, records
from embedlab.runs.record_index import indexed_records
from embedlab.runs.records import MetricRow, Record

METRICS = ("ndcg@10", "recall@10")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    monkeypatch.delenv("EMBEDLAB_CACHE", raising=False)
    return tmp_path


def commit(number: int, value: float | None = 0.5, metrics=("ndcg@10", "mrr@10", "recall@10", "ndcg@10")) -> str:
    rows = [
        MetricRow(
            system="contrastive",
            technique="contrastive",
            split="test",
            metric=metric,
            value=value,
            dim=64,
            n=9,
            ci_low=0.1,
        )
        for metric in metrics
    ]
    record = Record(run_id=f"nb-{number:08x}-s0", notebook="nb", parameters={"seed": 0, "x": [1, "é"]}, metrics=rows)
    assert records.commit(record, paths.runs_dir() / record.run_id)
    return record.run_id


def expected() -> list[Record]:
    return list(record_index._thin([one.run_id for one in tables.all_records()], paths.runs_dir(), METRICS))


def reads(monkeypatch) -> list[str]:
    """Names of the records that are read from their files from now on."""
    seen, read = [], records.read_or_quarantine
    monkeypatch.setattr(records, "read_or_quarantine", lambda folder: seen.append(folder.name) or read(folder))
    return seen


def test_same_as_the_records_and_read_once(monkeypatch):
    names = [commit(number, None if number == 1 else number / 7) for number in range(3)]
    full = {one.run_id: one for one in tables.all_records()}
    seen = reads(monkeypatch)
    first = list(indexed_records(METRICS))
    assert [one.run_id for one in first] == names == seen
    for one in first:
        whole = full[one.run_id]
        assert sorted(row.metric for row in one.metrics) == ["ndcg@10", "ndcg@10", "recall@10"]
        assert all(row in whole.metrics for row in one.metrics)
        assert one.model_copy(update={"metrics": []}) == whole.model_copy(update={"metrics": []})
    assert list(indexed_records(METRICS)) == first and seen == names


def test_follows_new_replaced_and_removed_runs(monkeypatch):
    a, b, c = (commit(number) for number in range(3))
    list(indexed_records(METRICS))
    (paths.runs_dir() / a).rename(paths.runs_dir() / f"{a}{records.OLD}x")
    (paths.runs_dir() / b / records.FILE).unlink()
    commit(1, 0.75, ("ndcg@10",))
    d = commit(3)
    seen = reads(monkeypatch)
    found = list(indexed_records(METRICS))
    assert [one.run_id for one in found] == [b, c, d] and seen == [b, d]
    assert [(row.metric, row.value) for row in found[0].metrics] == [("ndcg@10", 0.75)]


def test_a_subset_forgets_nothing(monkeypatch):
    a, b = commit(0), commit(1)
    list(indexed_records(METRICS))
    seen = reads(monkeypatch)
    assert [one.run_id for one in indexed_records(METRICS, [b, "nb-ffffffff-s0"])] == [b]
    assert [one.run_id for one in indexed_records(METRICS)] == [a, b] and seen == []
    assert list(indexed_records(METRICS, [])) == []


def test_damaged_record_is_set_aside_and_never_kept(caplog):
    a, b = commit(0), commit(1)
    file = paths.runs_dir() / a / records.FILE
    file.write_bytes(file.read_bytes().replace(b"0.5", b"0.6"))
    assert [one.run_id for one in indexed_records(METRICS)] == [b]
    assert "set aside" in caplog.text and not file.exists()


def test_later_damage_is_seen():
    a = commit(0)
    assert list(indexed_records(METRICS))
    file = paths.runs_dir() / a / records.FILE
    file.write_bytes(file.read_bytes().replace(b"0.5", b"0.6"))
    assert list(indexed_records(METRICS)) == []


def test_broken_index_is_thrown_away_and_the_records_are_read(caplog):
    commit(0), commit(1)
    list(indexed_records(METRICS))
    file = record_index._index_file(paths.runs_dir())
    file.write_bytes(b"no database" * 1000)
    assert list(indexed_records(METRICS)) == expected()
    assert "cannot use the index" in caplog.text and not file.exists()
    assert len(list(indexed_records(METRICS))) == 2 and file.exists()


def test_index_that_breaks_half_way_gives_every_record_once(monkeypatch, caplog):
    for number in range(4):
        commit(number)
    read = record_index._read

    def torn(*arguments):
        for count, record in enumerate(read(*arguments)):
            if count == 2:
                raise record_index.sqlite3.DatabaseError("torn")
            yield record

    monkeypatch.setattr(record_index, "_read", torn)
    assert [one.run_id for one in indexed_records(METRICS)] == [one.run_id for one in expected()]


def test_no_place_for_an_index(home, caplog):
    commit(0)
    (home / ".cache").write_text("a file")
    assert list(indexed_records(METRICS)) == expected() and "cannot use the index" in caplog.text


def test_no_folder_has_no_records():
    assert list(indexed_records(METRICS)) == []


def _read_all() -> None:
    assert len(list(indexed_records(METRICS))) == 40


def test_many_readers_at_once():
    for number in range(40):
        commit(number)
    context = multiprocessing.get_context("fork")
    readers = [context.Process(target=_read_all) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert [reader.exitcode for reader in readers] == [0] * 4
