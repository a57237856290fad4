"""Label Studio: tasks exported as JSON (`data`, `annotations`) or JSON-MIN and CSV (one flat record per annotation)."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from embedlab.data import textio
from embedlab.data.formats import annotated
from embedlab.data.formats.annotated import Answers
from embedlab.data.formats.base import Contents, Export, Format, Source, write_json
from embedlab.data.textio import Row

INTERNAL = ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement", "task_id")


def _matches(source: Source) -> bool:
    return {"data", "annotations"} <= source.columns or {"annotator", "annotation_id"} <= source.columns


def _read(source: Source) -> Contents:
    path = source.path
    if "data" in source.columns:
        return annotated.contents([_task(row, path) for row in source.rows], path)
    by_task: dict[str, list[Row]] = defaultdict(list)
    for row in source.rows:
        by_task[str(row.values.get("id", row.line))].append(row)
    return annotated.contents([_flat_task(rows) for rows in by_task.values()], path)


def _task(row: Row, path: Path) -> Answers:
    texts, completed = row.values.get("data"), row.values.get("annotations") or []
    if not isinstance(texts, dict) or not isinstance(completed, list):
        problem = "'data' must be an object and 'annotations' a list"
        raise textio.error_at(row, "data", path, problem, "Export the tasks again as JSON.")
    answers: dict[str, list[Any]] = defaultdict(list)
    for annotation in completed:
        if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
            problem = "an annotation has no list 'result'"
            raise textio.error_at(row, "annotations", path, problem, "Export the tasks again as JSON.")
        if not annotation.get("was_cancelled"):
            for result in annotation["result"]:
                _add_result(result, answers)
    return Answers(row, texts, answers)


def _add_result(result: Any, answers: dict[str, list[Any]]) -> None:
    """Note a single choice or a rating; other kinds of results say nothing about relevance."""
    value = result.get("value") if isinstance(result, dict) else None
    if not isinstance(value, dict):
        return
    choices = value.get("choices")
    name = str(result.get("from_name", "relevance"))
    if isinstance(choices, list) and len(choices) == 1:
        answers[name].append(choices[0])
    elif "rating" in value:
        answers[name].append(value["rating"])


def _flat_task(rows: list[Row]) -> Answers:
    """One task; its annotations are records that differ in their answers."""
    names = (*annotated.QUERY_NAMES, *annotated.DOCUMENT_NAMES, "split", "group")
    columns = [column for column in rows[0].values if str(column).lower() not in (*INTERNAL, *names)]
    texts = {column: value for column, value in rows[0].values.items() if str(column).lower() in names}
    answers = {
        str(column): [_single(row.values[column]) for row in rows if not textio.is_empty(row.values.get(column))]
        for column in columns
    }
    return Answers(rows[0], texts, answers)


def _single(answer: Any) -> Any:
    """A rating that the export wrapped, such as [{"rating": 4}]; other answers unchanged."""
    content = answer[0] if isinstance(answer, list) and len(answer) == 1 else answer
    return content.get("rating", content) if isinstance(content, dict) else content


def _write(export: Export, path: Path) -> list[str]:
    tasks = []
    for number, (texts, grade) in enumerate(annotated.judged_records(export), start=1):
        if export.graded:
            result = {"type": "rating", "value": {"rating": grade + 1}}
        else:
            result = {"type": "choices", "value": {"choices": ["Relevant" if grade else "Irrelevant"]}}
        result |= {"from_name": "relevance", "to_name": "document"}
        tasks.append({"id": number, "data": texts, "annotations": [{"result": [result], "was_cancelled": False}]})
    write_json(tasks, path, "Label Studio")
    return []


FORMAT = Format(
    "label-studio", "Label Studio", _matches, _read, _write, frozenset({"negatives", "grades", "splits", "groups"})
)
