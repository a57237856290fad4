"""Executed notebooks as readers see them: the outputs of a run with today's text.

A run id covers a notebook's code and not its text, so a corrected sentence does not make a run stale. The copies in
results/notebooks follow the text, and their links are relative to that folder.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

from embedlab import paths
from embedlab.escaping import is_active_html
from embedlab.reporting import tables
from embedlab.runs import notebooks
from embedlab.runs.notebooks import TAG
from embedlab.runs.records import Record

NOTEBOOK_LINK = re.compile(r"\]\((?P<name>[\w-]+\.ipynb)")
WIDGET = "application/vnd.jupyter.widget-view+json"
MARKUP = ("text/html", "text/markdown", "image/svg+xml")
ACTIVE = ("application/javascript", "text/javascript")
OLDER = (
    "> **Executed with an earlier version of this notebook.** Its code, names and text have changed since. "
    "The numbers are those of its record and stay valid."
)


def executed_copy(stem: str) -> Path | None:
    """Find the executed notebook that was published, else that of its latest run; None when there is none."""
    published = paths.executed_notebooks_dir() / f"{stem}.ipynb"
    if published.exists():
        return published
    runs: list[Record] = [record for record in tables.all_records() if record.notebook == stem]
    for record in sorted(runs, key=lambda record: record.finished, reverse=True):
        if (path := paths.runs_dir() / record.run_id / "executed.ipynb").exists():
            return path
    return None


def with_current_prose(executed: nbformat.NotebookNode, current: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Combine the outputs of an executed notebook with today's text, where its code is still the same.

    The parameters cell stays as it ran. A notebook whose code has changed is returned as it ran.
    """
    if notebooks.code(executed) != notebooks.code(current):
        return executed
    ran = [cell for cell in executed.cells if cell.cell_type == "code" and not _is_injected(cell)]
    code = [cell for cell in current.cells if cell.cell_type == "code"]
    for cell, recorded in zip(code, ran, strict=True):
        cell.source, cell.outputs, cell.execution_count = recorded.source, recorded.outputs, recorded.execution_count
    for cell in filter(_is_injected, executed.cells):
        index = next(
            number for number, code_cell in enumerate(current.cells) if TAG in code_cell.metadata.get("tags", ())
        )
        current.cells.insert(index + 1, cell)
    return current


def is_current(executed: Path, stem: str) -> bool:
    """Whether an executed notebook has the code of notebooks/STEM.ipynb."""
    source = notebooks.read(paths.notebooks_dir() / f"{stem}.ipynb")
    return notebooks.code(notebooks.read(executed)) == notebooks.code(source)


def write_copy(executed: Path, stem: str) -> Path:
    """Write results/notebooks/STEM.ipynb from an executed notebook.

    A published copy whose code has changed since keeps its text and outputs and gets a note that says so.
    """
    copy = paths.executed_notebooks_dir() / f"{stem}.ipynb"
    ran = notebooks.read(executed)
    page = with_current_prose(ran, notebooks.read(paths.notebooks_dir() / copy.name))
    if page is ran and executed == copy:
        if all(cell.source != OLDER for cell in ran.cells):
            ran.cells.insert(1, nbformat.v4.new_markdown_cell(OLDER, id="older-code"))
            nbformat.write(ran, copy)
        return copy
    for cell in page.cells:
        if cell.cell_type != "code":
            cell.source = _links_of_copy(cell.source, copy.parent)
        else:  # progress bars do not work in a copy
            cell.outputs = [
                without_active_parts(output) for output in cell.outputs if WIDGET not in output.get("data", ())
            ]
    copy.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(page, copy)
    return copy


def _links_of_copy(text: str, folder: Path) -> str:
    """Links of a notebook, seen from the copies' folder: it is one deeper, and some notebooks have no copy in it."""

    def other_notebook(match: re.Match[str]) -> str:
        there = (folder / match["name"]).exists() or not (paths.notebooks_dir() / match["name"]).exists()
        return match[0] if there else f"](../../notebooks/{match['name']}"

    return NOTEBOOK_LINK.sub(other_notebook, text.replace("](../", "](../../"))


def without_active_parts(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return an output without forms that run or load something; the plain text of the same output stays."""
    data = output.get("data", {})
    for kind in [kind for kind in data if kind in ACTIVE or (kind in MARKUP and is_active_html(joined(data[kind])))]:
        del data[kind]
    return output


def joined(content: object) -> str:
    """Return a text of a notebook, which is stored whole or as a list of lines."""
    return "".join(content) if isinstance(content, list) else str(content)


def refresh_copies() -> list[Path]:
    """Update the text of all copies in results/notebooks."""
    copies = sorted(paths.executed_notebooks_dir().glob("*.ipynb"))
    return [write_copy(copy, copy.stem) for copy in copies if (paths.notebooks_dir() / copy.name).exists()]


def _is_injected(cell: nbformat.NotebookNode) -> bool:
    return "injected-parameters" in cell.metadata.get("tags", ())
