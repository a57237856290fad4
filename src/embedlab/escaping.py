"""Text from data, parameters, models and servers, made harmless for the medium that shows it: one function per medium.

LaTeX is escaped by pandas (`DataFrame.to_latex(escape=True)`), HTML pages by Jinja's autoescape.
"""

from __future__ import annotations

import html as _html
import re
import unicodedata
from html.parser import HTMLParser
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

INVISIBLE = "\u200b\u2060\ufeff\u00ad"  # zero-width spaces, byte order mark, soft hyphen
DIRECTION = (
    "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # can reverse the text around them
)
FORMULA = "=+-@\t\r\n"  # a cell that starts with one of these is a formula to a spreadsheet program

ACTIVE = frozenset(
    ["script", "iframe", "frame", "object", "embed", "applet", "form", "base", "meta", "link", "foreignobject"]
)
LINKS = frozenset(["href", "src", "action", "formaction", "xlink:href", "data", "srcdoc", "poster", "background"])

_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\s?%?|[-+]?(?:inf|nan)", re.IGNORECASE)
_INTERVAL = re.compile(r"[-+]?[\d.]+ \[[-+]?[\d.]+, [-+]?[\d.]+\]")  # such as +0.100 [+0.050, +0.150]
_GUARDED = re.compile(rf"'+[{re.escape(FORMULA)}]")
# What starts a link, raw HTML or an entity. A < before a number and an interval such as [0.1, 0.2] stay readable.
_MARKUP = re.compile(r"<(?=[A-Za-z/!?])|&(?=#?\w{1,31};)|\](?=[(\[])")
_MARKS = {"<": "&lt;", "&": "&amp;", "]": "\\]"}
_CELL = re.compile(r"([\\`|])")


def is_control(character: str) -> bool:
    """Return whether a character controls a terminal or the direction of text instead of being read."""
    return character in DIRECTION or unicodedata.category(character) in ("Cc", "Cs")


def terminal(text: str) -> str:
    """Return a text that cannot control the terminal: control characters show as `\\x1b`; tabs and line breaks stay."""
    return "".join(_shown(character) if is_control(character) else character for character in text)


def _shown(character: str) -> str:
    return character if character in "\n\t" else character.encode("unicode_escape").decode()


def html(text: str) -> str:
    """Return a text as HTML, quotes included."""
    return _html.escape(terminal(text))


def markdown(text: str) -> str:
    """Return a text for a Markdown page without links, HTML and entities; code in backticks stays code."""
    return _MARKUP.sub(lambda match: _MARKS[match[0]], terminal(text))


def markdown_cell(text: str) -> str:
    """Return a text for a cell of a Markdown table: on one line, and every mark is read as itself."""
    return markdown(_CELL.sub(r"\\\1", " ".join(text.split())))


def csv_cell(text: str) -> str:
    """Return a text for a CSV cell that no spreadsheet program takes for a formula; `from_csv_cell` gives it back.

    An apostrophe goes before a text that starts with = + - @, a tab or a line break. Numbers stay numbers.
    """
    rest = text.lstrip("'")
    is_formula = rest.startswith(tuple(FORMULA)) and not (text == rest and _is_number(text))
    return f"'{text}" if is_formula else text


def from_csv_cell(text: str) -> str:
    """Return the text that `csv_cell` was given."""
    return text[1:] if _GUARDED.match(text) else text


def _is_number(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text) or _INTERVAL.fullmatch(text))


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def csv_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose texts and column names are safe in a CSV file, see `csv_cell`.

    A carriage return becomes a line break: `to_csv` does not quote it, so it would end the row.
    """
    safe = frame.rename(columns=lambda name: csv_cell(name) if isinstance(name, str) else name)
    texts = [column for column, kind in enumerate(frame.dtypes) if kind.kind == "O" or not hasattr(kind, "itemsize")]
    for column in texts:
        cells = [csv_cell(_lines(cell)) if isinstance(cell, str) else cell for cell in frame.iloc[:, column]]
        safe.isetitem(column, type(frame.iloc[:, column])(cells, index=frame.index, dtype=object))
    return safe


def from_csv_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the table that `csv_frame` was given, as far as a CSV file keeps it."""
    plain = frame.rename(columns=lambda name: from_csv_cell(name) if isinstance(name, str) else name)
    return plain.map(lambda cell: from_csv_cell(cell) if isinstance(cell, str) else cell)


class _ActiveParts(HTMLParser):
    """Notes whether a page has parts that run or load something."""

    active = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one element."""
        links = ["".join((value or "").split()).lower() for name, value in attrs if name in LINKS]
        runs = any(link.startswith(("javascript:", "vbscript:", "data:text")) for link in links)
        self.active |= tag in ACTIVE or runs or any(name.startswith("on") for name, _ in attrs)


def is_active_html(text: str) -> bool:
    """Return whether HTML has scripts, frames, forms, handlers of events, or links that run code."""
    parser = _ActiveParts()
    parser.feed(text)
    parser.close()
    return parser.active
