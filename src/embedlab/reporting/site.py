"""The website: executed notebooks, guides, tables, the experiment log and the API reference. It works offline.

mkdocs builds it from Markdown. nbconvert turns notebooks into Markdown, latex2mathml turns formulas into MathML, and
mkdocstrings renders docstrings. mkdocs-jupyter and Jupyter Book were not chosen because their pages load MathJax and
scripts from other servers.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
import yaml

from embedlab import paths
from embedlab.errors import EmbedlabError
from embedlab.io import replace_contents, require_own
from embedlab.reporting import api_pages
from embedlab.reporting.html_report import groups, write_report
from embedlab.reporting.notebook_outputs import (
    WIDGET,
    executed_copy,
    joined,
    with_current_prose,
    without_active_parts,
)
from embedlab.runs import notebooks

LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s#]*)(?P<anchor>#[^)\s]*)?\)")
MATHEMATICS = re.compile(r"\$\$(?P<block>[^$]+)\$\$|\$(?P<inline>[^$`\n]+)\$")
BEFORE_LIST = re.compile(
    r"^(?P<quote>(?:> ?)?)(?P<line>(?![-*] |\d+\. |[|#>])\S.*)\n(?=(?P=quote)(?:- |1\. ))", re.MULTILINE
)
ANSWER = re.compile(r"^ *<details>.*?</details>", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^(```|~~~)", re.MULTILINE)
HEADING = re.compile(r"^(#{1,5}) ", re.MULTILINE)
EXTERNAL = ("http://", "https://", "mailto:")
NEEDS = ("mkdocs", "latex2mathml", "mkdocstrings")
CODE_STYLE, REPORT, STYLE = "code.css", "report.html", "site.css"
NOT_EXECUTED = "*Not executed yet. `embedlab run {number}` fills this page.*"
OLDER = "*This version has not been executed yet. `results/notebooks/` has an executed copy of an earlier version.*"

# Pages with a fixed position: file of the project -> page of the site.
PAGES = {
    "README.md": "index.md",
    "notebooks/README.md": "notebooks/index.md",
    "results/README.md": "results.md",
    "results/benchmarks/README.md": "benchmarks.md",
    "experiments/log/README.md": "log/index.md",
    "CONTRIBUTING.md": "contributing.md",
}
# Folders whose Markdown files are all pages: folder of the project -> folder of the site.
FOLDERS = {"docs": "docs", "experiments/log": "log", "results/tables": "tables"}
# Order of the guides in the menu; other files in docs/ follow by name.
GUIDES = (
    "install",
    "own-data",
    "techniques",
    "glossary",
    "troubleshooting",
    "models",
    "engine",
    "architectures",
    "clusters",
    "deployment",
    "evidence",
    "security",
)


def build_site(folder: Path | None = None) -> Path:
    """Build the site.

    Args:
        folder: the output folder, new, empty or of an earlier build; build/site when not given.

    Returns:
        The output folder.

    Raises:
        EmbedlabError: a package is missing, or mkdocs found an error such as a broken link.
        StorageError: the folder has files that embedlab did not write; they stay as they are.
    """
    if missing := [name for name in NEEDS if find_spec(name) is None]:
        raise EmbedlabError(f"{' and '.join(missing)} not installed", remedy="Run make environment")
    site = (folder or paths.project_root() / "build" / "site").absolute()
    require_own(site)
    with TemporaryDirectory(prefix="embedlab-site-") as temporary:
        built = Path(temporary) / "site"
        config = write_sources(Path(temporary) / "sources", built)
        # Not --quiet: it hides warnings from --strict.
        command = [sys.executable, "-m", "mkdocs", "build", "--clean", "--strict", "-f", str(config)]
        build = subprocess.run(command, capture_output=True, text=True, check=False)
        if build.returncode:
            reason = " ".join((build.stderr or build.stdout).split())[-400:]
            raise EmbedlabError(f"mkdocs failed ({reason})", remedy="Correct that page", file=paths.project_root())
        replace_contents(site, built)
    return site


def write_sources(sources: Path, site: Path) -> Path:
    """Write every page as Markdown, the figures and mkdocs.yml; returns the path of mkdocs.yml."""
    docs, pages = sources / "pages", site_map()
    for source, page in pages.items():
        if source.endswith(".md"):
            text = (paths.project_root() / source).read_text(encoding="utf-8")
            _write(docs / page, with_lists(relinked(titled(text, page), source, page, pages)))
    for path in sorted(paths.notebooks_dir().glob("*.ipynb")):
        _write_notebook(path, docs, pages)
    has_runs = bool(groups())
    _write(docs / "tables" / "index.md", _tables_index(docs / "tables", has_runs))
    reference = api_pages.write_api_pages(docs)
    _copy_assets(docs, pages)
    if has_runs:
        write_report(docs / REPORT)
    _write(docs / CODE_STYLE, _code_style())
    shutil.copy(paths.project_root() / "docs" / STYLE, docs / STYLE)
    config = sources / "mkdocs.yml"
    config.write_text(yaml.safe_dump(mkdocs_config(docs, site, reference), sort_keys=False), encoding="utf-8")
    return config


def site_map() -> dict[str, str]:
    """File of the project -> file in the site's sources, for pages and for the figures that pages show."""
    root, pages = paths.project_root(), dict(PAGES)
    for folder, target in FOLDERS.items():
        for path in sorted((root / folder).glob("*.md")):
            pages.setdefault(f"{folder}/{path.name}", f"{target}/{path.name}")
    for path in sorted(paths.notebooks_dir().glob("*.ipynb")):
        for folder in ("notebooks", "results/notebooks"):
            pages[f"{folder}/{path.name}"] = f"notebooks/{path.stem}.md"
    for path in sorted(paths.figures_dir().glob("*.png")) if paths.figures_dir().is_dir() else ():
        pages[path.relative_to(root).as_posix()] = f"figures/{path.name}"
    return {source: page for source, page in pages.items() if (root / source).exists()}


def titled(text: str, page: str) -> str:
    """`text` with a title; the generated tables have none."""
    return text if text.lstrip().startswith("# ") else f"# {Path(page).stem}\n\n{text}"


def relinked(text: str, source: str, page: str, pages: Mapping[str, str]) -> str:
    """Rewrite the links of a page for the site. A link to a file that the site lacks becomes plain text.

    Fenced code stays unchanged.

    Args:
        text: Markdown.
        source: path of the file in the project.
        page: path of the page in the site's sources.
        pages: from `site_map`.
    """

    def link(match: re.Match[str]) -> str:
        target, anchor = match["target"], match["anchor"] or ""
        if not target or target.startswith(EXTERNAL):
            return match[0]
        target_page = pages.get(posixpath.normpath(posixpath.join(posixpath.dirname(source), target)))
        if target_page is None:
            return match["text"]
        relative = posixpath.relpath(target_page, posixpath.dirname(page) or ".")
        return f"{match['picture']}[{match['text']}]({relative}{anchor})"

    return "".join(piece if code else LINK.sub(link, piece) for piece, code in _parts(text))


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """The text in parts, with whether each is fenced code."""
    lines: list[str] = []
    code = False
    for line in text.splitlines(keepends=True):
        if FENCE.match(line):
            yield "".join(lines), code
            lines, code = [], not code
        lines.append(line)
    yield "".join(lines), code


def _write_notebook(path: Path, docs: Path, pages: Mapping[str, str]) -> None:
    """A notebook as a page, its figures next to it."""
    from nbconvert import MarkdownExporter

    published, source = executed_copy(path.stem), f"notebooks/{path.name}"
    page, notebook = pages[source], notebooks.read(path)
    executed = notebooks.read(published) if published else None
    if executed and with_current_prose(executed, notebook) is executed:  # of older code
        executed = None
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_answers(with_lists(with_mathematics(relinked(cell.source, source, page, pages))))
        else:
            outputs = [without_active_parts(output) for output in cell.get("outputs", ()) if _is_shown(output)]
            cell.outputs = [with_lower_headings(output) for output in outputs]
    if executed is None:
        note = OLDER if published else NOT_EXECUTED.format(number=path.stem.partition("_")[0])
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
        return str(convert(match["inline"]) if match["inline"] else convert(match["block"], display="block"))

    return MATHEMATICS.sub(formula, text)


def with_lists(text: str) -> str:
    """Prose with an empty line between a paragraph and its list: GitHub and JupyterLab need none, mkdocs does."""

    def separated(match: re.Match[str]) -> str:
        return f"{match['quote']}{match['line']}\n{match['quote'].rstrip()}\n"

    return "".join(piece if code else BEFORE_LIST.sub(separated, piece) for piece, code in _parts(text))


def with_answers(text: str) -> str:
    """Prose whose collapsed answers are read as Markdown, also those that are part of a list."""

    def answer(match: re.Match[str]) -> str:
        return textwrap.dedent(match[0]).replace("<details>", '<details markdown="1">', 1)

    return ANSWER.sub(answer, text)


def with_lower_headings(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Lower the headings of a Markdown output by one level: the title of the page is that of the notebook."""
    data = output.get("data", {})
    if text := data.get("text/markdown"):
        pieces = _parts(joined(text))
        data["text/markdown"] = "".join(piece if code else HEADING.sub(r"#\1 ", piece) for piece, code in pieces)
    return output


def _is_shown(output: Mapping[str, Any]) -> bool:
    """Neither progress widgets, which are dead on a page, nor messages to the error stream."""
    return WIDGET not in output.get("data", ()) and output.get("name") != "stderr"


def _tables_index(folder: Path, has_runs: bool) -> str:
    """A page that links every table and the report of all runs."""
    report = (
        f" The [report of all runs](../{REPORT}) lists every run by notebook with its provenance." if has_runs else ""
    )
    links = [f"- [{path.stem}]({path.name})" for path in sorted(folder.glob("*.md"))] if folder.is_dir() else []
    return "\n".join(["# Tables", "", f"All tables are rebuilt from records.{report}", "", *links, ""])


def _copy_assets(docs: Path, pages: Mapping[str, str]) -> None:
    for source, page in pages.items():
        if not page.endswith(".md"):
            (docs / page).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(paths.project_root() / source, docs / page)


def _code_style() -> str:
    from pygments.formatters import HtmlFormatter

    return str(HtmlFormatter(style="friendly").get_style_defs(".codehilite"))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _lesson(page: Path) -> dict[str, str]:
    """The menu entry of a notebook: its number, because texts name it so, and its title up to a colon -> its page."""
    title = next(line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("# "))
    short = title.removeprefix("# ").partition(":")[0]
    return {f"{page.stem.partition('_')[0]} {short}": f"notebooks/{page.name}"}


def mkdocs_config(docs: Path, site: Path, reference: list[str]) -> dict[str, object]:
    """The content of mkdocs.yml: no page loads anything from another server, and pages open from disk.

    Args:
        docs: folder of the Markdown sources.
        site: output folder.
        reference: pages of the API reference, relative to `docs`.
    """

    def existing(page: str) -> bool:
        return (docs / page).exists()

    lessons = [_lesson(path) for path in sorted((docs / "notebooks").glob("[0-9]*.md"))]
    guide_names = {f"docs/{name}.md": name for name in GUIDES}
    guides = [*filter(existing, guide_names), *(f"docs/{path.name}" for path in sorted((docs / "docs").glob("*.md")))]
    results = [page for page in ("results.md", "benchmarks.md", "tables/index.md", "log/index.md") if existing(page)]
    sections: list[object] = [{"Home": "index.md"}] if existing("index.md") else []
    sections += [{"Notebooks": [*filter(existing, ["notebooks/index.md"]), *lessons]}] if lessons else []
    sections += [{"Guides": list(dict.fromkeys(guides))}] if guides else []
    sections += [{"Results": results}, {"API reference": reference}]
    sections += [{"Contributing": "contributing.md"}] if existing("contributing.md") else []
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
        "nav": sections,
        "use_directory_urls": False,
        "extra_css": [CODE_STYLE, STYLE],
        "plugins": ["search", api_pages.plugin()],
        "markdown_extensions": [
            "tables",
            "fenced_code",
            {"codehilite": {"guess_lang": False}},
            "toc",
            "sane_lists",
            "md_in_html",
        ],
        "validation": {"links": {"anchors": "warn", "unrecognized_links": "warn", "absolute_links": "warn"}},
    }
