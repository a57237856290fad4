"""mteb tasks over your own files: sentence similarity, classification and clustering.

| kind | columns | splits |
|---|---|---|
| `sts` | sentence1, sentence2, score; or three columns without a header | the file is the test split |
| `classification` | text, label | a folder with train and test files, or a `split` column |
| `clustering` | text, label | the file is the test split; of a folder, its test file |

Files are CSV, TSV, JSONL, JSON or Parquet; JSON may have the form {split: [[text, label], …]}. Other names of the
columns are those in `ALIASES`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab.data import textio
from embedlab.data.dataset import split_name
from embedlab.data.splits import seeded_order
from embedlab.data.textio import Row
from embedlab.errors import DataError, ParameterError
from embedlab.evaluation.mteb_tasks import SUBSET, task_metadata, with_data

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask
    from mteb.abstasks.classification import ClassificationMetrics

ALIASES = {"text1": "sentence1", "text2": "sentence2", "category": "label", "intent": "label", "sentence": "text"}
SCORE_ALIASES = {"label": "score", "labels": "score", "scores": "score", "similarity": "score"}
STS_COLUMNS = ("sentence1", "sentence2", "score")
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".json")
MAX_CLUSTERED = 16_384  # items per k-means, mteb's own number
DRAWABLE = 200  # training texts of a label: ten classifiers draw eight each, and every draw walks through all there are

Rows = Mapping[str, list[Row]]  # split -> records

logger = logging.getLogger(__name__)


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
    return builders[kind](textio.location_path(str(location)))


def sts_columns(path: Path, *, lowest: float | None = None) -> dict[str, list[Any]]:
    """Read the columns sentence1, sentence2 and score (any scale) of a file with or without a header.

    Args:
        path: the file.
        lowest: smallest score that is accepted; None for any.

    Raises:
        DataError: a record is malformed.
    """
    records = textio.read_rows(path, columns=STS_COLUMNS)
    rows = [textio.rename_columns(row, ALIASES | SCORE_ALIASES, path) for row in records]
    texts = {name: [textio.text_of(row, name, path) for row in rows] for name in ("sentence1", "sentence2")}
    return {**texts, "score": [_number(row, "score", path, lowest) for row in rows]}


def check_scores(scores: Sequence[float], path: Path) -> None:
    """Raise an error if all scores are the same, because a correlation needs different ones.

    Args:
        scores: from `sts_columns`.
        path: the file that the error names.

    Raises:
        DataError: they are the same.
    """
    if len(set(scores)) < 2:
        remedy = "Give pairs with different scores"
        raise DataError("Every pair has the same score", remedy=remedy, file=path, field="score")


def labelled_columns(path: Path) -> dict[str, dict[str, list[Any]]]:
    """Read split -> columns text and label (a number, by the sorted names of all splits) of a file or folder.

    Raises:
        DataError: a record is malformed.
    """
    named = {
        split: [(textio.text_of(row, "text", path), textio.name_of(row, "label", path)) for row in records]
        for split, records in _rows_by_split(path).items()
    }
    number = {
        name: index for index, name in enumerate(sorted({label for records in named.values() for _, label in records}))
    }
    return {
        split: {"text": [text for text, _ in records], "label": [number[label] for _, label in records]}
        for split, records in named.items()
    }


def check_labels(path: Path) -> None:
    """Raise an error for labels that no classifier can be trained on.

    Args:
        path: file or folder with train and test.

    Raises:
        DataError: a split is missing, training has one label only, or test has a label that training has not.
    """
    rows = _rows_by_split(path)
    if missing := [split for split in ("train", "test") if split not in rows]:
        remedy = "Give a folder with train and test files, or a column named split"
        raise DataError(f"no {missing[0]} split", remedy=remedy, file=path, field="split")
    trained = {textio.name_of(row, "label", path) for row in rows["train"]}
    if len(trained) < 2:
        remedy = "Give training texts of two or more labels"
        problem = f"Every training text has the label '{next(iter(trained))}'"
        raise DataError(problem, remedy=remedy, file=path, field="label")
    for row in rows["test"]:
        if (label := textio.name_of(row, "label", path)) not in trained:
            problem, remedy = f"No training text has the label '{label}'", "Add one to train or remove this record"
            raise textio.error_at(row, "label", path, problem, remedy)


def _sts(path: Path) -> AbsTask:
    from datasets import Dataset
    from mteb.abstasks.sts import AbsTaskSTS

    columns = sts_columns(path)
    scores = columns["score"]
    check_scores(scores, path)
    metadata = task_metadata(_name(path), "STS", "cosine_spearman", "test")
    scale = {"metadata": metadata, "min_score": min(scores), "max_score": max(scores)}
    return with_data(type("LocalSTS", (AbsTaskSTS,), scale)(), {SUBSET: {"test": Dataset.from_dict(columns)}})


def _classification(path: Path) -> AbsTask:
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.classification import AbsTaskClassification

    check_labels(path)
    columns = labelled_columns(path)
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
    if not path.is_dir():
        return _read(path)
    splits: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        split = split_name(file.stem.lower())
        if textio.format_of(file) not in SUFFIXES or split not in ("train", "dev", "test"):
            continue
        if split in splits:
            problem, remedy = f"{splits[split].name} and {file.name} are both the {split} split", "Remove one of them"
            raise DataError(problem, remedy=remedy, file=path)
        splits[split] = file
    if not splits:
        raise DataError("holds no train or test file", remedy=f"Name them test{SUFFIXES[0]} and so on", file=path)
    return {split: _of_one_split(file, split) for split, file in splits.items()}


def _of_one_split(path: Path, split: str) -> list[Row]:
    """The records of a file that is named after its split, with their file."""
    for named, rows in (parts := _read(path, default=split)).items():
        if named != split:
            problem = f"the file is the {split} split, but this record is in '{named}'"
            raise textio.error_at(rows[0], "split", path, problem, "Remove the column 'split'")
    return [row._replace(file=path) for row in parts[split]]


def _read(path: Path, default: str = "") -> Rows:
    rows = _json_rows(path) if textio.format_of(path) == ".json" else textio.read_rows(path)
    parts: dict[str, list[Row]] = {}
    for row in (textio.rename_columns(row, ALIASES, path) for row in rows):
        value = row.values.get("split")
        split = default if textio.is_empty(value) else str(value).strip().lower()
        parts.setdefault(split_name(split), []).append(row)
    if not default and len(parts) > 1 and "" in parts:
        problem, remedy = "this record has no split, but unknown have one", "Fill it in, or remove the column"
        raise textio.error_at(parts[""][0], "split", path, problem, remedy)
    _check_splits(parts, path)
    return {split or "test": rows for split, rows in parts.items() if split in ("", "train", "dev", "test")}


def _check_splits(parts: Rows, path: Path) -> None:
    """Warn of splits with other names in a JSON file (CLINC150 has `oos_train`); elsewhere they are errors."""
    unknown = [split for split in parts if split not in ("", "train", "dev", "test")]
    if unknown and textio.format_of(path) == ".json" and len(unknown) < len(parts):
        logger.warning("%s: these splits are not read: %s", path, ", ".join(unknown))
    elif unknown:
        row = parts[unknown[0]][0]
        raise textio.error_at(row, "split", path, f"unknown split '{unknown[0]}'", "Use train, dev or test")


def _json_rows(path: Path) -> list[Row]:
    """Records of {split: [[text, label], …]}, whose line is the place inside the split, or of a list of objects."""
    content = textio.parse_json(textio.read_text(path), path)
    if isinstance(content, list):
        return textio.read_rows(path)
    pairs = list(content.items()) if isinstance(content, dict) else []
    if not pairs or not all(isinstance(value, list) for _, value in pairs):
        remedy = "Write {split: [[text, label], …]}, or use JSONL"
        raise DataError("The file is not JSON of labelled texts", remedy=remedy, file=path)
    rows = []
    for split, records in pairs:
        for number, pair in enumerate(records, start=1):
            if not isinstance(pair, list) or len(pair) != 2:
                problem, remedy = f"'{split}' holds something else than [text, label]", "Write [[text, label], …]"
                raise DataError(problem, remedy=remedy, file=path, line=number, field=split)
            rows.append(Row(number, {"text": pair[0], "label": pair[1], "split": split}))
    if rows:
        return rows
    raise DataError("the file has no rows", remedy="Add at least one record", file=path)


def _number(row: Row, field: str, path: Path, lowest: float | None) -> float:
    value = row.values.get(field)
    number = textio.number_of(value)
    if number is None:
        remedy = textio.number_remedy(value, "Write it as 3.5")
        raise textio.error_at(row, field, path, f"'{field}' must be a number, got {value!r}", remedy)
    if lowest is not None and number < lowest:
        problem = f"'{field}' must be {lowest:g} or more, got {value!r}"
        raise textio.error_at(row, field, path, problem, "Shift the scale so that it starts at 0")
    return number
