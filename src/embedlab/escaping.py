"""Text from data, parameters, models and servers, made harmless for the medium that shows it: one function per medium.

LaTeX is escaped by pandas (`DataFrame.to_latex(escape=True)`), HTML pages by Jinja's autoescape.
"""

from __future__ import annotations

import html as _html
import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

INVISIBLE = "\u200b\u2060\ufeff\u00ad"  # zero-width spaces, byte order mark, soft hyphen
DIRECTION = (
    "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # can reverse the text around them
)
FORMULA = "=+-@\t\r\n"  # a cell that starts with one of these is a formula to a spreadsheet program

_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\s?%?|[-+]?(?:inf|nan)", re.IGNORECASE)
_INTERVAL = re.compile(r"[-+]?[\d.]+ \[[-+]?[\d.]+, [-+]?[\d.]+\]")  # such as +0.100 [+0.050, +0.150]
_GUARDED = re.compile(rf"'+[{re.escape(FORMULA)}]")
_MARKDOWN = re.compile(r"([\\`|<>\[\]])")


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


def markdown_cell(text: str) -> str:
    """Return a text for a cell of a Markdown table: on one line, its marks are read as themselves."""
    one_line = " ".join(text.split())
    return _MARKDOWN.sub(_markdown_mark, terminal(one_line))


def _markdown_mark(match: re.Match[str]) -> str:
    # Entities work inside raw HTML as well, where a backslash would be shown.
    return {"<": "&lt;", ">": "&gt;"}.get(match[1], f"\\{match[1]}")


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


def csv_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose texts and column names are safe in a CSV file, see `csv_cell`."""
    safe = frame.rename(columns=lambda name: csv_cell(name) if isinstance(name, str) else name)
    texts = [place for place, kind in enumerate(frame.dtypes) if kind.kind == "O" or not hasattr(kind, "itemsize")]
    for place in texts:
        cells = [csv_cell(cell) if isinstance(cell, str) else cell for cell in frame.iloc[:, place]]
        safe.isetitem(place, type(frame.iloc[:, place])(cells, index=frame.index, dtype=object))
    return safe
