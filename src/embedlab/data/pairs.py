"""`pairs:FILE`: pairs, triplets or graded pairs in a JSONL, JSON, CSV, TSV or Parquet file.

| columns | meaning |
|---|---|
| query, positive | a query and its relevant document, or a list of them |
| … negative, negative_1, hard_negatives, … | hard negatives, one or a list: documents and, in training, triplets |
| … score, all 0 or 1 | 0: the document is not relevant |
| … score, other numbers from 0 to 1; or text1, text2, score | a graded pair for training |
| … group | queries of the same group stay in the same split |
| … split | train, dev or test; without this column, splits are made by groups |

Upper and lower case do not matter in column names, `ALIASES` lists other accepted names, and a column such as `label`
(see `SCORE_NAMES`) is the score if it holds numbers or means relevance. Other columns become `fields` of the query. A
text that occurs several times is one query or one document.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from embedlab.data import textio
from embedlab.data.dataset import SPLITS, Dataset, GradedPair, Triplet, split_name
from embedlab.data.splits import complete_splits
from embedlab.data.textio import Row
from embedlab.errors import DataError

ALIASES = {
    "anchor": "query",
    "question": "query",
    "answer": "positive",
    "document": "positive",
    "positives": "positive",
    "pos": "positive",
    "positive_passages": "positive",
    "sentence1": "text1",
    "sentence2": "text2",
    "scores": "score",
}
SCORE_NAMES = (
    *("label", "labels", "relevance", "relevant", "is_relevant", "relevance_score", "relevance_label", "grade"),
    *("judgement", "judgment", "similarity", "similarity_score", "is_duplicate", "duplicate"),
)
CLASS_NAMES = ("label", "labels", "grade")  # these can also hold the name of a class
RELEVANCE_WORDS = frozenset(
    ("relevant", "irrelevant", "not relevant", "yes", "no", "positive", "negative", "pos", "neg")
)
RESERVED = ("query", "positive", "text1", "text2", "score", "group", "split", "metadata")

# negative, negatives, negative_2, hard_negative, neg, neg_doc, negative_passages, hard_negative_ctxs, …
_NEGATIVE = re.compile(
    r"((hard|bm25|mined|random|easy|soft|in_?batch)_?)?neg(ative)?s?"
    r"(_?(doc|document|passage|text|ctx|context|answer|sentence|sample|example|candidate)s?)?(_?\d+)?"
)
_LIKE_DOCUMENTS = re.compile(r"(.*_)?(?P<kind>(neg|pos)(ative|itive)?s?)(_?\d+)?(_.*)?")

logger = logging.getLogger(__name__)


def load(location: str, *, name: str, split_by: str = "document", repair: bool = False, divide: bool = True) -> Dataset:
    """Read a file of pairs as a dataset.

    Args:
        location: the file.
        name: the dataset's name.
        split_by: see `Dataset`.
        divide: see `complete_splits`.
        repair: see `from_rows`.

    Raises:
        DataError: the file is missing or malformed; names file, line and field.
    """
    path = textio.location_path(location)
    return from_rows(textio.read_rows(path), path, name=name, split_by=split_by, repair=repair, divide=divide)


def source_fingerprint(location: str) -> str:
    """Hash the file.

    Args:
        location: the file.

    Returns:
        16 hex digits.
    """
    return textio.fingerprint([textio.find_file(textio.location_path(location))])


def from_rows(
    rows: Iterable[Row],
    file: Path,
    *,
    name: str,
    split_by: str = "document",
    repair: bool = False,
    divide: bool = True,
) -> Dataset:
    """Make a dataset from records with the columns described above.

    Args:
        rows: the records.
        file: the file that error messages name.
        name: the dataset's name.
        split_by: see `Dataset`.
        divide: see `complete_splits`.
        repair: leave out hard negatives that are positives of the same query, instead of raising an error.

    Raises:
        DataError: a record is malformed.
    """
    rows = _with_scores([_canonical(row, file) for row in rows], file)
    if all("text1" in row.values for row in rows):
        return Dataset(name, {}, {}, {}, graded_pairs=_graded_pairs(rows, "text1", "text2", file), split_by=split_by)
    rows = [single for row in rows for single in _one_positive_each(row, file)]
    scored = any("score" in row.values for row in rows)
    if any(_score(row, file, required=scored) not in (0, 1) for row in rows):
        graded = _graded_pairs(rows, "query", "positive", file)
        return Dataset(name, {}, {}, {}, graded_pairs=graded, split_by=split_by)
    negatives = {column for row in rows for column in _negative_columns(row)}
    textio.report_unused(rows, {*RESERVED, *negatives}, file)
    return _Collector(file, split_by, repair, divide).collect(rows).dataset(name)


def _canonical(row: Row, file: Path) -> Row:
    names = {column: re.sub(r"[\s-]+", "_", str(column).strip()) for column in row.values}
    renamed: dict[str, object] = {}
    for column, value in row.values.items():
        # A name with blanks or hyphens is normalised only where it means hard negatives or scores.
        name = names[column].lower()
        special = _NEGATIVE.fullmatch(name) or name in SCORE_NAMES
        renamed[name if special and name not in row.values | renamed else column] = value
    row = textio.rename_columns(row._replace(values=renamed), ALIASES, file)
    for column, value in row.values.items():
        _refuse_unknown_texts(row, column, value, file)
    return row


def _refuse_unknown_texts(row: Row, column: str, value: object, file: Path) -> None:
    """Raise an error for a column that is named like documents and holds texts; scores and ids are metadata."""
    like = _LIKE_DOCUMENTS.fullmatch(re.sub(r"[\s-]+", "_", column))
    if like is None or column == "positive" or _NEGATIVE.fullmatch(column):
        return
    texts = [_passage(item) for item in (value if isinstance(value, list) else [value])]
    if any(isinstance(text, str) and len(text.split()) > 1 for text in texts):
        name = "negative" if like["kind"].startswith("neg") else "positive"
        problem = f"the column '{column}' seems to hold {name}s, but its name is not known"
        remedy = f"Rename it to '{name}' (a list can hold several), or remove it."
        raise textio.error_at(row, column, file, problem, remedy)


def _warn_of_flags(rows: list[Row], file: Path) -> None:
    """Name columns of zeros and ones that might be the relevance under an unknown name."""
    columns = dict.fromkeys(column for row in rows for column in row.values if column not in RESERVED)
    values = {column: {str(row.values.get(column, "")).strip() for row in rows} for column in columns}
    scored = any("score" in row.values for row in rows)
    if not scored and (flags := [name for name in columns if values[name] == {"0", "1"}]):
        message = "%s: %s holds only 0 and 1 and is metadata. Rename it to 'score' if 0 means not relevant"
        logger.warning(message, file, ", ".join(map(repr, flags)))


def _with_scores(rows: list[Row], file: Path) -> list[Row]:
    """The rows with a column such as `label` renamed to `score`, if there is no score and it holds numbers."""
    named = dict.fromkeys(column for row in rows for column in row.values if column in SCORE_NAMES)
    numeric = [column for column in named if _is_relevance(rows, column)]
    if not numeric:
        _warn_of_flags(rows, file)
        return rows
    if any("score" in row.values for row in rows):
        logger.warning("%s: 'score' is the relevance; %s is metadata", file, ", ".join(map(repr, numeric)))
        return rows
    if len(numeric) > 1:
        problem = f"{' and '.join(map(repr, numeric))} could each be the relevance"
        remedy = "Rename the right one to 'score', and the others so that they do not look like it."
        raise DataError(problem, remedy=remedy, file=file, field=numeric[0])
    column = numeric[0]
    logger.warning("%s: '%s' is read as the score: 0 means not relevant", file, column)
    for row in rows:
        _check_scale(row, column, file)
    renamed = ({"score" if key == column else key: cell for key, cell in row.values.items()} for row in rows)
    return [row._replace(values=values) for row, values in zip(rows, renamed, strict=True)]


def _is_relevance(rows: list[Row], column: str) -> bool:
    """Whether a column holds numbers or words for "relevant". A `label` of other texts is a class: metadata."""
    cells = [row.values.get(column) for row in rows]
    filled = [value for value in cells if not textio.is_empty(value)]
    words = {str(value).strip().lower() for value in filled}
    is_number = any(textio.number_of(value) is not None for value in filled)
    return bool(filled) and (column not in CLASS_NAMES or is_number or not words.isdisjoint(RELEVANCE_WORDS))


def _check_scale(row: Row, column: str, file: Path) -> None:
    value = row.values.get(column)
    number = textio.number_of(value)
    if number is not None and 0 <= number <= 1:
        return
    problem = f"'{column}' must be a number from 0 (not relevant) to 1, got {value!r}"
    remedy = "Write numbers from 0 to 1; if it is not the relevance, rename it to 'class', for example."
    if textio.is_empty(value):
        problem, remedy = f"'{column}' is empty, but other records have one", "Fill it in or remove the record."
    raise textio.error_at(row, column, file, problem, remedy)


def _one_positive_each(row: Row, file: Path) -> Iterator[Row]:
    """The row, once for each of its positives."""
    value = row.values.get("positive")
    if not isinstance(value, list):
        yield row
        return
    texts = [text for text in (_passage(item) for item in value) if not textio.is_empty(text)]
    if not texts:
        raise textio.error_at(row, "positive", file, "'positive' is an empty list", "Fill it in or remove the record.")
    yield from (row._replace(values={**row.values, "positive": text}) for text in texts)


def _passage(value: object) -> object:
    """The text of a passage that is written as an object with a title and a text."""
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        return value
    title = value.get("title")
    return f"{title} {value['text']}".strip() if isinstance(title, str) else value["text"]


def _negative_columns(row: Row) -> list[str]:
    return [column for column in row.values if _NEGATIVE.fullmatch(column)]


def _texts(row: Row, column: str, file: Path) -> list[str]:
    """The texts of a cell that holds a text, a list, or nothing."""
    value = row.values[column]
    items = [_passage(item) for item in (value if isinstance(value, list) else [value])]
    return [textio.checked_text(item, row, column, file) for item in items if not textio.is_empty(item)]


def _graded_pairs(rows: list[Row], left: str, right: str, file: Path) -> tuple[GradedPair, ...]:
    """The rows of the training split; graded pairs of other splits are not used."""
    unused: dict[str, None] = {}
    for row in rows:
        for column, value in row.values.items():
            if column not in (left, right, "score", "split") and not textio.is_empty(value):
                _refuse_texts_beside_graded_pair(row, column, file)
                unused[column] = None
    if unused:
        logger.warning(
            "%s: graded pairs have no metadata or groups, so these are not read: %s", file, ", ".join(unused)
        )
    training = [row for row in rows if _split(row, file) in ("", "train")]
    if len(training) < len(rows):
        count = len(rows) - len(training)
        logger.warning("%s: graded pairs are for training only: left out %d rows of other splits", file, count)
    return tuple(
        GradedPair(textio.text_of(row, left, file), textio.text_of(row, right, file), _score(row, file, required=True))
        for row in training
    )


def _refuse_texts_beside_graded_pair(row: Row, column: str, file: Path) -> None:
    if _NEGATIVE.fullmatch(column):
        problem, remedy = "a graded pair takes no hard negatives", "Remove them, or write only the scores 0 and 1."
    elif column in ("query", "positive", "text1", "text2"):
        problem, remedy = "the record has both text1, text2 and query, positive", "Keep one of the two pairs."
    else:
        return
    raise textio.error_at(row, column, file, problem, remedy)


def _score(row: Row, file: Path, *, required: bool = False) -> float:
    """The score, from 0 to 1; 1 in a file without scores."""
    value = row.values.get("score")
    if "score" not in row.values and not required:
        return 1.0
    if textio.is_empty(value):
        problem = "this record has no score, but others have one" if "score" not in row.values else "the score is empty"
        remedy = "Give every record a score from 0 to 1, or remove the record."
        raise textio.error_at(row, "score", file, problem, remedy)
    score = textio.number_of(value)
    if score is not None and 0 <= score <= 1:
        return score
    problem = f"score must be a number from 0 to 1, got {value!r}"
    remedy = "Write a number from 0 to 1." if score is None else "Divide the scores by the maximum of their scale."
    if score is not None and -1 <= score < 0:
        remedy = "Scores from -1 to 1: add 1 and divide by 2."
    remedy = textio.number_remedy(value, remedy)
    raise textio.error_at(row, "score", file, problem, remedy)


def _split(row: Row, file: Path) -> str:
    """The row's split as train, dev or test; empty if the row has none."""
    value = row.values.get("split")
    text = split_name("" if textio.is_empty(value) else str(value).strip().lower())
    if text in ("", *SPLITS):
        return text
    remedy = f"Use one of {', '.join(SPLITS)}."
    raise textio.error_at(row, "split", file, f"unknown split '{text}'", remedy)


class _Judgement(NamedTuple):
    """Whether a document answers a query, and the record that says so."""

    relevant: bool
    row: Row


class _Negative(NamedTuple):
    """A hard negative and its place."""

    query: str
    triplet: Triplet
    row: Row
    column: str


@dataclass
class _Collector:
    """Numbers texts in order of appearance and collects judgements per split ("" if the rows name no split)."""

    file: Path
    split_by: str
    repair: bool = False
    divide: bool = True
    documents: dict[str, str] = field(default_factory=dict)  # text -> id
    queries: dict[str, str] = field(default_factory=dict)  # text -> id
    qrels: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    judgements: dict[tuple[str, str], _Judgement] = field(default_factory=dict)
    negatives: list[_Negative] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)
    fields: dict[str, dict[str, str]] = field(default_factory=dict)
    ambiguous: set[tuple[str, str]] = field(default_factory=set)  # query id, metadata field with several values

    def collect(self, rows: list[Row]) -> _Collector:
        """Add every row. Either all rows name a split or none does."""
        named = any(_split(row, self.file) for row in rows)
        scored = any("score" in row.values for row in rows)
        for row in rows:
            split = _split(row, self.file)
            if named and not split:
                problem, remedy = "this row has no split, but others have one", "Fill it in, or remove the column."
                raise textio.error_at(row, "split", self.file, problem, remedy)
            self._add(row, split, _score(row, self.file, required=scored) == 1)
        if not any(self.qrels.values()):
            remedy = "Set the score of relevant pairs to 1."
            raise DataError("no relevant pair: every score is 0", remedy=remedy, file=self.file)
        if self.ambiguous:
            columns = ", ".join(sorted({column for _, column in self.ambiguous}))
            logger.warning("%s: queries with different values of %s keep the last one", self.file, columns)
        self._check_negatives()
        return self

    def dataset(self, name: str) -> Dataset:
        """The dataset; splits that the rows do not name are made, see `complete_splits`."""
        corpus = {document: text for text, document in self.documents.items()}
        queries = {query: text for text, query in self.queries.items()}
        # Rows without a split start as train; `complete_splits` takes dev and test from it.
        judged = {split or "train": judgements for split, judgements in self.qrels.items()}
        groups = {
            query: group for query, group in self.groups.items() if any(query in grades for grades in judged.values())
        }
        with textio.naming(self.file):
            qrels, groups = complete_splits(
                judged, queries, corpus, split_by=self.split_by, user_groups=groups, divide=self.divide
            )
        return Dataset(
            name=name,
            corpus=corpus,
            queries={query: queries[query] for judgements in qrels.values() for query in judgements},
            qrels=qrels,
            triplets=tuple(negative.triplet for negative in self.negatives if negative.query in qrels["train"]),
            groups=groups,
            fields={query: values for query, values in self.fields.items() if values},
            split_by=self.split_by,
        )

    def _add(self, row: Row, split: str, relevant: bool) -> None:
        text, positive = (textio.text_of(row, column, self.file) for column in ("query", "positive"))
        document = self.documents.setdefault(positive, f"d{len(self.documents)}")
        query = self.queries.setdefault(text, f"q{len(self.queries)}")
        self._judge(query, document, _Judgement(relevant, row))
        self._add_group(row, query)
        negatives = [(column, text) for column in _negative_columns(row) for text in _texts(row, column, self.file)]
        if not relevant:
            if negatives:
                problem = "the score is 0, so the hard negatives have no positive"
                remedy = "Remove the negatives or the record."
                raise textio.error_at(row, negatives[0][0], self.file, problem, remedy)
            return
        self.qrels.setdefault(split, {}).setdefault(query, {})[document] = 1
        self._add_metadata(query, textio.metadata_of(row, (*RESERVED, *_negative_columns(row))))
        for column, negative in negatives:
            self.documents.setdefault(negative, f"d{len(self.documents)}")
            self.negatives.append(_Negative(query, Triplet(text, positive, negative), row, column))

    def _judge(self, query: str, document: str, judgement: _Judgement) -> None:
        earlier = self.judgements.setdefault((query, document), judgement)
        if earlier.relevant != judgement.relevant:
            problem = f"{_place(earlier.row)} gives the same query and document the score {int(earlier.relevant)}"
            raise textio.error_at(judgement.row, "score", self.file, problem, "Keep one of the two.")

    def _add_group(self, row: Row, query: str) -> None:
        if textio.is_empty(row.values.get("group")):
            return
        group = textio.name_of(row, "group", self.file)
        if self.groups.setdefault(query, group) != group:
            problem = f"this query is in the group '{self.groups[query]}' too"
            raise textio.error_at(row, "group", self.file, problem, "Give all rows of a query the same group.")

    def _add_metadata(self, query: str, metadata: dict[str, str]) -> None:
        fields = self.fields.setdefault(query, {})
        self.ambiguous |= {(query, key) for key, value in metadata.items() if fields.get(key, value) != value}
        fields.update(metadata)

    def _check_negatives(self) -> None:
        """Raise an error for hard negatives that the file also calls relevant; with `repair`, leave them out."""
        contradictions = [n for n in self.negatives if self._is_positive(n.query, n.triplet.negative)]
        if contradictions and not self.repair:
            first = contradictions[0]
            positive = self.judgements[first.query, self.documents[first.triplet.negative]].row
            problem = f"this hard negative is a positive of the same query in {_place(positive)}"
            remedy = "Remove it, or leave it out with ?repair=true."
            raise textio.error_at(first.row, first.column, self.file, problem, remedy)
        if contradictions:
            logger.warning("%s: left out %d hard negatives that are positives", self.file, len(contradictions))
            self.negatives = [n for n in self.negatives if not self._is_positive(n.query, n.triplet.negative)]

    def _is_positive(self, query: str, text: str) -> bool:
        judgement = self.judgements.get((query, self.documents[text]))
        return judgement is not None and judgement.relevant


def _place(row: Row) -> str:
    return f"line {row.line}" + (f" of {row.file.name}" if row.file else "")
