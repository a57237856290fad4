"""Whole runs of tiny notebooks: every way to end is told apart, and only a committed record is a success."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from embedlab import progress
from embedlab.cli import signals
from embedlab.errors import ParameterError
from embedlab.runs import execute, limits, records
from embedlab.runs.causes import NOISE
from embedlab.runs.execute import run_notebook
from embedlab.runs.limits import Limits
from tests.faults import tiny

TIME_LIMIT_S = 20  # long enough for a kernel to start and to measure


@pytest.fixture
def notebook(home) -> Path:
    """The first notebook of a project of its own."""
    return home / "notebooks" / "01_tiny.ipynb"


def score(outcome) -> float:
    return next(row.value for row in outcome.record.metrics if row.metric == "score")


def test_success_is_a_record_and_the_second_call_is_skipped(notebook, home):
    outcome = run_notebook(notebook, {"x": 2})
    assert (outcome.cause, outcome.skipped) == ("", False)
    assert score(outcome) == -4.0
    assert outcome.record.parameters == {"seed": 0, "x": 2.0, "what": "ok", "seconds": 0.0}
    names = {path.name for path in outcome.folder.iterdir()}
    assert {"record.json", "executed.ipynb", "model"} <= names
    executed = (outcome.folder / "executed.ipynb").read_text()
    assert str(home) not in executed and str(Path.home()) + os.sep not in executed
    again = run_notebook(notebook, {"x": 2.0, "what": "ok"})
    assert again.skipped and again.record == outcome.record
    assert tiny.all_gone(home)


def test_plain_papermill_leaves_the_same_record(notebook, home):
    command = [sys.executable, "-m", "papermill", str(notebook), str(home / "out.ipynb"), "-p", "x", "3.0"]
    subprocess.run(command, check=True, capture_output=True, cwd=home)
    outcome = run_notebook(notebook, {"x": 3.0})
    assert outcome.skipped and score(outcome) == -9.0


@pytest.mark.parametrize(
    "what, cause, detail",
    [
        ("raise", "error in cell", "code cell 5: import builtins, os, pathlib, random, sys, time\nValueError: no luck"),
        ("exit", "incomplete", "before run.finish()"),
        ("kill", "kernel died", "The kernel ended in stage 'start' without an error: it was killed, or it crashed."),
        ("locked", "infrastructure", "Another process kept a database locked for too long. Run it again.\ncode cell 5"),
    ],
)
def test_every_bad_end_has_its_cause_and_blocks_nothing(notebook, home, what, cause, detail):
    outcome = run_notebook(notebook, {"what": what}, warm=True)
    assert (outcome.cause, outcome.record) == (cause, None)
    assert detail in outcome.detail and not NOISE.search(outcome.detail)
    (attempt,) = (outcome.folder / "attempts").iterdir()
    assert json.loads((attempt / "failed.json").read_text())["cause"] == cause
    with pytest.raises(records.RecordError, match="has no record"):
        records.read(outcome.folder)
    assert tiny.all_gone(home)


def test_a_run_that_needs_too_much_memory_says_how_much(notebook, home):
    outcome = run_notebook(notebook, {"what": "eat"}, limits=Limits(mem_gb=0.5), warm=True)
    assert outcome.cause == "out of memory"
    assert re.match(r"It needed more than 0\.5 GiB, its limit, and had [\d.]+ GiB in stage 'start'\. ", outcome.detail)
    assert not NOISE.search(outcome.detail)
    assert tiny.all_gone(home)


def test_a_time_limit_keeps_what_was_measured(notebook, home, command):
    outcome = run_notebook(notebook, {"what": "measure"}, limits=Limits(wall_min=TIME_LIMIT_S / 60), warm=True)
    assert outcome.cause == "timeout" and tiny.all_gone(home)
    first, kept = outcome.detail.splitlines()
    assert first.startswith("Stopped in stage 'speed' by its time limit of") and "Raise --timeout" in first
    (attempt,) = (outcome.folder / "attempts").iterdir()
    assert (
        kept == f"Kept in the run's folder attempts/{attempt.name}: 1 numbers (`embedlab table --incomplete`), model/."
    )
    assert {path.name for path in attempt.iterdir()} >= {"measured.jsonl", "failed.json", "model", "driver.log"}
    code, shown, _ = command("table", "--incomplete", "--format", "csv")
    assert code == 0 and f"{outcome.run_id} (incomplete: timeout)" in shown and ",0.5," in shown
    assert outcome.run_id not in command("table", "--format", "csv")[1]
    tiny.write_sweep(home, fixed={"what": "measure"})
    assert "1 runs, 0 finished, 1 to do" in " ".join(command("sweep", "s", "--dry-run")[1].split())


def test_a_time_limit_stops_a_training_at_a_checkpoint_and_the_next_start_continues(home, monkeypatch):
    """Two trainings: the first is not repeated, the second goes on, and all bits are those of an undisturbed run."""
    monkeypatch.setenv("EMBEDLAB_CACHE", str(home / "cache"))
    notebook, batches = home / "notebooks" / "09_train.ipynb", home / "batches.txt"
    reason_to_end, waits_since = limits.Guard.reason_to_end, []

    def ask_once_the_second_training_waits(guard):  # however slow this machine is
        if (home / "wait").exists() and batches.exists() and len(batches.read_text().split()) > 8:
            waits_since.append(time.monotonic())
        guard._ask_at = waits_since[0] + 5 * progress.STOP_EVERY_S if waits_since else math.inf
        return reason_to_end(guard)

    undisturbed = run_notebook(notebook, {"x": 2.0}, warm=True)
    assert undisturbed.record, undisturbed.detail
    assert not list((home / "cache" / "checkpoints").rglob("*.pt"))
    batches.unlink()
    (home / "wait").touch()
    with monkeypatch.context() as patch:
        patch.setattr(limits.Guard, "reason_to_end", ask_once_the_second_training_waits)
        stopped = run_notebook(notebook, limits=Limits(wall_min=200 / 60), warm=True)
    assert stopped.cause == "timeout" and tiny.all_gone(home), stopped.detail
    first, second = stopped.detail.splitlines()
    assert re.match(r"Stopped in stage 'train 2', step \d of 6, by its time limit of 3.33333 minutes\. ", first)
    assert first.endswith("It wrote a checkpoint: start the run again, and the training continues from there.")
    assert "2 numbers" in second
    (home / "wait").unlink()
    used = len(batches.read_text().split())
    resumed = run_notebook(notebook, warm=True)
    assert resumed.record, resumed.detail
    assert resumed.record.notes == undisturbed.record.notes
    assert used + 6 > len(batches.read_text().split()) > used  # fewer batches than even one training has
    assert not list((home / "cache" / "checkpoints").rglob("*.pt"))


def test_a_finished_run_keeps_no_second_copy_of_its_numbers(notebook):
    outcome = run_notebook(notebook, warm=True)
    assert outcome.record and not list(outcome.folder.rglob("measured.jsonl"))


def test_a_notebook_without_metadata_runs(notebook, home):
    content = json.loads(notebook.read_text())
    notebook.write_text(json.dumps({**content, "metadata": {}}))
    outcome = run_notebook(notebook, warm=True)
    assert outcome.record, outcome.detail


def test_a_model_that_changes_after_planning_stops_the_run(home):
    source = home / "model"
    source.mkdir()
    (source / "config.json").write_text("{}")
    (source / "weights.txt").write_text("1")
    plan = execute.plan(home / "notebooks" / "02_later.ipynb", {"source": "model"})
    (source / "weights.txt").write_text("2")
    outcome = execute.perform(plan, warm=True)
    assert outcome.record is None and "a file that its parameters name changed" in outcome.detail
    again = run_notebook(home / "notebooks" / "02_later.ipynb", {"source": "model"}, warm=True)
    assert again.record.metrics[0].value == 2.0 and list(again.record.inputs) == ["model"]


@pytest.mark.parametrize("number, times", [(signal.SIGTERM, 1), (signal.SIGHUP, 1), (signal.SIGINT, 3)])
def test_a_signal_cancels_a_run_cleanly(notebook, home, number, times):
    """The attempt is marked, nothing goes on, nothing is left, and the terminal has its cursor."""
    (home / "tmp").mkdir()
    controller, terminal = os.openpty()
    environment = {**os.environ, "TMPDIR": str(home / "tmp"), "TERM": "xterm"}
    command = [sys.executable, "-m", "embedlab.cli", "run", "01", "-p", "seconds=60"]
    process = subprocess.Popen(command, env=environment, stdout=terminal, stderr=terminal, start_new_session=True)
    os.close(terminal)
    written = []
    reader = threading.Thread(target=read_all, args=(controller, written))
    reader.start()
    tiny.until(lambda: tiny.runs_and_kernels(home)[1])
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.05)
    assert process.wait(timeout=60) == 128 + number
    reader.join()
    os.close(controller)
    (failed,) = home.glob("results/runs/*/attempts/*/failed.json")
    assert json.loads(failed.read_text())["cause"] == "cancelled"
    assert tiny.all_gone(home) and not list((home / "tmp").glob("embedlab-*"))
    assert not list(home.glob("results/runs/*/attempts/*/scratch"))
    text = b"".join(written)
    assert text.rfind(b"\x1b[?25h") > text.rfind(b"\x1b[?25l") and b"Traceback" not in text


def read_all(descriptor, written):
    """Read a terminal until its last process has closed it."""
    with contextlib.suppress(OSError):
        while block := os.read(descriptor, 65536):
            written.append(block)


@pytest.fixture
def restored():
    """Handlers of signals as they were."""
    handlers = {number: signal.getsignal(number) for number in signals.SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_nohup_stays_in_force(restored):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with signals.interruptible() as received:
        os.kill(os.getpid(), signal.SIGHUP)
    assert received == [] and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_only_the_first_signal_counts_until_the_end_of_the_process(restored):
    with signals.interruptible() as received:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    assert received == [signal.SIGTERM]


def test_death_of_the_driver_ends_the_kernel(notebook, home):
    code = f"from embedlab.runs.execute import *; run_notebook(Path({str(notebook)!r}), {{'seconds': 60.0}})"
    driver = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    tiny.until(lambda: tiny.runs_and_kernels(home)[1])
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert tiny.all_gone(home)


def test_failure_then_success_then_force(notebook):
    source = notebook.read_text()
    notebook.write_text(source.replace("-(params.x**2)", "-(params.y**2)"))
    assert run_notebook(notebook, warm=True).cause == "error in cell"
    notebook.write_text(source)
    first = run_notebook(notebook, warm=True)
    assert first.record is not None
    forced = run_notebook(notebook, force=True, warm=True)
    assert not forced.skipped and forced.record.attempt != first.record.attempt


@pytest.mark.parametrize(
    "values, message", [({"y": 1}, "there is no parameter 'y'"), ({"x": "text"}, "must be float, got")]
)
def test_bad_values_are_refused_before_anything_runs(notebook, home, values, message):
    with pytest.raises(ParameterError, match=message):
        run_notebook(notebook, values)
    assert not (home / "results").exists()
