"""Argilla: records exported as JSON or JSONL, nested (`fields`, `responses`) or flat (`relevance.responses`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embedlab.data import textio
from embedlab.data.formats import annotated
from embedlab.data.formats.annotated import Answers
from embedlab.data.formats.base import Contents, Export, Format, Source, write_json
from embedlab.data.textio import Row

RESPONSES, SUBMITTED = ".responses", "submitted"
PLACES = ("split", "group")


def _matches(source: Source) -> bool:
    flat = any(str(column).endswith(RESPONSES) for column in source.columns)
    return flat or {"fields", "responses"} <= source.columns


def _read(source: Source) -> Contents:
    return annotated.contents([_answers(row, source.path) for row in source.rows], source.path)


def _answers(row: Row, path: Path) -> Answers:
    if "fields" not in row.values:
        return _flat(row, path)
    fields, responses = row.values["fields"], row.values.get("responses") or {}
    if not isinstance(fields, dict) or not isinstance(responses, dict):
        problem = "'fields' and 'responses' must be objects"
        raise textio.error_at(row, "fields", path, problem, "Export the records again with to_json.")
    metadata = row.values.get("metadata")
    placed = {key: value for key, value in metadata.items() if key in PLACES} if isinstance(metadata, dict) else {}
    answers = {str(name): _values(values, row, str(name), path) for name, values in responses.items()}
    return Answers(row, {**fields, **placed}, answers)


def _values(answers: Any, row: Row, question: str, path: Path) -> list[Any]:
    if not isinstance(answers, list) or not all(isinstance(answer, dict) and "value" in answer for answer in answers):
        problem = f"the responses to '{question}' must be a list of objects with 'value'"
        raise textio.error_at(row, "responses", path, problem, "Export the records again with to_json.")
    return [answer["value"] for answer in answers if answer.get("status", SUBMITTED) in (SUBMITTED, None)]


def _flat(row: Row, path: Path) -> Answers:
    answers: dict[str, list[Any]] = {}
    for column, value in row.values.items():
        if str(column).endswith(RESPONSES):
            name = str(column).removesuffix(RESPONSES)
            if not isinstance(value, list | None):
                problem = f"'{column}' must be a list, got {textio.short(value)}"
                raise textio.error_at(row, str(column), path, problem, "Export the records again.")
            states = row.values.get(f"{column}.status") or [SUBMITTED] * len(value or ())
            pairs = zip(value or (), states, strict=False)
            answers[name] = [answer for answer, state in pairs if state in (SUBMITTED, None)]
    questions = tuple(f"{name}{end}" for name in answers for end in (RESPONSES, ".suggestion"))
    internal = ("id", "_server_id", "status", "inserted_at", "updated_at")
    texts = {
        key: value for key, value in row.values.items() if not str(key).startswith(questions) and key not in internal
    }
    return Answers(row, texts, answers)


def _write(export: Export, path: Path) -> list[str]:
    records = []
    for number, (texts, grade) in enumerate(annotated.judged_records(export)):
        fields = {name: texts[name] for name in ("query", "document")}
        value = grade + 1 if export.graded else ("relevant" if grade else "irrelevant")
        records.append(
            {
                "id": str(number),
                "fields": fields,
                "metadata": {name: text for name, text in texts.items() if name not in fields},
                "suggestions": {},
                "responses": {"relevance": [{"value": value, "user_id": "embedlab"}]},
                "vectors": {},
            }
        )
    write_json(records, path, "Argilla")
    return []


FORMAT = Format("argilla", "Argilla", _matches, _read, _write, frozenset({"negatives", "grades", "splits", "groups"}))
