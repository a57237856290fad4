"""`pairs:FILE`: pairs, triplets or graded pairs in a JSONL, CSV, TSV or Parquet file.

| columns | meaning |
|---|---|
| query, positive | a query and its relevant document |
| … negative, negative_1, … | a hard negative: becomes a document and, in training, a triplet |
| … score, all 0 or 1 | 0: the document is not relevant |
| … score, other numbers from 0 to 1; or text1, text2, score | a graded pair for training |
| … group | queries of the same group stay in the same split |
| … split | train, dev or test; without this column, splits are made by groups |

Upper and lower case do not matter in column names, and `ALIASES` lists other accepted names. Other columns become
`fields` of the query. A text that occurs several times is one query or one document.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from embedlab.data import textio
from embedlab.data.dataset import SPLITS, Dataset, GradedPair, Triplet
from embedlab.data.splits import complete_splits
from embedlab.data.textio import Row
from embedlab.errors import DataError

ALIASES = {
    "anchor": "query",
    "question": "query",
    "answer": "positive",
    "document": "positive",
    "sentence1": "text1",
    "sentence2": "text2",
}
SPLIT_ALIASES = {"val": "dev", "valid": "dev", "validation": "dev"}
RESERVED = ("query", "positive", "text1", "text2", "score", "group", "split", "metadata")

_NEGATIVE = re.compile(r"negative(_\d+)?")

logger = logging.getLogger(__name__)


def load(location: str, *, name: str, split_by: str = "document") -> Dataset:
    """Read a file of pairs as a dataset.

    Args:
        location: the file.
        name: the dataset's name.
        split_by: see `Dataset`.

    Raises:
        DataError: the file is missing or malformed; names file, line and field.
    """
    path = Path(location).expanduser()
    return from_rows(textio.read_rows(path), path, name=name, split_by=split_by)


def source_fingerprint(location: str) -> str:
    """Hash the file.

    Args:
        location: the file.

    Returns:
        16 hex digits.
    """
    return textio.fingerprint([textio.find_file(Path(location).expanduser())])


def from_rows(rows: Iterable[Row], file: Path, *, name: str, split_by: str = "document") -> Dataset:
    """Make a dataset from records with the columns described above.

    Args:
        rows: the records.
        file: the file that error messages name.
        name: the dataset's name.
        split_by: see `Dataset`.

    Raises:
        DataError: a record is malformed.
    """
    rows = [_canonical(row, file) for row in rows]
    if all("text1" in row.values for row in rows):
        return Dataset(name, {}, {}, {}, graded_pairs=_graded_pairs(rows, "text1", "text2", file), split_by=split_by)
    if any(_score(row, file) not in (0, 1) for row in rows):
        graded = _graded_pairs(rows, "query", "positive", file)
        return Dataset(name, {}, {}, {}, graded_pairs=graded, split_by=split_by)
    return _Collector(file, split_by).collect(rows).dataset(name)


def _canonical(row: Row, file: Path) -> Row:
    values: dict[str, object] = {}
    for column, value in row.values.items():
        key = str(column).strip().lower()
        key = ALIASES.get(key, key)
        if key in values:
            remedy = "Remove or rename one of them."
            raise DataError(
                f"two columns are read as '{key}'", remedy=remedy, file=file, line=row.line, field=str(column)
            )
        values[key] = value
    return Row(row.line, values)


def _graded_pairs(rows: list[Row], left: str, right: str, file: Path) -> tuple[GradedPair, ...]:
    """The rows of the training split; graded pairs of other splits are not used."""
    if not all("score" in row.values for row in rows):
        problem, remedy = "this graded pair has no score", "Give every row a score from 0 to 1."
        line = next(row.line for row in rows if "score" not in row.values)
        raise DataError(problem, remedy=remedy, file=file, line=line, field="score")
    training = [row for row in rows if _split(row, file) in ("", "train")]
    if len(training) < len(rows):
        logger.info("%s: ignored %d graded pairs outside the train split", file, len(rows) - len(training))
    return tuple(
        GradedPair(textio.text_of(row, left, file), textio.text_of(row, right, file), _score(row, file))
        for row in training
    )


def _score(row: Row, file: Path) -> float:
    """The score, from 0 to 1; 1 for a row without one."""
    value = row.values.get("score")
    if value is None or value == "":
        return 1.0
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = math.nan
    if 0 <= score <= 1:
        return score
    problem = f"score must be a number from 0 to 1, got {value!r}"
    remedy = "Divide the scores by the maximum of their scale."
    raise DataError(problem, remedy=remedy, file=file, line=row.line, field="score")


def _split(row: Row, file: Path) -> str:
    """The row's split as train, dev or test; empty if the row has none."""
    value = str(row.values.get("split") or "").strip().lower()
    value = SPLIT_ALIASES.get(value, value)
    if value in ("", *SPLITS):
        return value
    remedy = f"Use one of {', '.join(SPLITS)}."
    raise DataError(f"unknown split '{value}'", remedy=remedy, file=file, line=row.line, field="split")


@dataclass
class _Collector:
    """Numbers texts in order of appearance and collects judgements per split ("" if the rows name no split)."""

    file: Path
    split_by: str
    documents: dict[str, str] = field(default_factory=dict)  # text -> id
    queries: dict[str, str] = field(default_factory=dict)  # text -> id
    qrels: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    negatives: list[tuple[str, Triplet]] = field(default_factory=list)  # query id, triplet
    groups: dict[str, str] = field(default_factory=dict)
    fields: dict[str, dict[str, str]] = field(default_factory=dict)

    def collect(self, rows: list[Row]) -> _Collector:
        """Add every row. Either all rows name a split or none does."""
        named = any(_split(row, self.file) for row in rows)
        for row in rows:
            split = _split(row, self.file)
            if named and not split:
                remedy = "Fill in the split in every row, or remove the column."
                raise DataError(
                    "this row has no split, but others have one",
                    remedy=remedy,
                    file=self.file,
                    line=row.line,
                    field="split",
                )
            self._add(row, split)
        if not any(self.qrels.values()):
            remedy = "Set the score of relevant pairs to 1."
            raise DataError("no relevant pair: every score is 0", remedy=remedy, file=self.file)
        return self

    def dataset(self, name: str) -> Dataset:
        """The dataset with all three splits."""
        corpus = {document: text for text, document in self.documents.items()}
        queries = {query: text for text, query in self.queries.items()}
        # Rows without a split start as train; `complete_splits` takes dev and test from it.
        judged = {split or "train": judgements for split, judgements in self.qrels.items()}
        qrels, groups = complete_splits(judged, queries, corpus, split_by=self.split_by, user_groups=self.groups)
        return Dataset(
            name=name,
            corpus=corpus,
            queries={query: queries[query] for judgements in qrels.values() for query in judgements},
            qrels=qrels,
            triplets=tuple(triplet for query, triplet in self.negatives if query in qrels["train"]),
            groups=groups,
            fields={query: values for query, values in self.fields.items() if values},
            split_by=self.split_by,
        )

    def _add(self, row: Row, split: str) -> None:
        text, positive = (textio.text_of(row, column, self.file) for column in ("query", "positive"))
        document = self.documents.setdefault(positive, f"d{len(self.documents)}")
        query = self.queries.setdefault(text, f"q{len(self.queries)}")
        if _score(row, self.file) == 0:
            return
        self.qrels.setdefault(split, {}).setdefault(query, {})[document] = 1
        self.fields.setdefault(query, {}).update(self._metadata(row))
        if row.values.get("group") not in (None, ""):
            self.groups[query] = textio.id_of(row, "group", self.file)
        for column in filter(_NEGATIVE.fullmatch, row.values):
            if row.values[column] not in (None, ""):
                negative = textio.text_of(row, column, self.file)
                self.documents.setdefault(negative, f"d{len(self.documents)}")
                self.negatives.append((query, Triplet(text, positive, negative)))

    def _metadata(self, row: Row) -> dict[str, str]:
        return textio.metadata_of(row, (*RESERVED, *filter(_NEGATIVE.fullmatch, row.values)))
