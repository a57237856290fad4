"""What a record file may look like: exactly what was written, or it is refused; what a reader may do about it."""

from __future__ import annotations

import hashlib
import re

import pytest

from embedlab.errors import RecordError
from embedlab.runs import records
from embedlab.runs.records import DamagedRecord, MetricRow, Record

NUMBERS = {"a": 0.30000000000000004, "b": 1e-05, "c": "ä\u0007", "d": float("nan"), "e": [float("inf")]}


@pytest.fixture
def folder(tmp_path):
    """A committed record whose numbers have other spellings that parse to the same float."""
    row = MetricRow(system="m", technique="t", split="test", metric="x", value=0.1, n=3)
    record = Record(run_id="nb-01234567-s0", notebook="nb", parameters={"seed": 0}, metrics=[row], notes=NUMBERS)
    assert records.commit(record, tmp_path / record.run_id)
    return tmp_path / record.run_id


def test_a_digest_is_that_of_the_sorted_content():
    expected = hashlib.sha256('{"a":[1.5,null],"ä":"b"}'.encode()).hexdigest()
    assert records.digest_of({"ä": "b", "a": [1.5, None]}) == expected
    for number in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON compliant"):
            records.digest_of({"a": number})


def test_an_incomplete_record_is_not_committed(tmp_path):
    record = Record(run_id="nb-01234567-s0", notebook="nb", parameters={}, metrics=[], status="incomplete")
    with pytest.raises(RecordError, match="the record is incomplete") as caught:
        records.commit(record, tmp_path / record.run_id)
    assert "Commit it when the run has finished" in str(caught.value) and not list(tmp_path.iterdir())


def test_another_checksum_is_named_as_the_damage(folder):
    path = folder / records.FILE
    path.write_text(path.read_text().replace('"sha256": "', '"sha256": "0'))
    with pytest.raises(DamagedRecord, match="its sha256 does not match"):
        records.read(folder)


def test_every_single_bit_flip_is_refused(folder):
    """All of them: 1E-05 for 1e-05 and 0.30000000000000005 for ...04 parse to the same value and are damage too."""
    path = folder / records.FILE
    whole = path.read_bytes()
    assert b"1e-05" in whole and b"0.30000000000000004" in whole
    silent = []
    for place in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :])
            try:
                records.read(folder)
                silent.append((place, bit))
            except DamagedRecord:
                continue
    assert silent == []


@pytest.mark.parametrize(
    "old, new",
    [
        (b"0.1,", b"NaN,"),
        (b"1e-05", b"NaN"),
        (b"0.1,", b"1" + b"0" * 400 + b","),
        (b'"notebook": "nb"', b'"notebook": "nb", "notebook": "nb"'),
        (b"\n", b"\n\n"),
    ],
)
def test_other_spellings_are_refused(folder, old, new):
    path = folder / records.FILE
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(DamagedRecord):
        records.read(folder)


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{}", b'"text"', b"[" * 100_000, b"\xff\xfe", b"\0" * 4096])
def test_what_is_no_record_at_all_is_refused(folder, content):
    (folder / records.FILE).write_bytes(content)
    with pytest.raises(DamagedRecord):
        records.read(folder)


def test_nan_and_infinity_are_null_wherever_they_stand(folder):
    notes = records.read(folder).notes
    assert notes == {**NUMBERS, "d": None, "e": [None]}


def test_a_field_added_to_the_format_leaves_old_records_readable(folder, monkeypatch):
    class Later(Record):
        added: str = "default"

    monkeypatch.setattr(records, "Record", Later)
    assert records.read(folder).added == "default"


def test_an_unreadable_record_is_not_taken_for_a_damaged_one(folder, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    before = (folder / records.FILE).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(records.Path, "read_bytes", refuse)
        with pytest.raises(RecordError, match="cannot be read"):
            records.read_or_quarantine(folder)
    assert (folder / records.FILE).read_bytes() == before


def test_file_by_hand():
    """A field per line, what it holds indented below it, and one line per metric row."""
    content = {"notes": {"b": "é"}, "metrics": [{"x": 1}, {"x": 2}], "run_id": "r"}
    canonical = '{"metrics":[{"x":1},{"x":2}],"notes":{"b":"é"},"run_id":"r"}'
    lines = [
        "{",
        ' "notes": {',
        '  "b": "é"',
        " },",
        ' "metrics": [',
        '  {"x": 1},',
        '  {"x": 2}',
        " ],",
        ' "run_id": "r",',
    ]
    lines += [f' "sha256": "{hashlib.sha256(canonical.encode()).hexdigest()}"', "}", ""]
    assert records.file_text(content) == "\n".join(lines)
    assert ' "metrics": [],' in records.file_text({"metrics": []})


def test_a_record_in_the_folder_of_another_run_is_refused(folder):
    elsewhere = folder.rename(folder.with_name("nb-89abcdef-s0"))
    with pytest.raises(DamagedRecord, match="it is the record of nb-01234567-s0"):
        records.read(elsewhere)


def test_errors_name_the_file(folder):
    (folder / records.FILE).write_bytes(b"null")
    with pytest.raises(DamagedRecord, match=str(folder / records.FILE)):
        records.read(folder)


def test_a_damaged_record_is_kept_under_another_name(folder, caplog):
    path = folder / records.FILE
    damaged = path.read_bytes().replace(b"0.1,", b"0.2,")
    path.write_bytes(damaged)
    assert records.read_or_quarantine(folder) is None
    (aside,) = folder.iterdir()
    assert aside.name.startswith("record.damaged-") and aside.suffix == ".json"
    assert aside.read_bytes() == damaged and aside.name in caplog.text
    assert records.read_or_quarantine(folder) is None  # none any more


def test_a_folder_that_is_set_aside_keeps_its_files(folder):
    content = (folder / records.FILE).read_bytes()
    aside = records.set_aside(folder)
    assert not folder.exists() and re.fullmatch(r"nb-01234567-s0\.old-[0-9a-f]{6}", aside.name)
    assert (aside / records.FILE).read_bytes() == content


def test_two_readers_of_a_damaged_record_do_not_trip_over_each_other(folder, monkeypatch):
    (folder / records.FILE).write_bytes(b"{}")
    read = records.read

    def slower(place):
        try:
            return read(place)
        except RecordError:
            (place / records.FILE).unlink()  # the other reader has set it aside meanwhile
            raise

    monkeypatch.setattr(records, "read", slower)
    assert records.read_or_quarantine(folder) is None


def test_a_file_where_the_folder_should_be_is_no_lost_race(tmp_path):
    place = tmp_path / "nb-01234567-s0"
    place.write_text("in the way")
    with pytest.raises(RecordError, match="cannot be written"):
        records.commit(Record(run_id=place.name, notebook="nb", parameters={}, metrics=[]), place)
    assert place.read_text() == "in the way"
