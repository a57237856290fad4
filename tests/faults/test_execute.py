"""Whole runs of tiny notebooks: every way to end is told apart, and only a committed record is a success."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from embedlab.errors import ParameterError
from embedlab.runs import records
from embedlab.runs.execute import run_notebook
from embedlab.runs.limits import Limits
from tests.faults import tiny


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
        ("kill", "kernel died", ""),
    ],
)
def test_every_bad_end_has_its_cause_and_blocks_nothing(notebook, home, what, cause, detail):
    outcome = run_notebook(notebook, {"what": what}, warm=True)
    assert (outcome.cause, outcome.record) == (cause, None)
    assert detail in outcome.detail
    (attempt,) = (outcome.folder / "attempts").iterdir()
    assert json.loads((attempt / "failed.json").read_text())["cause"] == cause
    with pytest.raises(records.RecordError, match="has no record"):
        records.read(outcome.folder)
    assert tiny.all_gone(home)


@pytest.mark.parametrize(
    "values, limits, cause",
    [
        ({"seconds": 60.0}, Limits(wall_min=2 / 60), "timeout"),
        ({"what": "eat"}, Limits(mem_gb=0.5), "out of memory"),
    ],
)
def test_limits_end_a_run_and_all_it_started(notebook, home, values, limits, cause):
    outcome = run_notebook(notebook, values, limits=limits, warm=True)
    assert outcome.cause == cause
    assert tiny.all_gone(home)


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
