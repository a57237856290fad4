"""Real runs of a tiny notebook: where it runs, what it leaves behind, and who wins when two finish."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from embedlab import paths
from embedlab.errors import ParameterError
from embedlab.redaction import shareable
from embedlab.runs import execute, processes, records
from embedlab.runs.execute import TEXT_DIRECTION, first_error, portable, run_notebook

CELLS = (
    "import os, subprocess, sys\nfrom embedlab.runs import records\n"
    "from embedlab.runs.run import start_run\nfrom embedlab.params import Params",
    'text: str = "a"  # kept to the letter\nrates: list[float] = [1, 2]\nwhat: str = ""  # how to end\n'
    'seed: int = 0\noutput_dir: str = ""',
    "class Tiny(Params):\n    text: str\n    rates: list[float]\n    what: str\n\n\n"
    'params = Tiny.resolve(globals())\nrun = start_run("01_tiny", params)',
    'sleeper = 0\nif "EMBEDLAB_ATTEMPT" in os.environ:  # a driver will end it\n'
    '    sleeper = subprocess.Popen(["sleep", "300"], start_new_session=True).pid\n'
    "run.note(text=params.text, python=sys.executable, cwd=os.getcwd(), sleeper=sleeper)",
    'if params.what == "raise":\n    raise ValueError("no luck")',
    'if params.what == "lose":\n    other = run._record().model_copy(update={"attempt": "other"})\n'
    "    assert records.commit(other, run.folder)",
    "run.finish()",
)
ODD = "007 \"quoted\" \\back 'single' {brace} ä\t1e-5"


@pytest.fixture
def notebook(tmp_path, monkeypatch) -> Path:
    """A project of its own with one notebook in it, and another working folder."""
    home = tmp_path / "home"
    monkeypatch.setenv("EMBEDLAB_HOME", str(home))
    for name in (processes.ATTEMPT_VARIABLE, processes.NOTEBOOK_VARIABLE, "EMBEDLAB_PROGRESS"):
        monkeypatch.delenv(name, raising=False)
    (home / "notebooks").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    cells[1].metadata["tags"] = ["parameters"]
    path = home / "notebooks" / "01_tiny.ipynb"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    return path


def foreign_kernelspec(folder: Path) -> None:
    """A `python3` of another environment, as many users have one; it would fail at once."""
    spec = folder / "kernels" / "python3"
    spec.mkdir(parents=True)
    spec.joinpath("kernel.json").write_text(json.dumps({"argv": ["/bin/false"], "display_name": "x", "language": "x"}))


def ended(pid: int) -> bool:
    """Whether a process is gone, or will be within moments."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.notebook
def test_a_run_from_elsewhere_with_odd_text_leaves_no_process_behind(notebook, tmp_path, monkeypatch):
    """One execution, several promises: the kernel's interpreter and folder, text to the letter, a copy of the notebook
    outside the project, places from the caller's folder, HTML, and no orphan of the notebook's own."""
    foreign_kernelspec(tmp_path / "jupyter")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    copy = tmp_path / "elsewhere" / notebook.name
    shutil.copy(notebook, copy)
    copy.write_bytes(b"\xef\xbb\xbf" + copy.read_bytes().replace(b"run.note(", b"run.note(copy=1, "))
    outcome = run_notebook(copy, {"text": ODD}, output_dir="kept", html=True)
    assert (outcome.cause, outcome.skipped) == ("", False), outcome.detail
    assert outcome.folder == tmp_path / "elsewhere" / "kept" / outcome.run_id
    notes = outcome.record.notes
    assert (notes["text"], notes["copy"]) == (ODD, 1)
    # Records do not name folders of the machine: the project folder is "".
    assert (notes["python"], notes["cwd"]) == (shareable(sys.executable), "")
    assert notes["sleeper"] > 0 and ended(notes["sleeper"])
    assert {"record.json", "executed.ipynb", "executed.html"} <= {path.name for path in outcome.folder.iterdir()}
    page = (outcome.folder / "executed.html").read_text(encoding="utf-8")
    assert page.count(TEXT_DIRECTION) == 1 and page.index(TEXT_DIRECTION) < page.index("<body")
    assert not paths.runs_dir().exists()
    assert run_notebook(copy, {"text": ODD, "output_dir": str(outcome.folder.parent)}).skipped


@pytest.mark.notebook
def test_losing_the_race_is_a_finished_run_and_no_failure(notebook):
    outcome = run_notebook(notebook, {"what": "lose"})
    assert outcome.skipped and outcome.record.attempt == "other"
    assert records.read(outcome.folder) == outcome.record
    (attempt,) = (outcome.folder / "attempts").iterdir()
    assert "committed first" in json.loads((attempt / "failed.json").read_text())["detail"]
    assert {path.name for path in outcome.folder.iterdir()} == {"record.json", "attempts"}


@pytest.mark.notebook
def test_plain_papermill_marks_a_failed_attempt_too(notebook, tmp_path):
    command = [sys.executable, "-m", "papermill", str(notebook), str(tmp_path / "out.ipynb"), "-p", "what", "raise"]
    assert subprocess.run(command, capture_output=True).returncode != 0
    (failed,) = paths.runs_dir().glob("*/attempts/*/failed.json")
    assert json.loads(failed.read_text())["detail"] == "ValueError: no luck"
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    lines = first_error(executed).splitlines()
    assert lines[:2] == ['code cell 6: if params.what == "raise":', "ValueError: no luck"]
    assert any('raise ValueError("no luck")' in line for line in lines[2:])
    assert not any("\x1b" in line for line in lines)


def test_an_error_about_the_input_has_no_traceback():
    for name, lines in [("DataError", 2), ("ParameterError", 2), ("ValueError", 4)]:
        cell = nbformat.v4.new_code_cell("load()")
        traceback = ["File x", "--> 1", "last"]
        cell.outputs = [nbformat.v4.new_output("error", ename=name, evalue="bad", traceback=traceback)]
        found = first_error(nbformat.v4.new_notebook(cells=[cell])).splitlines()
        assert found[:2] == ["code cell 1: load()", f"{name}: bad"] and len(found) == lines


@pytest.mark.parametrize(
    "values, message",
    [
        ({"txt": "a"}, "there is no parameter 'txt'. Did you mean 'text'"),
        ({"text": 7}, "must be str, got 7"),
        ({"seed": True}, "must be int, got True"),
        ({"rates": [1, "2"]}, r"must be list\[float\]"),
        ({"rates": [float("nan")]}, r"must be list\[float\]"),
    ],
)
def test_bad_values_are_refused_before_anything_is_written(notebook, values, message):
    with pytest.raises(ParameterError, match=message):
        run_notebook(notebook, values)
    assert not paths.results_dir().exists()


def test_an_output_folder_needs_a_notebook_that_knows_one(tmp_path, notebook):
    content = nbformat.read(notebook, as_version=4)
    content.cells[1].source = "seed: int = 0"
    nbformat.write(content, notebook)
    with pytest.raises(ParameterError, match="'output_dir'"):
        run_notebook(notebook, output_dir=str(tmp_path / "kept"))


def test_processes_are_found_by_the_attempt_they_belong_to(monkeypatch):
    """Asked first, made to afterwards; another attempt's, this one and nobody's are left alone."""
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", stubborn]
    start = {name: {**os.environ, processes.ATTEMPT_VARIABLE: name} for name in ("mine", "other")}
    started = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE) for env in start.values()]
    try:
        for process in started:
            process.stdout.readline()
        assert [process.pid for process in processes.members("mine")] == [started[0].pid]
        inside = "from embedlab.runs import processes as p; print([m.pid for m in p.members('mine')])"
        answer = subprocess.run([sys.executable, "-c", inside], env=start["mine"], capture_output=True, text=True)
        assert answer.stdout.strip() == f"[{started[0].pid}]"  # the caller is a member too and ends itself last
        monkeypatch.setattr(processes, "GRACE_S", 0.2)
        processes.end("mine")
        assert started[0].wait(timeout=5) == -9
        assert started[1].poll() is None
    finally:
        for process in started:
            process.kill()
            process.wait()
            process.stdout.close()


def test_a_half_saved_notebook_is_no_second_failure(tmp_path):
    path = tmp_path / "executed.ipynb"
    assert execute._executed(path) is None
    path.write_text('{"cells": [')
    assert execute._executed(path) is None
    assert first_error(None) == ""


def test_an_executed_notebook_names_no_folder_of_this_machine(notebook, monkeypatch):
    source = f"{paths.project_root()}/a {sys.prefix}/b https://example.org"
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(source)])
    assert portable(content, notebook).cells[0].source == "a environment/b https://example.org"
    monkeypatch.setenv("HOME", "/")
    assert portable(content, notebook).cells[0].source.endswith("https://example.org")
