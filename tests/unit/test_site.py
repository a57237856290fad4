"""The site: every notebook is a page, nothing leads nowhere, nothing comes from elsewhere, and it fits a phone."""

from __future__ import annotations

import functools
import http.server
import json
import re
import shutil
import subprocess
import tempfile
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

from embedlab import paths
from embedlab.errors import EmbedlabError
from embedlab.reporting import site
from embedlab.reporting.notebook_outputs import executed_copy, is_current
from embedlab.runs import notebooks

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PLACES = {
    "README.md": "index.md",
    "notebooks/04_a.ipynb": "notebooks/04_a.md",
    "results/figures/x.png": "figures/x.png",
}


@pytest.mark.parametrize(
    ("source", "page", "text", "expected"),
    [
        ("README.md", "index.md", "[a](notebooks/04_a.ipynb)", "[a](notebooks/04_a.md)"),
        ("notebooks/00.ipynb", "notebooks/00.md", "[a](04_a.ipynb#part)", "[a](04_a.md#part)"),
        ("notebooks/00.ipynb", "notebooks/00.md", "![f](../results/figures/x.png)", "![f](../figures/x.png)"),
        ("README.md", "index.md", "see [`the code`](src/embedlab/params.py).", "see `the code`."),
        ("README.md", "index.md", "[w](https://example.org/a) [m](mailto:a@b) [h](#here)", None),
        ("README.md", "index.md", "a\n```sh\n[a](notebooks/04_a.ipynb)\n```\n", None),
        (
            "README.md",
            "index.md",
            "```\ncode\n```\n[a](notebooks/04_a.ipynb)",
            "```\ncode\n```\n[a](notebooks/04_a.md)",
        ),
    ],
)
def test_links_lead_to_the_page_that_a_file_became(source, page, text, expected):
    assert site.relinked(text, source, page, PLACES) == (text if expected is None else expected)


def test_formulas_become_mathml_and_money_stays():
    pytest.importorskip("latex2mathml")
    shown = site.with_mathematics(r"place $\theta_k$ and `$(pwd)` for $5" + "\n\n$$\na + b\n$$")
    assert shown.count("<math") == 2 and "<msub><mi>&#x003B8;</mi><mi>k</mi></msub>" in shown
    assert "`$(pwd)` for $5" in shown and 'display="block"' in shown


class Page(HTMLParser):
    """What a page asks for, where it leads, and its own anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loaded, self.links, self.pictures, self.anchors, self.headings = [], [], [], set(), 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given.get("id"), given.get("name")} - {None}
        self.headings += tag == "h1"
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag in ("script", "img", "iframe", "source") and given.get("src"):
            self.loaded.append(given["src"])
        if tag == "link" and given.get("rel") != "canonical":
            self.loaded.append(given["href"])
        if tag == "img":
            self.pictures.append(given["src"])


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    for name in site.NEEDS:
        pytest.importorskip(name, reason=f"{name} is not installed: make environment")
    return site.build_site(tmp_path_factory.mktemp("made") / "site")


@pytest.fixture(scope="module")
def pages(built) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(built.rglob("*.html")) if path.name != "404.html"}  # it knows no folder


def test_every_notebook_is_a_page_with_all_its_figures(built, pages):
    for path in paths.notebooks_dir().glob("*.ipynb"):
        page = pages[built / "notebooks" / f"{path.stem}.html"]
        assert page.headings == 1
        published = executed_copy(path.stem)
        executed = published if published and is_current(published, path.stem) else None
        cells = notebooks.read(executed).cells if executed else []
        drawn = [
            output for cell in cells for output in cell.get("outputs", ()) if "image/png" in output.get("data", ())
        ]
        assert len(page.pictures) == len(drawn)
        text = (built / "notebooks" / f"{path.stem}.html").read_text()
        assert executed or ("has not been executed yet" if published else "Not executed yet") in text


def test_headings_of_an_output_are_below_the_title_of_the_page():
    text = ["# Report\n", "## Costs\n", "```sh\n", "# a comment\n", "```\n", "#not a heading\n"]
    output = nbformat.v4.new_output("display_data", data={"text/markdown": text})
    shown = site.with_lower_headings(output)["data"]["text/markdown"]
    assert shown == "## Report\n### Costs\n```sh\n# a comment\n```\n#not a heading\n"
    plain = nbformat.v4.new_output("stream", text="# x")
    assert site.with_lower_headings(plain)["text"] == "# x"


def test_menu_and_indexes_link_every_page(built, pages):
    def linked(page: str) -> set[str]:
        folder = (built / page).parent
        targets = ((folder / unquote(urlsplit(link).path)).resolve() for link in pages[built / page].links)
        return {target.relative_to(built).as_posix() for target in targets if target.is_relative_to(built)}

    menu = linked("index.html")
    indexes = {"log": "log/index.html", "tables": "tables/index.html"}  # their entries are not in the menu
    assert set(indexes.values()) <= menu
    for page in (path.relative_to(built) for path in pages if path.name not in ("search.html", site.REPORT)):
        index = None if page.name == "index.html" else indexes.get(page.parent.as_posix())
        assert page.as_posix() in (linked(index) if index else menu) | {"index.html"}
    course = linked("notebooks/index.html")
    assert {f"notebooks/{path.stem}.html" for path in paths.notebooks_dir().glob("*.ipynb")} <= course


def test_the_api_reference_documents_public_functions(built):
    page = (built / "api" / "evaluation.html").read_text(encoding="utf-8")
    assert 'id="embedlab.evaluation.significance.paired_difference"' in page
    assert "Raises" in page and "Returns" in page and "embedlab.evaluation.metrics._" not in page


def test_every_link_and_figure_is_there(built, pages):
    for path, page in pages.items():
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "mailto", "data", "javascript"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file() and target.stat().st_size, f"{path.name}: {link}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].anchors, f"{path.name}: {link}"


def test_nothing_is_fetched_from_elsewhere(built, pages):
    for path, page in pages.items():
        assert not [link for link in page.loaded if urlsplit(link).netloc], path.name
    for style in built.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//|@import", style.read_text(encoding="utf-8")), style.name


def test_pages_hold_no_unrendered_mathematics_and_no_folder_of_a_machine(built):
    for path in (built / "notebooks").glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\$\\?[a-z]+[^$<\n]{0,40}\$", re.sub(r"<pre.*?</pre>", "", text, flags=re.DOTALL)), (
            path.name
        )
        assert str(paths.project_root()) not in text


def test_lists_and_answers_are_rendered(built, pages):
    for path in pages:
        if "api" in path.parts or path.name == site.REPORT:
            continue
        prose = re.sub(r"<(pre|code|script|style).*?</\1>", "", path.read_text("utf-8"), flags=re.DOTALL)
        assert not re.search(r"<p>(?:(?!</p>).)*\n- ", prose, re.DOTALL), path.name
        for answer in re.findall(r"<details>.*?</details>", prose, re.DOTALL):
            assert "`" not in answer and re.search("<p>|<li>", answer), path.name


def test_a_link_that_leads_nowhere_stops_the_build(tmp_path, monkeypatch):
    pytest.importorskip("mkdocs")
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    for folder in ("notebooks", "experiments", "docs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "docs" / "site.css").touch()
    (tmp_path / "docs" / "glossary.md").write_text("# Words\n")
    (tmp_path / "README.md").write_text("# Home\n\n[a](docs/glossary.md#missing)\n")
    with pytest.raises(EmbedlabError, match="missing"):
        site.build_site(tmp_path / "site")
    (tmp_path / "README.md").write_text("# Home\n\n[a](docs/glossary.md#words)\n")
    assert (site.build_site(tmp_path / "site") / "docs" / "glossary.html").exists()


PROBE = """<body><pre id="found">waiting</pre><script>
const pages = %s, width = %d, found = {};
function next() {
  const name = pages.pop();
  if (!name) { document.getElementById("found").textContent = JSON.stringify(found); return; }
  const frame = document.createElement("iframe");
  frame.style = `width: ${width}px; height: 844px; border: 0`;
  frame.onload = () => setTimeout(() => {
    const page = frame.contentDocument, text = page.querySelector("[itemprop=articleBody]");
    found[name] = {
      title: page.title, width: frame.contentWindow.innerWidth, overflow: page.documentElement.scrollWidth - width,
      body: page.body.scrollWidth - width, pictures: page.images.length,
      broken: [...page.images].filter(one => !one.complete || !one.naturalWidth).length,
      letters: page.body.innerText.length, size: text ? parseFloat(getComputedStyle(text).fontSize) : null,
    };
    frame.remove(); next();
  }, 50);
  frame.src = name; document.body.append(frame);
}
next();
</script></body>"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_):
        pass


def answered(command: list[str], page: str, *, attempts: int = 4) -> subprocess.CompletedProcess[str]:
    """A browser that hangs at its start says nothing about the pages: it is asked again, with a profile of its own.

    It needs four seconds. What a hanging one leaves behind would hold the profile's lock against the next.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        asked = [*command, f"--user-data-dir={profile}", page]
        try:
            return subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True)
        except subprocess.TimeoutExpired:
            if attempts == 1:
                raise
    return answered(command, page, attempts=attempts - 1)


def measured(browser: str, built: Path, names: list[str], width: int) -> dict[str, dict]:
    """What a headless browser finds on every page at a viewport of `width` pixels."""
    (built / "probe.html").write_text(PROBE % (json.dumps(names), width), encoding="utf-8")
    handler = functools.partial(Quiet, directory=str(built))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000", "--dump-dom"]
        address = f"http://127.0.0.1:{server.server_address[1]}/probe.html"
        done = answered([*command, "--virtual-time-budget=60000", "--disable-dev-shm-usage"], address)
        server.shutdown()
    (built / "probe.html").unlink()
    text = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)[1]
    return json.loads(text.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_a_real_browser_shows_every_page_whole(built, pages, width):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser here: install one of {', '.join(BROWSERS)}")
    names = [path.relative_to(built).as_posix() for path in pages if path.name != "search.html"]
    found = measured(browser, built, names, width)
    assert set(found) == set(names)
    for name, page in found.items():
        assert page["width"] == width and page["title"] and page["letters"] > 200, name
        assert page["overflow"] <= 0 and page["body"] <= 0, (name, page)
        assert page["broken"] == 0, name
        assert page["size"] is None or page["size"] >= 14, name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("**Results**\n- a\n  more\n- b\n", "**Results**\n\n- a\n  more\n- b\n"),
        ("> Results:\n> - a\n>   more\n> - b\n", "> Results:\n>\n> - a\n>   more\n> - b\n"),
        ("Steps:\n1. a\n2. b\n", "Steps:\n\n1. a\n2. b\n"),
        ("a\n\n- b\n- c\n| d |\n", "a\n\n- b\n- c\n| d |\n"),
        ("```\na\n- b\n```\n", "```\na\n- b\n```\n"),
    ],
)
def test_a_list_after_a_paragraph_is_a_list(text, expected):
    assert site.with_lists(text) == expected


def test_answers_are_markdown_also_inside_a_list():
    markdown = pytest.importorskip("markdown")
    answer = "<details><summary>Answer</summary>\n\n   Use `x`:\n\n   1. one\n   2. two\n   </details>"
    text = f"1. Ask?\n\n   {answer}\n\n2. Again?\n"
    config = site.mkdocs_config(Path("none"), Path("none"), [])
    page = markdown.markdown(site.with_answers(text), extensions=["sane_lists", "md_in_html"])
    assert {"sane_lists", "md_in_html"} <= {name for name in config["markdown_extensions"] if isinstance(name, str)}
    assert "<code>x</code>" in page and "<li>two</li>" in page and '<ol start="2">' in page
    assert (
        page.index("<details>") < page.index("<summary>Answer</summary>") < page.index("two") < page.index("</details>")
    )


def test_menu_entry_of_a_notebook_has_its_number(tmp_path):
    page = tmp_path / "03_contrastive.md"
    page.write_text("\n# Ship it: index, monitor\n\n# Later\n", encoding="utf-8")
    assert site._lesson(page) == {"03 Ship it": "notebooks/03_contrastive.md"}
