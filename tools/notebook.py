"""Make a notebook from a text file whose cells begin with `# %%`.

    python tools/notebook.py FILE.py NOTEBOOK.ipynb

`# %% [markdown]` begins a markdown cell, written as comments; `# %% tags=["parameters"]` tags a cell. The notebook has
no outputs, and the same text always gives the same file.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path

import nbformat

CELL = re.compile(r"^# %%(?P<head>.*)$", re.MULTILINE)
COMMENT = re.compile(r"^# ?", re.MULTILINE)
TAGS = re.compile(r"tags=(\[.*?\])")
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def convert(text: str) -> nbformat.NotebookNode:
    """Return the notebook of a text in percent format."""
    parts = CELL.split(text)[1:]
    cells = [_cell(head, body.strip("\n")) for head, body in zip(parts[::2], parts[1::2], strict=True)]
    for number, cell in enumerate(cells):
        cell.id = hashlib.sha256(f"{number} {cell.source}".encode()).hexdigest()[:8]
    return nbformat.v4.new_notebook(cells=cells, metadata={**KERNEL, "language_info": {"name": "python"}})


def _cell(head: str, body: str) -> nbformat.NotebookNode:
    if "[markdown]" in head:
        return nbformat.v4.new_markdown_cell(COMMENT.sub("", body))
    cell = nbformat.v4.new_code_cell(body)
    if match := TAGS.search(head):
        cell.metadata["tags"] = json.loads(match[1])
    return cell


def main() -> None:
    """Convert the first argument into the second."""
    if len(sys.argv) != 3:
        raise SystemExit("python tools/notebook.py FILE.py NOTEBOOK.ipynb")
    source, target = map(Path, sys.argv[1:])
    nbformat.write(convert(source.read_text(encoding="utf-8")), target)


if __name__ == "__main__":
    main()
