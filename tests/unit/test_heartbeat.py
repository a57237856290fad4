"""Whether a driver is alive: looked up on this machine, and seen by changes on another, whatever its clock says."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time

import pytest

from embedlab.runs import attempts, execute, failures, heartbeat, left_behind
from embedlab.runs.heartbeat import ENDED, RUNNING, UNDECIDED, Observer
from embedlab.runs.run import FAILED, new_attempt_name

TOMORROW_S, TEN_MINUTES_S = 86_400, 600


@pytest.fixture
def scratch(tmp_path):
    """The scratch folder of an attempt that reports."""
    folder = tmp_path / "results" / "runs" / "01_tiny-01234567-s0" / "attempts" / "1-a" / "scratch"
    folder.mkdir(parents=True)
    (folder / heartbeat.REPORTS).write_text("")
    return folder


@pytest.fixture
def clock(monkeypatch):
    """The observer's own clock, which the test moves."""
    now = [1000.0]
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now[0])
    return now


def dated(scratch, seconds: float) -> None:
    """Give the reports a date so far from this machine's."""
    moment = time.time() + seconds
    os.utime(scratch / heartbeat.REPORTS, (moment, moment))


def claimed_by_a_dead_process(folder) -> None:
    code = f"from pathlib import Path; from embedlab.runs import heartbeat; heartbeat.claim(Path({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_on_this_machine_the_process_counts_whatever_the_dates(scratch):
    heartbeat.claim(scratch)
    dated(scratch, -TOMORROW_S)
    assert Observer().state(scratch) == RUNNING and heartbeat.host_of(scratch) == socket.gethostname()
    claimed_by_a_dead_process(scratch)
    dated(scratch, TOMORROW_S)
    assert Observer().state(scratch) == ENDED


def test_a_pid_that_another_process_has_now_is_dead(scratch):
    heartbeat.claim(scratch)
    content = json.loads((scratch / heartbeat.FILE).read_text())
    (scratch / heartbeat.FILE).write_text(json.dumps({**content, "started": "12"}))
    assert heartbeat.is_alive(scratch) is False


def test_an_unreaped_process_is_dead(scratch):
    process = subprocess.Popen(
        [sys.executable, "-c", f"from pathlib import Path; import os; from embedlab.runs import heartbeat;"
         f"heartbeat.claim(Path({str(scratch)!r})); os._exit(0)"]
    )  # fmt: skip
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert heartbeat.is_alive(scratch) is False
    process.wait()


@pytest.mark.parametrize("offset", [TOMORROW_S, 0, -TEN_MINUTES_S])
def test_on_another_machine_changes_count_and_no_date(scratch, clock, monkeypatch, offset):
    heartbeat.claim(scratch)
    monkeypatch.setattr(heartbeat, "this_host", lambda: "other")
    observer = Observer()
    dated(scratch, offset)
    assert observer.state(scratch) == UNDECIDED
    clock[0] += 2
    dated(scratch, offset + 1)
    assert observer.state(scratch) == RUNNING
    clock[0] += heartbeat.LEASE_S - 1
    assert observer.state(scratch) == RUNNING
    clock[0] += 2
    assert observer.state(scratch) == ENDED
    dated(scratch, offset + 2)  # it was only slow
    assert observer.state(scratch) == RUNNING


def test_a_dead_attempt_of_another_machine_is_known_after_seconds(scratch, clock, monkeypatch):
    dated(scratch, TOMORROW_S)  # nothing says which machine: an attempt of an older version
    observer = Observer()
    assert observer.state(scratch) == UNDECIDED
    clock[0] += heartbeat.FIRST_LOOK_S + 0.1
    assert observer.state(scratch) == ENDED
    (scratch / heartbeat.REPORTS).unlink()
    assert observer.state(scratch) == ENDED


def test_one_look_waits_until_it_is_known(scratch, clock, monkeypatch, tmp_path):
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    waited = []

    def wait(seconds):
        waited.append(seconds)
        clock[0] += seconds
        if len(waited) == 3:
            dated(scratch, -TEN_MINUTES_S)  # a beat of a living one whose clock is behind

    monkeypatch.setattr(attempts.time, "sleep", wait)
    monkeypatch.setattr(attempts, "_observer", Observer())
    assert [attempt.run_id for attempt in attempts.running(certain=True)] == ["01_tiny-01234567-s0"]
    assert len(waited) == 3
    monkeypatch.setattr(attempts, "_observer", Observer())
    waited.clear()
    waited += [0.0] * 3
    assert attempts.running(certain=True) == []


def test_a_new_attempt_sorts_after_one_that_was_dated_tomorrow(tmp_path):
    tomorrow = f"{int(time.time()) + TOMORROW_S}-ffffffff"
    (tmp_path / "attempts" / tomorrow).mkdir(parents=True)
    (tmp_path / "attempts" / "notes").mkdir()
    assert sorted([new_attempt_name(tmp_path), tomorrow])[0] == tomorrow


def test_what_a_killed_driver_left_is_removed_and_explained(scratch, monkeypatch, tmp_path):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    folders = {name: tmp_path / "tmp" / f"embedlab-{name}" for name in ("dead", "living", "unknown")}
    for folder in folders.values():
        folder.mkdir()
    for folder in (scratch, folders["dead"]):
        claimed_by_a_dead_process(folder)
    heartbeat.claim(folders["living"])
    (scratch / execute.LOG).write_text("its last words")
    run_folder = scratch.parents[2]
    left_behind.clean(run_folder)
    assert sorted(path.name for path in (tmp_path / "tmp").iterdir()) == ["embedlab-living", "embedlab-unknown"]
    assert not scratch.exists() and (scratch.parent / execute.LOG).read_text() == "its last words"
    assert json.loads((scratch.parent / FAILED).read_text())["cause"] == "infrastructure"
    (row,) = failures.failures(folder=run_folder.parent).to_dict("records")
    assert "was killed" in row["detail"]
