"""Progress reaches the driver, a terminal, or a log file without flooding it."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from embedlab import progress
from embedlab.runs.run_progress import LiveView, ProgressFile
from embedlab.tuning.clock import Clock


@pytest.fixture
def clock(monkeypatch):
    """The clock, which the test moves; no driver, no terminal."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.delenv(progress.ENVIRONMENT_NAME, raising=False)
    return now


def test_a_log_file_gets_a_line_now_and_then(clock, capsys):
    for _ in progress.track(range(400), "encode"):
        clock[0] += 0.125  # 50 s in all
    assert capsys.readouterr().err.splitlines() == [
        "encode · 80/400 (20%), 10 s",
        "encode · 160/400 (40%), 20 s",
        "encode · 240/400 (60%), 30 s",
        "encode · 320/400 (80%), 40 s",
        "encode · 400/400 (100%), 50 s",
    ]


def test_a_short_stage_leaves_no_line(clock, capsys):
    assert list(progress.track("abc", "short")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_steps_of_any_size_are_reported_to_the_driver(clock, monkeypatch, tmp_path):
    file = tmp_path / "progress.jsonl"
    monkeypatch.setenv(progress.ENVIRONMENT_NAME, str(file))
    with progress.counted("encode", 100) as advance:
        for _ in range(10):
            clock[0] += 0.3
            advance(10)
    reports = [json.loads(line) for line in file.read_text().splitlines()]
    assert [report["step"] for report in reports] == [0, 20, 40, 60, 80, 100]
    assert {report["total"] for report in reports} == {100}


def test_a_budget_is_part_of_every_report(monkeypatch, tmp_path):
    file = tmp_path / "progress.jsonl"
    monkeypatch.setenv(progress.ENVIRONMENT_NAME, str(file))
    monkeypatch.setattr(progress, "_budget", None)
    now = [0.0]
    Clock(30, now=lambda: now[0]).show()
    progress.report("linear")
    now[0] = 252.0
    progress.report("train", 3, 10, loss=0.5)
    reports = ProgressFile(file).news()
    assert [(report["spent"], report["budget"]) for report in reports] == [(0.0, 1800.0), (252.0, 1800.0)]
    view = LiveView("12_tune", Console(file=io.StringIO()))
    assert [view.line(report) for report in reports] == [
        "12_tune · linear 0.0 of 30 min",
        "12_tune · train 3/10, loss 0.5, 4.2 of 30 min",
    ]


def test_a_full_disk_does_not_end_a_run(monkeypatch, tmp_path):
    monkeypatch.setenv(progress.ENVIRONMENT_NAME, str(tmp_path / "gone" / "progress.jsonl"))
    progress.report("train")


def test_an_error_in_the_block_is_not_hidden(clock):
    with pytest.raises(ValueError, match="no luck"):
        for _ in progress.track([1], "x"):
            raise ValueError("no luck")
