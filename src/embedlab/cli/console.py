"""What all commands share: two consoles, exit codes, printed tables, `name=value` pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from embedlab.errors import ParameterError
from embedlab.escaping import terminal

if TYPE_CHECKING:
    import pandas as pd

FAILED, BAD_INPUT, GATE_CLOSED, CANCELLED = 1, 2, 3, 130
ALARM = FAILED  # a check worked and found something wrong


class SafeConsole(Console):
    """A console on which no printed text can control the terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Render a text, with its control characters shown as `\\x1b`."""
        return super().render_str(terminal(text), **options)


out, err = SafeConsole(), SafeConsole(stderr=True)


def print_frame(frame: pd.DataFrame, title: str) -> None:
    """Print a data frame as a table; missing values stay empty."""
    table = Table(*map(str, frame.columns), title=escape(title), title_justify="left")
    for row in frame.astype(object).where(frame.notna(), "").itertuples(index=False):
        table.add_row(*(escape(str(cell)) for cell in row))
    out.print(table)


def name_value_pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """Split `name=value` texts at the first equals sign.

    Args:
        texts: what the user gave.
        option: the option that took them, for the message.

    Raises:
        ParameterError: a text without an equals sign.
    """
    for text in texts:
        if "=" not in text:
            remedy = f"Write {option} name=value"
            raise ParameterError(f"expected name=value, got {text!r}", remedy=remedy, field=option)
    return {name: value for name, _, value in (text.partition("=") for text in texts)}
