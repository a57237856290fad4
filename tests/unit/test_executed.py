"""Executed notebooks under the prose of today, and where their links lead."""

from __future__ import annotations

import re

import nbformat
import pytest

from embedlab import paths
from embedlab.reporting import notebook_outputs

LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def notebook(*cells):
    made = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell}
    return nbformat.v4.new_notebook(cells=[made[kind](source) for kind, source in cells])


def test_prose_of_today_over_outputs_of_the_run_while_the_code_is_the_same():
    ran, now = notebook(("markdown", "old"), ("code", "x = 1"), ("code", "x = 5"), ("code", "x")), None
    ran.cells[1].metadata["tags"], ran.cells[2].metadata["tags"] = ["parameters"], ["injected-parameters"]
    ran.cells[3].outputs = [nbformat.v4.new_output("stream", text="5")]
    now = notebook(("markdown", "new"), ("code", "x = 2"), ("code", "x"))  # another default since
    now.cells[1].metadata["tags"] = ["parameters"]
    shown = notebook_outputs.with_current_prose(ran, now)
    assert [cell.source for cell in shown.cells] == ["new", "x = 1", "x = 5", "x"]
    assert shown.cells[3].outputs[0].text == "5"
    changed = notebook(("markdown", "new"), ("code", "x = 1"), ("code", "x + 1"))
    assert notebook_outputs.with_current_prose(ran, changed) is ran


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with one notebook, and the same notebook as a run left it."""
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


def write(path, prose, code="1 + 1", output=""):
    made = notebook(("markdown", prose), ("code", code))
    bar = nbformat.v4.new_output("display_data", {notebook_outputs.WIDGET: {"model_id": "x"}, "text/plain": "0%"})
    made.cells[1].outputs = [bar, nbformat.v4.new_output("stream", text=output)] if output else []
    path.parent.mkdir(exist_ok=True)
    nbformat.write(made, path)
    return path


def read(path):
    return [cell.source for cell in nbformat.read(path, 4).cells]


def test_a_copy_follows_the_prose_and_its_links_lead_on(project):
    now = write(project / "notebooks" / "01_a.ipynb", "see [log](../experiments/LOG.md), [b](02_b.ipynb)")
    ran = write(project / "ran.ipynb", "before", output="2")
    copy = notebook_outputs.write_copy(ran, "01_a")
    assert copy == project / "results" / "notebooks" / "01_a.ipynb"
    assert read(copy)[0] == "see [log](../../experiments/LOG.md), [b](02_b.ipynb)"
    assert nbformat.read(copy, 4).cells[1].outputs[0].text == "2"
    write(now, "mended [log](../experiments/LOG.md)")
    assert notebook_outputs.refresh_copies() == [copy]
    assert read(copy)[0] == "mended [log](../../experiments/LOG.md)"
    assert notebook_outputs.refresh_copies() == [copy] and read(copy)[0] == "mended [log](../../experiments/LOG.md)"


def test_a_link_to_a_notebook_without_a_copy_leads_to_the_notebook(project):
    write(project / "notebooks" / "01_a.ipynb", "[b](02_b.ipynb), [c](03_c.ipynb#part), [d](04_d.ipynb)")
    for name in ("02_b", "03_c"):
        write(project / "notebooks" / f"{name}.ipynb", name)
    notebook_outputs.write_copy(write(project / "ran.ipynb", name, output="2"), "02_b")
    copy = notebook_outputs.write_copy(write(project / "ran.ipynb", "before", output="2"), "01_a")
    assert read(copy)[0] == "[b](02_b.ipynb), [c](../../notebooks/03_c.ipynb#part), [d](04_d.ipynb)"
    assert notebook_outputs.refresh_copies()[0] == copy and "(../../notebooks/03_c.ipynb" in read(copy)[0]


def test_a_copy_of_other_code_stays_as_it_ran(project):
    write(project / "notebooks" / "01_a.ipynb", "[log](../LOG.md)")
    copy = notebook_outputs.write_copy(
        write(project / "ran.ipynb", "[old](../LOG.md)", code="2 + 2", output="4"), "01_a"
    )
    assert read(copy) == ["[old](../../LOG.md)", "2 + 2"]
    for _ in range(2):
        notebook_outputs.refresh_copies()
        assert read(copy) == ["[old](../../LOG.md)", notebook_outputs.OLDER, "2 + 2"]
    assert not notebook_outputs.is_current(copy, "01_a")


@pytest.mark.parametrize("path", sorted(paths.executed_notebooks_dir().glob("*.ipynb")), ids=lambda path: path.stem)
def test_committed_copies_of_older_code_say_so(path):
    says_so = notebook_outputs.OLDER in read(path)
    assert says_so != notebook_outputs.is_current(path, path.stem)


@pytest.mark.parametrize("path", sorted(paths.executed_notebooks_dir().glob("*.ipynb")), ids=lambda path: path.stem)
def test_links_of_committed_copies_lead_somewhere(path):
    prose = "\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")
    assert [target for target in LINK.findall(prose) if not (path.parent / target).exists()] == []
