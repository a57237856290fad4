"""The texts of files that people have: txt, Markdown, HTML, PDF, and tables with one record per document."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

from embedlab.data import textio
from embedlab.errors import DataError

BLOCKS = frozenset(
    (
        *("address", "article", "aside", "blockquote", "br", "caption", "dd", "details", "dialog", "div", "dl", "dt"),
        *("fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr"),
        *("legend", "li", "main", "ol", "optgroup", "option", "p", "pre", "section", "summary", "table", "tbody"),
        *("tfoot", "thead", "tr", "ul"),
    )
)
CELLS = frozenset(("td", "th"))
HIDDEN = frozenset(("script", "style", "noscript", "template", "nav", "svg"))
TEXT_COLUMNS = ("text", "document", "content", "body", "passage")

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
_SPACE = re.compile(r"\s+")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # NUL and half characters, as some PDF files have them
_BLANK_LINES = re.compile(r"\n\s*\n+")


class Text(NamedTuple):
    """A document, or a part of a file that has its own location.

    Attributes:
        text: the text, perhaps empty.
        title: its title, perhaps empty; not repeated in the text.
        location: where in the file, such as "page 3" or "line 7"; empty for a whole file.
    """

    text: str
    title: str = ""
    location: str = ""


def read(path: Path, column: str = "") -> list[Text]:
    """Read a file by its suffix.

    Args:
        path: the file.
        column: of a table, the column with the texts; empty for `text`, `document`, `content`, `body` or `passage`.

    Raises:
        DataError: the file is damaged, not UTF-8, protected by a password, or has no such column.
    """
    texts = READERS[textio.format_of(path)](path, column)
    return [Text(_UNSTORABLE.sub(" ", text), _UNSTORABLE.sub(" ", title), location) for text, title, location in texts]


def _plain(path: Path, column: str) -> list[Text]:
    return [Text(textio.read_text(path).strip())]


def _markdown(path: Path, column: str) -> list[Text]:
    """The title is the first heading; YAML in front of it is left out."""
    text = _FRONT_MATTER.sub("", textio.read_text(path).replace("\r\n", "\n"))
    heading = _HEADING.search(text)
    return [Text(text.strip(), heading[1] if heading else "")]


class _Page(HTMLParser):
    """Collects what a reader of a page sees."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.title: list[str] = []
        self._open: list[str] = []  # hidden elements, and the title, that are not closed yet

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in HIDDEN or tag == "title":
            self._open.append(tag)
        else:
            self._separate(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            del self._open[self._open.index(tag) :]
        else:
            self._separate(tag)

    def _separate(self, tag: str) -> None:
        """Keep the texts on both sides of a block or a cell apart."""
        if tag in BLOCKS or tag in CELLS:
            self.pieces.append("\n" if tag in BLOCKS else " ")

    def handle_data(self, data: str) -> None:
        if not self._open:
            self.pieces.append(_SPACE.sub(" ", data))  # a line break of the source is not one of the page
        elif self._open == ["title"]:
            self.title.append(data)


def _html(path: Path, column: str) -> list[Text]:
    page = _Page()
    page.feed(textio.read_text(path))
    page.close()
    lines = [" ".join(line.split()) for line in "".join(page.pieces).split("\n")]
    text = _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()
    return [Text(text, " ".join("".join(page.title).split()))]


def _pdf(path: Path, column: str) -> list[Text]:
    """One text per page."""
    import logging

    import pypdf

    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it reports every flaw that it works around
    try:
        reader = pypdf.PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise DataError("this PDF has a password", remedy="Save a copy without one.", file=path)
        title = str((reader.metadata and reader.metadata.title) or "").strip()
        pages = [page.extract_text() for page in reader.pages]
    except DataError:
        raise
    except Exception as error:  # a damaged file raises errors of many classes
        raise DataError("damaged PDF file", remedy="Save it again, or leave it out.", file=path) from error
    return [Text(text.strip(), title, f"page {number}") for number, text in enumerate(pages, start=1)]


def _table(path: Path, column: str) -> list[Text]:
    """One text per record; `title` is its title."""
    texts = []
    for row in textio.read_rows(path):
        names = {str(name).strip().lower(): name for name in row.values}
        key = column or next((name for name in TEXT_COLUMNS if name in names), "")
        name = key if key in row.values else names.get(key.lower())
        if name is None:
            problem = f"there is no column '{key}'" if key else "no column is known to hold texts"
            remedy = f"Name the right one with ?column=NAME; there are {', '.join(map(str, row.values))}."
            raise DataError(problem, remedy=remedy, file=path, line=row.line)
        title = row.values.get(names.get("title", ""))
        value = row.values[name]
        text = "" if textio.is_empty(value) else textio.checked_text(value, row, str(name), path)
        location = f"line {row.line}" if textio.format_of(path) in (".jsonl", ".csv", ".tsv") else f"record {row.line}"
        texts.append(Text(text, title.strip() if isinstance(title, str) else "", location))
    return texts


READERS: dict[str, Callable[[Path, str], list[Text]]] = {
    ".txt": _plain,
    ".text": _plain,
    ".md": _markdown,
    ".markdown": _markdown,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
    ".jsonl": _table,
    ".json": _table,
    ".csv": _table,
    ".tsv": _table,
    ".parquet": _table,
    ".xlsx": _table,
}


def files_of(location: Path) -> tuple[list[Path], list[Path]]:
    """Find a file, or the files in a folder and its subfolders, without hidden ones.

    Returns:
        The files in the order of their names; and what is left out in the same order: links to folders, broken links
        and folders without permission.

    Raises:
        DataError: there is nothing at this location.
    """
    if not textio.path_exists(location) or not location.is_dir():
        return [textio.find_file(location)], []
    files, unread = [], []
    for path in sorted(location.rglob("*")):
        if any(name.startswith(".") for name in path.relative_to(location).parts):
            continue
        if path.is_file():
            files.append(path)
        elif path.is_symlink() or (path.is_dir() and not os.access(path, os.R_OK | os.X_OK)):
            unread.append(path)
    return files, unread
