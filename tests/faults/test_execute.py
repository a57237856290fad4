"""Whole runs of tiny notebooks: every way to end is told apart, and only a committed record is a success."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from embedlab.errors import ParameterError
from embedlab.experiments import records
from embedlab.experiments.execute import run_notebook
from embedlab.experiments.guard import Limits

SETUP = "from embedlab.experiments.runs import start_run\nfrom embedlab.params import Params"
START = """class Tiny(Params):
    x: float
    what: str


params = Tiny.resolve(globals())
run = start_run("01_tiny", params)"""
BODY = """import os, sys, time
if params.what == "raise":
    raise ValueError("no luck")
if params.what == "exit":
    sys.exit(0)
if params.what == "kill":
    os.kill(os.getpid(), 9)
if params.what == "sleep":
    time.sleep(60)"""
END = """run.value("answer", params.x * 2, model="tiny", task="test")
run.finish();"""
DEFAULTS = (
    'x: float = 1.0  # a number\nwhat: str = "ok"  # how to end\nseed: int = 0  # of nothing\noutput_dir: str = ""'
)


@pytest.fixture
def notebook(tmp_path, monkeypatch) -> Path:
    """A project of its own with one notebook in it."""
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    monkeypatch.delenv("EMBEDLAB_PROGRESS", raising=False)
    for name in ("notebooks", "experiments"):
        (tmp_path / name).mkdir()
    cells = [nbformat.v4.new_code_cell(source) for source in (SETUP, DEFAULTS, START, BODY, END)]
    cells[1].metadata["tags"] = ["parameters"]
    path = tmp_path / "notebooks" / "01_tiny.ipynb"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    return path


def no_kernel_left(tmp_path: Path) -> bool:
    """Whether every process that mentions this test's folder or was started for it is gone."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        alive = [p for p in psutil.process_iter(["environ"]) if _home(p) == str(tmp_path) and p.pid != os.getpid()]
        if not alive:
            return True
        time.sleep(0.1)
    return False


def _home(process: psutil.Process) -> str | None:
    try:
        running = process.status() != psutil.STATUS_ZOMBIE
        return (process.info["environ"] or {}).get("EMBEDLAB_HOME") if running else None
    except psutil.Error:
        return None


def test_success_is_a_record_and_the_second_call_is_skipped(notebook, tmp_path):
    outcome = run_notebook(notebook, {"x": 2})
    assert (outcome.cause, outcome.skipped) == ("", False)
    assert outcome.record.metrics[0].value == 4.0
    assert outcome.record.parameters == {"seed": 0, "x": 2.0, "what": "ok"}
    names = {path.name for path in outcome.folder.iterdir()}
    assert {"record.json", "executed.ipynb"} <= names
    executed = (outcome.folder / "executed.ipynb").read_text()
    assert str(tmp_path) not in executed and str(Path.home()) + os.sep not in executed
    again = run_notebook(notebook, {"x": 2.0, "what": "ok"})
    assert again.skipped and again.record == outcome.record
    assert no_kernel_left(tmp_path)


def test_plain_papermill_leaves_the_same_record(notebook, tmp_path):
    command = [sys.executable, "-m", "papermill", str(notebook), str(tmp_path / "out.ipynb"), "-p", "x", "3.0"]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    outcome = run_notebook(notebook, {"x": 3.0})
    assert outcome.skipped
    assert outcome.record.metrics[0].value == 6.0


@pytest.mark.parametrize(
    "what, cause, detail",
    [
        ("raise", "error in cell", "code cell 5: import os, sys, time\nValueError: no luck"),
        ("exit", "incomplete", "without run.finish()"),
        ("kill", "kernel died", ""),
    ],
)
def test_every_bad_end_has_its_cause_and_blocks_nothing(notebook, tmp_path, what, cause, detail):
    outcome = run_notebook(notebook, {"what": what})
    assert (outcome.cause, outcome.record) == (cause, None)
    assert detail in outcome.detail
    (attempt,) = (outcome.folder / "attempts").iterdir()
    assert json.loads((attempt / "failed.json").read_text())["cause"] == cause
    with pytest.raises(records.RecordError, match="has no record"):
        records.read(outcome.folder)
    assert no_kernel_left(tmp_path)


def test_timeout_ends_the_run_and_its_kernel(notebook, tmp_path):
    outcome = run_notebook(notebook, {"what": "sleep"}, limits=Limits(wall_min=8 / 60))
    assert outcome.cause == "timeout"
    assert no_kernel_left(tmp_path)


def test_death_of_the_driver_ends_the_kernel(notebook, tmp_path):
    code = f"from embedlab.experiments.execute import *; run_notebook(Path({str(notebook)!r}), {{'what': 'sleep'}})"
    driver = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any("ipykernel" in " ".join(_command(p)) for p in _family(driver)):
        time.sleep(0.1)
    assert _family(driver)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert no_kernel_left(tmp_path)


def _family(process: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_failure_then_success_then_force(notebook):
    source = notebook.read_text()
    notebook.write_text(source.replace("params.x * 2", "params.y * 2"))
    assert run_notebook(notebook).cause == "error in cell"
    notebook.write_text(source)
    first = run_notebook(notebook)
    assert first.record is not None
    forced = run_notebook(notebook, force=True)
    assert not forced.skipped and forced.record.attempt != first.record.attempt


@pytest.mark.parametrize("values, message", [({"y": 1}, "there is no parameter 'y'"), ({"x": "text"}, "is no float")])
def test_bad_values_are_refused_before_anything_runs(notebook, tmp_path, values, message):
    with pytest.raises(ParameterError, match=message):
        run_notebook(notebook, values)
    assert not (tmp_path / "results").exists()
