"""API reference: one page per room of the package, rendered by mkdocstrings from the docstrings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import embedlab

PACKAGE = Path(embedlab.__file__).parent
FOLDER = "api"

# How mkdocstrings reads and shows docstrings; see its Python handler's documentation.
OPTIONS = {
    "docstring_style": "google",
    "docstring_options": {"warnings": False},
    "docstring_section_style": "list",
    "filters": ["!^_"],
    "heading_level": 2,
    "members_order": "source",
    "separate_signature": True,
    "show_if_no_docstring": False,
    "show_root_full_path": True,
    "show_root_heading": True,
    "show_source": False,
    "show_signature_annotations": True,
}


def plugin() -> dict[str, object]:
    """The mkdocs plugin entry that turns `::: module` lines into documentation."""
    return {"mkdocstrings": {"handlers": {"python": {"paths": [str(PACKAGE.parent)], "options": OPTIONS}}}}


def write_api_pages(folder: Path) -> list[str]:
    """Write one Markdown page per room and an index.

    Args:
        folder: the site's source folder; pages go into its subfolder `api`.

    Returns:
        Paths of the pages relative to `folder`, the index first.
    """
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    rooms = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
    pages = []
    for room in rooms:
        modules = list(_modules(PACKAGE / room))
        content = [f"# embedlab.{room}", *(f"::: {name}" for name, _ in modules)]
        (target / f"{room}.md").write_text("\n\n".join(content) + "\n", encoding="utf-8")
        pages.append((room, [summary for _, summary in modules]))
    lines = ["# API reference", "", "| package | modules |", "|---|---:|"]
    lines += [f"| [embedlab.{room}]({room}.md) | {len(summaries)} |" for room, summaries in pages]
    lines += ["", "## Most used names", "", "Import these from `embedlab` directly:", ""]
    lines += [f"- `{name}`" for name in embedlab.__all__ if not name.startswith("_")]
    (target / "index.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [f"{FOLDER}/index.md", *(f"{FOLDER}/{room}.md" for room in rooms)]


def _modules(folder: Path) -> Iterator[tuple[str, str]]:
    """(dotted name, first docstring line) of every public module below a package folder."""
    for path in sorted(folder.rglob("*.py")):
        if path.stem.startswith("_"):
            continue
        name = ".".join(["embedlab", *path.relative_to(PACKAGE).with_suffix("").parts])
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        yield name, docstring.partition("\n")[0]
