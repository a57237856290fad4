"""Records of schema 1 become schema 2: typed columns, and not a single number changed."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from embedlab import paths
from embedlab.cli.main import app
from embedlab.runs import records
from embedlab.runs.migrate import TRAINING_SECONDS, migrate_folder, read_content
from embedlab.runs.per_query import Measured, query_values
from embedlab.runs.records import DamagedRecord, OtherSchema, digest_of

CASES = Path(__file__).parents[1] / "cases" / "schema_1"
NUMBERS = ("value", "ci_low", "ci_high", "n")
CONCATENATED = "05_matryoshka-c6fc7ad9-s0"  # searched with few bits a model that another run had concatenated
QUICKSTART = "00_quickstart-c81340bd-s0"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A folder with a few records of the old schema."""
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    monkeypatch.delenv("EMBEDLAB_CACHE", raising=False)
    return Path(shutil.copytree(CASES, paths.runs_dir()))


def rewrite(folder: Path, change) -> None:
    """Give an old record other content, with the checksum that goes with it."""
    content = read_content(folder)
    change(content)
    text = json.dumps({**content, "sha256": digest_of(content)}, indent=1, allow_nan=False, ensure_ascii=False)
    (folder / records.FILE).write_text(text + "\n")


def numbers(rows) -> Counter:
    return Counter(tuple(repr(row[name]) for name in NUMBERS) for row in rows)


def test_every_number_is_kept_bit_for_bit_and_in_order(runs):
    before = {path.parent.name: path.read_bytes() for path in CASES.glob("*/record.json")}
    report = migrate_folder(runs)
    assert sorted(report.migrated) == sorted(before) and not report.failed and not report.current
    for run_id, raw in before.items():
        old, new = json.loads(raw), records.read(runs / run_id)
        rows = [row.model_dump() for row in new.metrics if row.metric != TRAINING_SECONDS]
        assert numbers(rows) == numbers(old["metrics"])
        for one, other in zip(old["metrics"], rows, strict=True):
            assert [one[name] for name in (*NUMBERS, "dim", "split")] == [
                other[name] for name in (*NUMBERS, "dim", "split")
            ]
        same = ("run_id", "notebook", "parameters", "timings", "notes", "source_hash", "data_fingerprint", "attempt")
        assert {name: old[name] for name in same} == {name: getattr(new, name) for name in same}
        assert list(old["model_fingerprints"].values()) == list(new.model_fingerprints.values())
        assert new.migrated["from"] == 1 and new.migrated["sha256"] == hashlib.sha256(raw).hexdigest()
        assert {row.system for row in new.metrics} <= new.systems.keys()


def test_no_two_rows_of_a_migrated_record_mean_the_same(runs):
    migrate_folder(runs)
    for folder in runs.iterdir():
        keys = Counter(
            tuple(value for name, value in row.model_dump().items() if name not in NUMBERS)
            for row in records.read(folder).metrics
        )
        assert [key for key, count in keys.items() if count > 1] == []


@pytest.mark.parametrize(
    "run_id, index, expected",
    [
        (QUICKSTART, {"split": "test", "statistic": "difference"}, ("contrastive", "base")),
        (CONCATENATED, {"stage": "quantised", "condition": "signs 384, rescored"}, ("contrastive+static", "")),
        (CONCATENATED, {"condition": "truncated, against full width", "dim": 16}, ("base", "base")),
        ("03_domain_pretraining-83052f0b-s0", {"split": "dev"}, ("contrastive", "")),
        ("03_domain_pretraining-0984ce83-s0", {"split": "dev"}, ("pretrained+contrastive", "")),
        ("04_contrastive-ba7db73b-s0", {"statistic": "difference"}, ("pretrained+contrastive", "base")),
        ("06_distillation-32f8c37f-s0", {"condition": "3 layers"}, ("distilled", "")),
        ("07_multitask-0413acae-s0", {"system": "merged+static", "stage": "probe"}, ("merged+static", "base")),
        ("11_reranker-57fb0397-s0", {"system": "reranker+contrastive"}, ("reranker+contrastive", "")),
    ],
)
def test_labels_become_declared_systems(runs, run_id, index, expected):
    migrate_folder(runs)
    rows = [
        row
        for row in records.read(runs / run_id).metrics
        if all(getattr(row, name) == value for name, value in index.items())
    ]
    assert (rows[0].system, rows[0].against) == expected


MEANING = ("stage", "task", "metric", "statistic", "system", "against", "condition")


def meanings(runs):
    """What every kind of row of the old records became: (run, task, model, metric before) -> columns now."""
    found = {}
    for path in sorted(CASES.glob("*/record.json")):
        for old, new in zip(
            json.loads(path.read_text())["metrics"], records.read(runs / path.parent.name).metrics, strict=False
        ):
            key = (path.parent.name, old["task"], old["model"], old["metric"])
            found[key] = tuple(getattr(new, name) for name in MEANING)
    return found


def test_every_row_means_what_the_table_says(runs):
    migrate_folder(runs)
    with open(CASES.with_name("schema_1.csv"), newline="") as file:
        expected = {tuple(row[:4]): tuple(row[4:]) for row in csv.reader(file)}
    assert meanings(runs) == expected


@pytest.mark.parametrize("task", ["1,000 documents", "1,000 documents, batches", "20,000 documents, one by one"])
def test_a_scaled_corpus_is_a_condition_of_search(runs, task):
    def change(content):
        content["metrics"] = [{**content["metrics"][0], "task": task, "model": "full", "metric": "ms per query"}]

    rewrite(runs / CONCATENATED, change)
    migrate_folder(runs)
    row = records.read(runs / CONCATENATED).metrics[0]
    assert (row.stage, row.task, row.condition, row.system) == (
        "search", "scaling", f"{task}, full", "contrastive+static",
    )  # fmt: skip


def test_training_seconds_are_rows_now(runs):
    migrate_folder(runs)
    record = records.read(runs / QUICKSTART)
    row = next(row for row in record.metrics if row.metric == TRAINING_SECONDS)
    assert (row.system, row.value) == ("contrastive", record.timings["train"])
    assert "1 rows" in record.migrated["derived"]


def test_per_query_values_are_found_by_their_system(runs):
    run_id = CONCATENATED
    old = pd.read_parquet(runs / run_id / "per_query.parquet")
    migrate_folder(runs)
    values = query_values(run_id, "ndcg@10", folder=runs)
    of_tuned = old[(old["task"] == "retrieval") & (old["model"] == "tuned") & (old["dim"] == 64)]
    expected = of_tuned.set_index("query_id")["ndcg@10"].sort_index()
    assert values[Measured("contrastive+static", "", 64)].tolist() == expected.tolist()
    quantised = query_values(run_id, "ndcg@10", stage="quantised", folder=runs)
    assert Measured("contrastive+static", "signs 384, rescored") in quantised


def test_a_second_migration_changes_nothing(runs):
    migrate_folder(runs)
    before = {path: path.read_bytes() for path in runs.glob("*/*")}
    report = migrate_folder(runs)
    assert report.migrated == [] and len(report.current) == len(list(runs.iterdir()))
    assert {path: path.read_bytes() for path in runs.glob("*/*")} == before


def test_a_migration_that_was_killed_between_the_files_goes_on(runs):
    before = (runs / CONCATENATED / records.FILE).read_bytes()
    migrate_folder(runs)
    complete = {path: path.read_bytes() for path in runs.glob("*/*")}
    (runs / CONCATENATED / records.FILE).write_bytes(before)  # the values were converted, the record was not
    assert migrate_folder(runs).migrated == [CONCATENATED]
    assert {path: path.read_bytes() for path in runs.glob("*/*")} == complete


def test_damaged_records_stay_as_they_are_and_are_listed(runs):
    path = runs / QUICKSTART / records.FILE
    path.write_bytes(path.read_bytes().replace(b"0.5", b"0.6", 1))
    damaged = path.read_bytes()
    report = migrate_folder(runs)
    assert len(report.failed) == 1 and "damaged" in report.failed[0] and QUICKSTART in report.failed[0]
    assert path.read_bytes() == damaged and len(report.migrated) == len(list(CASES.iterdir())) - 1


@pytest.mark.parametrize("change", [{"model": "mystery"}, {"task": "mystery"}, {"model": "tuned - mystery"}])
def test_an_unknown_label_is_an_error_and_nothing_is_written(runs, change):
    rewrite(runs / QUICKSTART, lambda content: content["metrics"][0].update(change))
    before = (runs / QUICKSTART / records.FILE).read_bytes()
    report = migrate_folder(runs)
    assert len(report.failed) == 1 and "'mystery'" in report.failed[0]
    assert (runs / QUICKSTART / records.FILE).read_bytes() == before


def test_a_model_of_a_run_without_a_record_is_an_error(runs):
    shutil.rmtree(runs / "06_distillation-32f8c37f-s0")
    report = migrate_folder(runs)
    assert any("06_distillation-32f8c37f-s0, which has no record" in reason for reason in report.failed)


def test_reading_an_old_record_says_what_to_do_and_renames_nothing(runs):
    for read in (records.read, records.read_or_quarantine):
        with pytest.raises(OtherSchema, match="embedlab migrate"):
            read(runs / QUICKSTART)
    assert (runs / QUICKSTART / records.FILE).is_file()


def test_a_newer_record_is_refused_and_renames_nothing(runs):
    migrate_folder(runs)
    path = runs / QUICKSTART / records.FILE
    content = json.loads(path.read_text()) | {"schema": 3, "invented": []}
    del content["sha256"]
    path.write_text(json.dumps({**content, "sha256": digest_of(content)}))
    before = path.read_bytes()
    for read in (records.read, records.read_or_quarantine):
        with pytest.raises(OtherSchema, match="newer version of embedlab"):
            read(path.parent)
    assert any("newer version" in reason for reason in migrate_folder(runs).failed)
    assert path.read_bytes() == before and sorted(file.name for file in path.parent.iterdir()) == ["record.json"]


def test_damage_in_the_schema_field_is_damage(runs):
    migrate_folder(runs)
    path = runs / QUICKSTART / records.FILE
    path.write_text(path.read_text().replace('"schema": 2', '"schema": 3'))
    with pytest.raises(DamagedRecord):
        records.read(path.parent)


def test_the_command_converts_and_tells(runs):
    result = CliRunner().invoke(app, ["migrate"])
    assert result.exit_code == 0 and f"converted {len(list(CASES.iterdir()))} records" in result.output
    assert isinstance(records.read(runs / QUICKSTART), records.Record)
    path = runs / QUICKSTART / records.FILE
    path.write_text("{}")
    assert CliRunner().invoke(app, ["migrate", str(runs)]).exit_code != 0
