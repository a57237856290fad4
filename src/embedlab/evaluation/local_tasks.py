"""mteb tasks over your own files: sentence similarity, classification and clustering.

| kind | columns | splits |
|---|---|---|
| `sts` | sentence1, sentence2, score; or three columns without a header | the file is the test split |
| `classification` | text, label | a folder with train and test files, or a `split` column |
| `clustering` | text, label | the file is the test split; of a folder, its test file |

Files are CSV, TSV, JSONL or Parquet, or JSON of the form {split: [[text, label], …]}. Other names of the columns are
those in `ALIASES`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab.data import textio
from embedlab.data.splits import seeded_order
from embedlab.data.textio import Row
from embedlab.errors import DataError, ParameterError
from embedlab.evaluation.mteb_tasks import SUBSET, task_metadata, with_data

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask
    from mteb.abstasks.classification import ClassificationMetrics

ALIASES = {"text1": "sentence1", "text2": "sentence2", "category": "label", "intent": "label", "sentence": "text"}
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".json")
SPLITS = {"validation": "dev", "valid": "dev", "val": "dev"}
MAX_CLUSTERED = 16_384  # items per k-means, mteb's own number
DRAWABLE = 200  # training texts of a label: ten classifiers draw eight each, and every draw walks through all there are

Rows = Mapping[str, list[Row]]  # split -> records


def local_task(kind: str, location: str | Path) -> AbsTask:
    """Build the mteb task of a kind over a file or folder; its main score is the one mteb reports for such data.

    Args:
        kind: `sts`, `classification` or `clustering`.
        location: file or folder, see the table above.

    Raises:
        ParameterError: the kind is unknown.
        DataError: the data is malformed; the message names file, line and field.
    """
    builders: dict[str, Callable[[Path], AbsTask]] = {
        "sts": _sts,
        "classification": _classification,
        "clustering": _clustering,
    }
    if kind not in builders:
        raise ParameterError(f"Unknown task kind {kind!r}", remedy=f"Use {', '.join(builders)}", field="probe")
    return builders[kind](Path(location).expanduser())


def sts_columns(path: Path) -> dict[str, list[Any]]:
    """Read the columns sentence1, sentence2 and score (any scale) of a file with or without a header."""
    rows = _with_header(textio.read_rows(path), path)
    texts = {name: [textio.text_of(row, name, path) for row in rows] for name in ("sentence1", "sentence2")}
    return {**texts, "score": [_number(row, "score", path) for row in rows]}


def labelled_columns(path: Path) -> dict[str, dict[str, list[Any]]]:
    """Read split -> columns text and label (a number, by the sorted names of all splits) of a file or folder."""
    rows = _rows_by_split(path)
    named = {
        split: [(textio.text_of(row, "text", path), textio.id_of(row, "label", path)) for row in records]
        for split, records in rows.items()
    }
    number = {
        name: index for index, name in enumerate(sorted({label for records in named.values() for _, label in records}))
    }
    return {
        split: {"text": [text for text, _ in records], "label": [number[label] for _, label in records]}
        for split, records in named.items()
    }


def _sts(path: Path) -> AbsTask:
    from datasets import Dataset
    from mteb.abstasks.sts import AbsTaskSTS

    columns = sts_columns(path)
    scores = columns["score"]
    if len(set(scores)) < 2:
        raise DataError("Every pair has the same score", remedy="Give pairs with different scores", file=path)
    metadata = task_metadata(_name(path), "STS", "cosine_spearman", "test")
    scale = {"metadata": metadata, "min_score": min(scores), "max_score": max(scores)}
    return with_data(type("LocalSTS", (AbsTaskSTS,), scale)(), {SUBSET: {"test": Dataset.from_dict(columns)}})


def _classification(path: Path) -> AbsTask:
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.classification import AbsTaskClassification

    columns = labelled_columns(path)
    if missing := [split for split in ("train", "test") if split not in columns]:
        remedy = "Give a folder with train and test files, or a column named split"
        raise DataError(f"no {missing[0]} split", remedy=remedy, file=path, field="split")
    metadata = task_metadata(_name(path), "Classification", "accuracy", "test")
    parts = {"train": _drawable(columns["train"]), "test": columns["test"]}
    data = DatasetDict({split: Dataset.from_dict(columns) for split, columns in parts.items()})
    attributes = {"metadata": metadata, "_calculate_scores": _scores_of_plain_labels}
    return with_data(type("LocalClassification", (AbsTaskClassification,), attributes)(), {SUBSET: data})


def _scores_of_plain_labels(task: AbsTask, y_test: Sequence[int], y_pred: np.ndarray) -> ClassificationMetrics:
    """mteb's own scores; read once, for sklearn asks for the labels 150 times and `datasets` decodes them each time."""
    return super(type(task), task)._calculate_scores(np.asarray(y_test), y_pred)


def _drawable(columns: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """At most `DRAWABLE` texts of every label, a seeded sample in their order: nothing that a draw could tell."""
    seen: Counter[int] = Counter()
    rows = []
    for row in map(int, seeded_order(map(str, range(len(columns["label"]))))):
        label = columns["label"][row]
        seen[label] += 1
        if seen[label] <= DRAWABLE:
            rows.append(row)
    return {name: [values[row] for row in sorted(rows)] for name, values in columns.items()}


def _clustering(path: Path) -> AbsTask:
    from datasets import Dataset
    from mteb.abstasks.clustering import AbsTaskClustering

    splits = labelled_columns(path)
    columns = splits.get("test") or next(iter(splits.values()))
    if not 1 < len(set(columns["label"])) < len(columns["label"]):
        raise DataError(
            "The labels form no groups", remedy="Give two or more labels, with several texts each", file=path
        )
    settings = {
        "metadata": task_metadata(_name(path), "Clustering", "v_measure", "test"),
        "max_fraction_of_documents_to_embed": None,
        "max_documents_per_cluster": min(MAX_CLUSTERED, len(columns["label"])),
        "input_column_name": "text",
        "label_column_name": "label",
    }
    return with_data(
        type("LocalClustering", (AbsTaskClustering,), settings)(), {SUBSET: {"test": Dataset.from_dict(columns)}}
    )


def _name(path: Path) -> str:
    return f"{path.resolve().parent.name}-{path.stem}"


def _rows_by_split(path: Path) -> Rows:
    if path.is_dir():
        files = {file.stem.lower(): file for file in sorted(path.iterdir()) if file.suffix in SUFFIXES}
        splits = {SPLITS.get(name, name): _read(file) for name, file in files.items()}
        splits = {split: rows for split, rows in splits.items() if split in ("train", "dev", "test")}
        if not splits:
            raise DataError("holds no train or test file", remedy=f"Name them test{SUFFIXES[0]} and so on", file=path)
        return {split: [row for split_rows in rows.values() for row in split_rows] for split, rows in splits.items()}
    return _read(path)


def _read(path: Path) -> Rows:
    rows = _json_rows(path) if path.suffix == ".json" else [_canonical(row) for row in textio.read_rows(path)]
    parts: dict[str, list[Row]] = {}
    for row in rows:
        split = str(row.values.get("split") or "test").lower()
        parts.setdefault(SPLITS.get(split, split), []).append(row)
    return parts


def _json_rows(path: Path) -> Iterable[Row]:
    """Records of {split: [[text, label], …]}; the line is the place inside its split."""
    try:
        content = json.loads(textio.find_file(path).read_text(encoding="utf-8-sig"))
        pairs = [
            (split, n, *pair)
            for split, pairs_of_split in content.items()
            for n, pair in enumerate(pairs_of_split, start=1)
        ]
        return [Row(n, {"text": text, "label": label, "split": split}) for split, n, text, label in pairs]
    except (ValueError, TypeError, AttributeError):
        remedy = "Write {split: [[text, label], …]}, or use JSONL"
        raise DataError("The file is not JSON of labelled texts", remedy=remedy, file=path) from None


def _canonical(row: Row) -> Row:
    names = {str(name): str(name).strip().lower() for name in row.values}
    return Row(row.line, {ALIASES.get(names[name], names[name]): value for name, value in row.values.items()})


def _with_header(rows: list[Row], path: Path) -> list[Row]:
    """The rows with canonical names; where the first line is data, it becomes a row again."""
    names = list(rows[0].values)
    if len(names) != 3 or not _is_number(names[2]):
        return [_canonical(row) for row in rows]
    columns = ("sentence1", "sentence2", "score")
    other_rows = [Row(row.line, dict(zip(columns, row.values.values(), strict=True))) for row in rows]
    return [Row(1, dict(zip(columns, names, strict=True))), *other_rows]


def _number(row: Row, field: str, path: Path) -> float:
    value: Any = row.values.get(field)
    if not _is_number(value):
        problem = f"'{field}' must be a number, got {value!r}"
        raise DataError(problem, remedy="Write it as 3.5", file=path, line=row.line, field=field)
    return float(value)


def _is_number(value: Any) -> bool:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return False
    return abs(number) < float("inf")
