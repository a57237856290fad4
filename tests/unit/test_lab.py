"""In JupyterLab: parameters are seen, the kernel is there, progress is a widget, and text where none can be."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import nbformat
import pytest

from embedlab import paths, progress
from embedlab.runs import notebooks

ALL = sorted(paths.notebooks_dir().glob("*.ipynb"))
HIDING = {"hide", "hide-cell", "hide-input", "hide_input", "remove-cell", "remove_cell", "remove-input"}
WIDGET = "application/vnd.jupyter.widget-view+json"
COUNT = "from embedlab.progress import track\nassert list(track(range(3), 'counting')) == [0, 1, 2]"


@pytest.fixture
def alone(monkeypatch):
    """No driver follows."""
    monkeypatch.delenv(progress.ENVIRONMENT_NAME, raising=False)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_no_cell_is_hidden(path):
    for cell in notebooks.read(path).cells:
        assert not HIDING & set(cell.metadata.get("tags", ()))
        assert not cell.metadata.get("collapsed") and not cell.metadata.get("jupyter", {}).get("source_hidden")


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_opens_with_the_kernel_of_the_environment(path):
    assert notebooks.read(path).metadata["kernelspec"]["name"] == "python3"


def test_registered_kernel_is_this_environment(tmp_path):
    recipe = (paths.project_root() / "Makefile").read_text(encoding="utf-8").partition("\nlab:")[2]
    assert "ipykernel install --sys-prefix --name embedlab" in recipe
    command = [sys.executable, "-m", "ipykernel", "install", "--prefix", str(tmp_path), "--name", "embedlab"]
    subprocess.run(command, check=True, capture_output=True)
    kernel = json.loads((tmp_path / "share" / "jupyter" / "kernels" / "embedlab" / "kernel.json").read_text())
    assert kernel["argv"][0] == sys.executable and kernel["language"] == "python"


def test_progress_is_a_widget_with_a_text_beside_it(alone):
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(COUNT)])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    shown = [output for output in notebook.cells[0].outputs if output.output_type == "display_data"]
    assert any(WIDGET in output.data and "counting" in output.data["text/plain"] for output in shown)


@pytest.mark.parametrize("blocked", ["", "import sys; sys.modules['ipywidgets'] = None\n"])
def test_progress_is_text_where_there_are_no_widgets(alone, blocked):
    always = "import embedlab.progress\nembedlab.progress.LINE_EVERY_S = 0\n"
    command = [sys.executable, "-c", blocked + always + COUNT]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0 and "counting" in done.stderr


def test_a_driver_hears_and_no_bar_is_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(progress.ENVIRONMENT_NAME, str(tmp_path / "reports"))
    monkeypatch.setattr(progress, "EVERY_S", 0)
    assert list(progress.track(range(3), "counting")) == [0, 1, 2]
    reports = [json.loads(line) for line in (tmp_path / "reports").read_text().splitlines()]
    assert [report["step"] for report in reports] == [0, 1, 2, 3] and reports[0]["total"] == 3
    assert "counting" not in capsys.readouterr().err
