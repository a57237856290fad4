"""Markdown tables, and pages whose generated parts stand between two markers."""

from __future__ import annotations

from collections.abc import Iterable


def markdown_table(header: list[str], rows: Iterable[list[str]]) -> str:
    """Return a Markdown table; the cells are Markdown.

    >>> print(markdown_table(["a", "b"], [["1", "2"]]))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])


def replace_block(text: str, start: str, end: str, block: str) -> str:
    """Replace what stands between two markers of a page.

    >>> replace_block("before <a> old <b> after", "<a>", "<b>", "<a> new <b>")
    'before <a> new <b> after'

    Args:
        text: the page.
        start, end: the markers.
        block: the new part, with the markers.

    Raises:
        ValueError: the page lacks a marker.
    """
    old = text[text.index(start) : text.index(end) + len(end)]
    return text.replace(old, block)
