"""ms-swift embedding data: `messages`, `positive_messages`, `negative_messages` and perhaps `label`, as JSON lines.

A message sequence is a text: its system message, if any, in front of its user message.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embedlab.data import textio
from embedlab.data.formats.base import Contents, Export, Format, Source, text_from, write_json_lines
from embedlab.data.textio import Row

QUERY, POSITIVES, NEGATIVES = "messages", "positive_messages", "negative_messages"


def _matches(source: Source) -> bool:
    return {QUERY, POSITIVES} <= source.columns


def _read(source: Source) -> Contents:
    return Contents([_row(row, source.path) for row in source.rows])


def _row(row: Row, path: Path) -> Row:
    values = {key: value for key, value in row.values.items() if key not in (QUERY, POSITIVES, NEGATIVES, "label")}
    query = _text(row, QUERY, row.values.get(QUERY), path)
    positives, negatives = ([_text(row, c, m, path) for m in _sequences(row, c, path)] for c in (POSITIVES, NEGATIVES))
    if not positives:
        problem = f"'{POSITIVES}' is missing or empty"
        raise textio.error_at(row, POSITIVES, path, problem, "Add the messages of a document that answers.")
    score = {"score": row.values["label"]} if "label" in row.values else {}
    return row._replace(values={**values, "query": query, "positive": positives, "negatives": negatives, **score})


def _sequences(row: Row, column: str, path: Path) -> list[Any]:
    value = row.values.get(column)
    if value is None or isinstance(value, list):
        return value or []
    problem = f"'{column}' must be a list of message lists, got {textio.short(value)}"
    raise textio.error_at(row, column, path, problem, f'Write "{column}": [[{{"role": "user", "content": "…"}}]].')


def _text(row: Row, column: str, messages: Any, path: Path) -> str:
    if not isinstance(messages, list) or not messages:
        problem = f"'{column}' must hold lists of messages, got {textio.short(messages)}"
        raise textio.error_at(row, column, path, problem, 'Write [{"role": "user", "content": "…"}].')
    contents = [text_from(message, "content", row, column, path) for message in messages]
    roles = [message.get("role") for message in messages]
    if roles not in (["user"], ["system", "user"]):
        problem = f"expected a user message, perhaps after a system message, got the roles {roles}"
        raise textio.error_at(row, column, path, problem, "Remove the other messages.")
    return " ".join(contents)


def _messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _write(export: Export, path: Path) -> list[str]:
    """One line per positive, as the tool accepts exactly one."""
    records: list[dict[str, Any]] = [
        {QUERY: _messages(pair.text1), POSITIVES: [_messages(pair.text2)], "label": pair.score}
        for pair in export.similarities
    ]
    for example in export.examples:
        negatives = [_messages(negative.text) for negative in example.negatives]
        for positive in example.positives:
            record = {QUERY: _messages(example.query), POSITIVES: [_messages(positive.text)]}
            records.append({**record, **({NEGATIVES: negatives} if negatives else {})})
    write_json_lines(records, path, "ms-swift")
    return []


NAMES = {"query": QUERY, "positive": POSITIVES, "negatives": NEGATIVES, "score": "label"}
FORMAT = Format("ms-swift", "ms-swift", _matches, _read, _write, frozenset({"negatives", "similarities"}), NAMES)
