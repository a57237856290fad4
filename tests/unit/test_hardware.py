"""Advice on hardware: minutes through what was measured, and a word where nobody measured."""

from __future__ import annotations

import pytest

from embedlab import paths
from experiments.benchmarks import hardware, table
from experiments.benchmarks.harness import write_result
from experiments.benchmarks.registry import BENCHMARKS


def result(name: str, steps: int, *seconds: float, **changes) -> dict:
    repeats = [{"seconds": one, "peak_bytes": 1_500_000_000} for one in seconds]
    return {
        "name": name,
        "smoke": False,
        "size": {"batch_size": 100, "steps": steps},
        "environment": {"cpu": "X", "gpu": None, "threads": 2},
        "arms": {"ours": {"loaded_bytes": 700_000_000, "repeats": repeats}},
        "background_share": 0.0,
    } | changes


SHORT, LONG = result("train_short", 10, 12.0, 12.0, 99.0), result("hardware", 100, 102.0)


def test_minutes_by_hand():
    """100 pairs a second and two seconds to start; medians count."""
    found = hardware.advice(hardware.passes([LONG, SHORT])).set_index("pairs")
    assert found.index.tolist() == ["1,000", "10,000", "100,000", "1,000,000"]
    assert found["minutes"].tolist() == ["0.2", "1.7", "16.7", "166.7"]
    assert found["pairs per second"].tolist() == ["83", "98", "100", "100"]
    assert found["source"].tolist() == ["measured", "measured", "extrapolated", "extrapolated"]
    assert set(found["memory, GB"]) == {"2.2"}


def test_one_size_alone_is_extrapolated_in_proportion():
    found = hardware.advice(hardware.passes([result("train_short", 6, 6.0)])).set_index("pairs")
    assert found.loc["600", "source"] == "measured"
    assert set(found.drop("600")["source"]) == {"extrapolated"}
    assert found.loc["1,000,000", "minutes"] == "166.7"


def test_a_failed_arm_and_a_smoke_run_measure_nothing():
    assert hardware.passes([result("hardware", 100), result("hardware", 2, 1.0, smoke=True)]) == []
    assert hardware.advice([]).empty


def test_memory_that_the_machine_does_not_tell_is_missing():
    unknown = result("hardware", 100, 102.0)
    unknown["arms"]["ours"]["repeats"][0]["peak_bytes"] = None
    assert set(hardware.advice(hardware.passes([unknown]))["memory, GB"]) == {""}


@pytest.mark.parametrize(("changes", "said"), [({"background_share": 0.31}, "used 31%"), ({}, "2 threads, X")])
def test_caption_says_where_it_was_and_what_spoils_the_numbers(tmp_path, monkeypatch, changes, said):
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    write_result(SHORT | changes, tmp_path)
    write_result(LONG, tmp_path)
    text = hardware.write_advice(tmp_path).read_text()
    assert said in text and "| 1,000,000 | 166.7 | 100 | 2.2 | extrapolated |" in text


def test_machines_are_not_mixed(tmp_path, monkeypatch):
    """600 pairs in 6 s on one machine, 10,000 in 200 s on another: 100 and 50 a second, and no line through both."""
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    write_result(result("train_short", 6, 6.0), tmp_path)
    slower = {"cpu": "Y", "gpu": None, "threads": 2, "instructions": ["avx2"]}
    write_result(result("hardware", 100, 200.0, environment=slower), tmp_path)
    first, second = hardware.write_advice(tmp_path).read_text().split("threads, X")
    assert "| 1,000,000 | 166.7 | 100 |" in first and "| 1,000,000 | 333.3 | 50 |" in second
    assert "threads, Y, avx2." in second


def test_not_measured_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    assert hardware.write_advice(tmp_path).read_text() == "Not measured yet.\n"


def test_the_larger_size_is_the_same_work():
    for smaller, larger in hardware.SOURCES:
        one, other = BENCHMARKS[smaller], BENCHMARKS[larger]
        assert one.arms["ours"] == other.arms["ours"]
        assert {**one.size, "steps": other.size["steps"]} == other.size
        assert other.size["steps"] >= 10 * one.size["steps"]


def test_committed_advice_comes_from_its_measurement(tmp_path, monkeypatch):
    committed, measured = paths.tables_dir() / f"{hardware.TABLE}.md", paths.benchmarks_dir()
    if not committed.exists():
        pytest.skip("no advice is committed")
    expected = committed.read_text(encoding="utf-8")
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    assert hardware.write_advice(measured).read_text(encoding="utf-8") == expected


def test_the_benchmark_table_takes_it():
    row = {"measure": "seconds", "against": None, "arm": "ours", "status": "measured", "cause": "", "value": 102}
    environment = {**LONG["environment"], "cores": 2, "instructions": [], "python": "3", "versions": {}}
    made = {**LONG, "rows": [{**row, "low": 101, "high": 103}], "environment": environment}
    assert "| time |  |  | 102 s [101, 103] |" in table.markdown([BENCHMARKS["hardware"]], {"hardware": made})
