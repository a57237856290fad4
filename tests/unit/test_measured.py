"""What a run measures is in a file at once, and is shown, marked, when the run does not finish."""

from __future__ import annotations

import pytest

from embedlab import paths
from embedlab.errors import RecordError
from embedlab.runs import failures, measured, records
from embedlab.runs.records import MetricRow, Record
from embedlab.runs.run import write_failure

LABELS = {"system": "base", "technique": "base", "metric": "ndcg@10", "split": "test"}
ROWS = [MetricRow(**LABELS, value=value) for value in (0.5, 0.25)]


@pytest.fixture
def attempt(tmp_path, monkeypatch):
    """An attempt that measured two numbers and was stopped while it wrote a third."""
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    folder = paths.runs_dir() / "01_tiny-01234567-s0" / "attempts" / "5-a"
    folder.mkdir(parents=True)
    log = measured.Log(folder)
    log.open(Record(run_id="01_tiny-01234567-s0", status="incomplete", notebook="01_tiny", parameters={}, metrics=[]))
    for row in ROWS:
        log.add(row)
    with open(folder / measured.FILE, "a") as file:
        file.write('{"system": "ba')
    return folder


def test_every_whole_row_is_read(attempt):
    record = measured.read(attempt)
    assert record.metrics == ROWS and record.status == "incomplete"


def test_it_is_shown_with_the_cause_and_never_committed(attempt):
    write_failure(attempt, "01_tiny-01234567-s0", "timeout", "")
    (record,) = failures.incomplete_records()
    assert record.run_id == "01_tiny-01234567-s0 (incomplete: timeout)" and record.metrics == ROWS
    with pytest.raises(RecordError, match="incomplete"):
        records.commit(record, attempt.parents[1])
    whole = record.model_copy(update={"run_id": "01_tiny-01234567-s0", "status": "ok"})
    assert records.commit(whole, attempt.parents[1])
    assert list(failures.incomplete_records()) == []  # another attempt has finished


@pytest.mark.parametrize("content", ["", "{", "[]\n[]", '{"run_id": 1}\n{}'])
def test_a_damaged_file_is_nothing(attempt, content):
    (attempt / measured.FILE).write_text(content)
    assert measured.read(attempt) is None and list(failures.incomplete_records()) == []


def test_a_later_attempt_that_measured_nothing_hides_nothing(attempt):
    (attempt.parent / "6-b").mkdir()
    assert len(list(failures.incomplete_records())) == 1


def test_a_field_of_a_newer_version_is_no_damage(tmp_path):
    """An intact record with a field that this version does not know stays as it is."""
    folder = tmp_path / "01_tiny-01234567-s0"
    folder.mkdir()
    content = Record(run_id=folder.name, notebook="01_tiny", parameters={}, metrics=[]).content() | {"colour": "red"}
    (folder / records.FILE).write_text(records.file_text(content))
    with pytest.raises(records.OtherSchema, match="newer version of embedlab.*'colour'"):
        records.read_or_quarantine(folder)
    assert [path.name for path in folder.iterdir()] == [records.FILE]
    (folder / records.FILE).write_text(records.file_text(content).replace("red", "blue"))
    with pytest.raises(records.DamagedRecord):
        records.read(folder)
