"""The browsable site: executed notebooks, tables, log and glossary as pages that need no network.

mkdocs builds it from Markdown, which nbconvert makes of the notebooks and latex2mathml of their formulas. These are
chosen over mkdocs-jupyter and Jupyter Book because their pages load MathJax and scripts from elsewhere and bring a
theme with dozens of packages; nbconvert is here already, and a plain theme of mkdocs has its fonts and scripts with it.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import nbformat
import yaml

from embedlab import paths
from embedlab.errors import EmbedlabError
from embedlab.reporting.html_report import groups, write_report
from embedlab.reporting.notebook_outputs import WIDGET, executed_copy, with_current_prose
from embedlab.runs import notebooks

LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s#]*)(?P<anchor>#[^)\s]*)?\)")
MATHEMATICS = re.compile(r"\$\$(?P<block>[^$]+)\$\$|\$(?P<inline>[^$`\n]+)\$")
FENCE = re.compile(r"^(```|~~~)", re.MULTILINE)
ELSEWHERE = ("http://", "https://", "mailto:")
NEEDS = ("mkdocs", "latex2mathml")
CODE_STYLE, REPORT, STYLE = "code.css", "report.html", "site.css"
NOT_EXECUTED = "*Not executed yet: `embedlab run {number}` fills this page.*"

# Where a file of the project stands in the site, in the order of the menu.
PAGES = {
    "README.md": "index.md",
    "notebooks/README.md": "notebooks/index.md",
    "docs/glossary.md": "glossary.md",
    "results/README.md": "results.md",
    "experiments/LOG.md": "log.md",
    "results/benchmarks/README.md": "benchmarks.md",
    "CONTRIBUTING.md": "contributing.md",
}
TITLES = {
    "index.md": "Home",
    "notebooks/index.md": "The course",
    "glossary.md": "Glossary",
    "results.md": "Results",
    "log.md": "Lab log",
    "benchmarks.md": "Benchmarks",
    "contributing.md": "Contributing",
    "tables.md": "Tables",
}


def build_site(folder: Path | None = None) -> Path:
    """Build the site; returns its folder, which was emptied first.

    Args:
        folder: where; build/site when not given.

    Raises:
        EmbedlabError: mkdocs is not installed, or refuses a page: a link that leads nowhere is an error.
    """
    if missing := [name for name in NEEDS if find_spec(name) is None]:
        raise EmbedlabError(f"{' and '.join(missing)} is not installed", remedy="Run make environment")
    site = (folder or paths.project_root() / "build" / "site").resolve()
    sources = site.with_name(f"{site.name}-sources")
    config = write_sources(sources, site)
    # Not --quiet: it keeps warnings from being counted, and strictness is about those.
    command = [sys.executable, "-m", "mkdocs", "build", "--clean", "--strict", "-f", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split())[-400:]
        raise EmbedlabError(f"mkdocs refused ({reason})", remedy="Mend that page", file=config)
    return site


def write_sources(sources: Path, site: Path) -> Path:
    """Write every page as Markdown, figures beside them, and mkdocs.yml; returns its path."""
    shutil.rmtree(sources, ignore_errors=True)
    docs, places = sources / "pages", site_map()
    for source, page in PAGES.items():
        if (file := paths.project_root() / source).exists():
            _write(docs / page, relinked(file.read_text(encoding="utf-8"), source, page, places))
    for path in sorted(paths.notebooks_dir().glob("*.ipynb")):
        _write_notebook(path, docs, places)
    has_runs = bool(groups())
    _write(docs / "tables.md", _tables_page(has_runs))
    _copy_assets(docs, places)
    if has_runs:
        write_report(docs / REPORT)
    _write(docs / CODE_STYLE, _code_style())
    shutil.copy(paths.project_root() / "docs" / STYLE, docs / STYLE)
    config = sources / "mkdocs.yml"
    config.write_text(yaml.safe_dump(mkdocs_config(docs, site), sort_keys=False), encoding="utf-8")
    return config


def site_map() -> dict[str, str]:
    """Path in the project -> path in the site's sources, of pages and of the figures that pages show."""
    root, places = paths.project_root(), dict(PAGES)
    for path in sorted(paths.notebooks_dir().glob("*.ipynb")):
        for folder in ("notebooks", "results/notebooks"):
            places[f"{folder}/{path.name}"] = f"notebooks/{path.stem}.md"
    for path in sorted(paths.figures_dir().glob("*.png")) if paths.figures_dir().is_dir() else ():
        places[path.relative_to(root).as_posix()] = f"figures/{path.name}"
    return {source: page for source, page in places.items() if (root / source).exists()}


def relinked(text: str, source: str, page: str, places: Mapping[str, str]) -> str:
    """Markdown of `source` with its links as they are in the site; a link to what the site lacks becomes its text.

    Fenced code is left as it is.

    Args:
        text: Markdown.
        source: its path in the project.
        page: its path in the site's sources.
        places: from `site_map`.
    """

    def link(match: re.Match[str]) -> str:
        target, anchor = match["target"], match["anchor"] or ""
        if not target or target.startswith(ELSEWHERE):
            return match[0]
        place = places.get(posixpath.normpath(posixpath.join(posixpath.dirname(source), target)))
        if place is None:
            return match["text"]
        there = posixpath.relpath(place, posixpath.dirname(page) or ".")
        return f"{match['picture']}[{match['text']}]({there}{anchor})"

    return "".join(part if code else LINK.sub(link, part) for part, code in _parts(text))


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """The text in parts, with whether each is fenced code."""
    part, code = [], False
    for line in text.splitlines(keepends=True):
        if FENCE.match(line):
            yield "".join(part), code
            part, code = [], not code
        part.append(line)
    yield "".join(part), code


def _write_notebook(path: Path, docs: Path, places: Mapping[str, str]) -> None:
    """A notebook as a page, its figures beside it."""
    from nbconvert import MarkdownExporter

    executed, source = executed_copy(path.stem), f"notebooks/{path.name}"
    page = places[source]
    notebook = with_current_prose(notebooks.read(executed), notebooks.read(path)) if executed else notebooks.read(path)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_mathematics(relinked(cell.source, source, page, places))
        else:
            cell.outputs = [output for output in cell.get("outputs", ()) if _is_shown(output)]
    if executed is None:
        note = NOT_EXECUTED.format(number=path.stem.partition("_")[0])
        notebook.cells.insert(1, nbformat.v4.new_markdown_cell(note))
    resources = {"unique_key": path.stem, "output_files_dir": path.stem}
    text, resources = MarkdownExporter().from_notebook_node(notebook, resources=resources)
    _write(docs / page, text)
    for name, content in resources["outputs"].items():
        (docs / page).parent.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        (docs / page).parent.joinpath(name).write_bytes(content)


def with_mathematics(text: str) -> str:
    """Prose with its LaTeX as MathML, which browsers draw by themselves."""
    from latex2mathml.converter import convert

    def formula(match: re.Match[str]) -> str:
        return convert(match["inline"]) if match["inline"] else convert(match["block"], display="block")

    return MATHEMATICS.sub(formula, text)


def _is_shown(output: Mapping) -> bool:
    """Neither progress widgets, which are dead on a page, nor messages to the error stream."""
    return WIDGET not in output.get("data", ()) and output.get("name") != "stderr"


def _tables_page(has_runs: bool) -> str:
    """All tables of results/tables, one under the other, and the way to the report of all runs."""
    found = sorted(paths.tables_dir().glob("*.md")) if paths.tables_dir().is_dir() else []
    parts = [f"## {path.stem}\n\n{path.read_text(encoding='utf-8')}" for path in found]
    way = f" All runs by notebook, with what made them: [report of all runs]({REPORT})." if has_runs else ""
    intro = f"Rebuilt from records.{way}"
    return "\n\n".join(["# Tables", intro, *parts])


def _copy_assets(docs: Path, places: Mapping[str, str]) -> None:
    for source, place in places.items():
        if not place.endswith(".md"):
            (docs / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(paths.project_root() / source, docs / place)


def _code_style() -> str:
    from pygments.formatters import HtmlFormatter

    return HtmlFormatter(style="friendly").get_style_defs(".codehilite")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def mkdocs_config(docs: Path, site: Path) -> dict[str, object]:
    """What mkdocs is told: nothing is fetched from elsewhere, pages open from the disk too."""
    lessons = [f"notebooks/{path.name}" for path in sorted((docs / "notebooks").glob("[0-9]*.md"))]
    own = [page for page in [*PAGES.values(), "tables.md"] if (docs / page).exists()]
    first = [page for page in own if page in ("index.md", "notebooks/index.md")]
    menu = [{TITLES[page]: page} for page in first] + [{"Notebooks": [{Path(page).stem: page} for page in lessons]}]
    return {
        "site_name": "embedlab",
        "docs_dir": str(docs),
        "site_dir": str(site),
        "theme": {
            "name": "readthedocs",
            "highlightjs": False,
            "navigation_depth": 2,
            "prev_next_buttons_location": "both",
        },
        "nav": [*menu, *({TITLES[page]: page} for page in own if page not in first)],
        "use_directory_urls": False,
        "extra_css": [CODE_STYLE, STYLE],
        "plugins": ["search"],
        "markdown_extensions": ["tables", "fenced_code", {"codehilite": {"guess_lang": False}}, "toc", "sane_lists"],
        "validation": {"links": {"anchors": "warn", "unrecognized_links": "warn", "absolute_links": "warn"}},
    }
