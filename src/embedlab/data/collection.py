"""Queries, documents and judgements as a file of pairs states them, before any split is made."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from embedlab.data import pair_rows, textio
from embedlab.data.dataset import Dataset, GradedPair, Triplet
from embedlab.data.pair_rows import RESERVED, Passage
from embedlab.data.splits import MORE_QUERIES, complete_splits
from embedlab.data.textio import Row
from embedlab.errors import DataError

CONTRADICTION = "Remove it, or leave it out with ?repair=true."  # what helps if a hard negative is a positive

logger = logging.getLogger(__name__)


class _Judgement(NamedTuple):
    """The grade of a document for a query, and the record that says so."""

    grade: int
    row: Row


class _Negative(NamedTuple):
    """A hard negative and its location in the file."""

    query: str
    triplet: Triplet
    row: Row
    column: str


@dataclass
class Collection:
    """What a file says about queries and documents; texts are numbered in order of appearance.

    Attributes:
        file: the file that errors name.
        repair: leave out hard negatives that are positives of the same query, instead of raising an error.
        documents, queries: text -> id, `d0` and `q0` first.
        qrels: split ("" if the records name none) -> query id -> {document id: grade}.
        negatives: hard negatives, as the file states them.
        groups: query id -> group.
        fields: query id -> metadata.
        original_ids: id of a query or document here -> its id in the file, if it has one.
        merged: "queries" or "documents" -> id in the file that is lost -> id of the same text that is kept.
        graded_pairs: two texts and their similarity; such a file has no queries.
        more_queries: what helps if splits cannot be made, see `complete_splits`.
        contradiction: what helps if a hard negative is a positive of the same query.
    """

    file: Path
    repair: bool = False
    documents: dict[str, str] = field(default_factory=dict)
    queries: dict[str, str] = field(default_factory=dict)
    qrels: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    negatives: list[_Negative] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)
    fields: dict[str, dict[str, str]] = field(default_factory=dict)
    original_ids: dict[str, str] = field(default_factory=dict)
    merged: dict[str, dict[str, str]] = field(default_factory=dict)
    graded_pairs: tuple[GradedPair, ...] = ()
    more_queries: str = MORE_QUERIES
    contradiction: str = CONTRADICTION
    _may_contradict: bool = False  # only then all judgements are kept, with their records
    _judgements: dict[tuple[str, str], _Judgement] = field(default_factory=dict)
    _ambiguous: set[tuple[str, str]] = field(default_factory=set)  # query id, metadata field with several values

    @classmethod
    def from_rows(
        cls,
        records: Iterable[Row],
        file: Path,
        *,
        documents: Mapping[str, str] | None = None,
        repair: bool = False,
        more_queries: str = MORE_QUERIES,
        contradiction: str = CONTRADICTION,
    ) -> Collection:
        """Collect records with the columns that `pairs` describes.

        Args:
            records: the records.
            file: the file that errors name.
            documents: id -> text of documents that perhaps no record names.
            repair, more_queries, contradiction: see the attributes.

        Raises:
            DataError: a record is malformed, or records contradict each other.
        """
        rows = pair_rows.with_scores(pair_rows.canonical(records, file), file)
        collection = cls(file, repair, more_queries=more_queries, contradiction=contradiction)
        if rows and all("text1" in row.values for row in rows):
            return collection._with_graded_pairs(rows, "text1", "text2")
        rows = [single for row in rows for single in pair_rows.one_positive_each(row, file)]
        scored = any("score" in row.values for row in rows)
        highest = pair_rows.highest_score(rows) if rows else 1
        scores = [pair_rows.score_of(row, file, required=scored, highest=highest) for row in rows]
        if not all(score.is_integer() for score in scores):
            return collection._with_graded_pairs(rows, "query", "positive")
        negatives = {column for row in rows for column in pair_rows.negative_columns(row)}
        textio.report_unused(rows, {*RESERVED, *negatives}, file)
        collection._may_contradict = scored or bool(negatives)
        collection._add_rows(rows, [int(score) for score in scores])
        for key, text in (documents or {}).items():
            collection._document(Passage(text, key))
        collection._report_merged()
        return collection

    def dataset(self, name: str, *, split_by: str = "document", divide: bool = True) -> Dataset:
        """Return the dataset; splits that the records do not name are made, see `complete_splits`.

        A document of grade 0 is a hard negative of its query in training.

        Args:
            name: the dataset's name.
            split_by: see `Dataset`.
            divide: see `complete_splits`.

        Raises:
            DataError: there are fewer groups of related queries than splits.
        """
        if self.graded_pairs:
            return Dataset(name, {}, {}, {}, graded_pairs=self.graded_pairs, split_by=split_by)
        corpus = {document: text for text, document in self.documents.items()}
        queries = {query: text for text, query in self.queries.items()}
        # Rows without a split start as train; `complete_splits` takes dev and test from it.
        judged = {split or "train": judgements for split, judgements in self.qrels.items()}
        groups = {
            query: group for query, group in self.groups.items() if any(query in grades for grades in judged.values())
        }
        with textio.naming(self.file):
            qrels, groups = complete_splits(
                judged,
                queries,
                corpus,
                split_by=split_by,
                user_groups=groups,
                divide=divide,
                remedy=self.more_queries,
            )
        negatives = [(negative.query, negative.triplet) for negative in self.negatives] + self.judged_negatives()
        return Dataset(
            name=name,
            corpus=corpus,
            queries={query: queries[query] for judgements in qrels.values() for query in judgements},
            qrels=qrels,
            triplets=tuple(triplet for query, triplet in negatives if query in qrels["train"]),
            groups=groups,
            fields={query: values for query, values in self.fields.items() if values},
            split_by=split_by,
        )

    def judged_negatives(self) -> list[tuple[str, Triplet]]:
        """Return (query id, triplet) of every document of grade 0, with the query's first positive."""
        queries, documents = ({key: text for text, key in ids.items()} for ids in (self.queries, self.documents))
        first = {q: documents[next(iter(grades))] for judged in self.qrels.values() for q, grades in judged.items()}
        return [
            (query, Triplet(queries[query], first[query], documents[document]))
            for (query, document), judgement in self._judgements.items()
            if judgement.grade == 0 and query in first
        ]

    def _with_graded_pairs(self, rows: list[Row], left: str, right: str) -> Collection:
        highest = pair_rows.highest_score(rows)
        pair_rows.report_scale(rows, highest, self.file)
        self.graded_pairs = pair_rows.graded_pairs(rows, left, right, highest, self.file)
        return self

    def _add_rows(self, rows: list[Row], grades: list[int]) -> None:
        """Add every row. Either all rows name a split or none does."""
        named = any(pair_rows.split_of(row, self.file) for row in rows)
        for row, grade in zip(rows, grades, strict=True):
            split = pair_rows.split_of(row, self.file)
            if named and not split:
                problem, remedy = "this row has no split, but others have one", "Fill it in, or remove the column."
                raise textio.error_at(row, "split", self.file, problem, remedy)
            self._add(row, split, grade)
        if not any(self.qrels.values()):
            remedy = "Set the score of relevant pairs to 1."
            raise DataError("no relevant pair: every score is 0", remedy=remedy, file=self.file)
        judged = {query for grades in self.qrels.values() for query in grades}
        if without := [text for text, query in self.queries.items() if query not in judged]:
            message = "%s: left out %d queries without a relevant document, for example '%s'"
            logger.warning(message, self.file, len(without), without[0][:80])
        if self._ambiguous:
            columns = ", ".join(sorted({column for _, column in self._ambiguous}))
            logger.warning("%s: queries with different values of %s keep the last one", self.file, columns)
        self._check_negatives()

    def _document(self, passage: Passage) -> str:
        document = self.documents.setdefault(passage.text, f"d{len(self.documents)}")
        if passage.id:
            self._keep_id("documents", document, passage.id)
        return document

    def _keep_id(self, kind: str, key: str, original: str) -> None:
        """Keep the first id that the file gives a text, and note the others."""
        kept_id = self.original_ids.setdefault(key, original)
        if kept_id != original:
            self.merged.setdefault(kind, {})[original] = kept_id

    def _report_merged(self) -> None:
        for kind, ids in self.merged.items():
            lost_id, kept_id = next(iter(ids.items()))
            message = "%s: merged %d ids of %s into others with the same text, for example '%s' into '%s'"
            logger.warning(message, self.file, len(ids), kind, lost_id, kept_id)

    def _add(self, row: Row, split: str, grade: int) -> None:
        pair_rows.require_column(row, "query", self.file)
        text = textio.text_of(row, "query", self.file)
        positive = pair_rows.passage_of(row, "positive", self.file)
        document = self._document(positive)
        query = self.queries.setdefault(text, f"q{len(self.queries)}")
        if not textio.is_empty(row.values.get("query_id")):
            self._keep_id("queries", query, str(row.values["query_id"]))
        if self._may_contradict:
            self._judge(query, document, _Judgement(grade, row))
        self._add_group(row, query)
        columns = pair_rows.negative_columns(row)
        negatives = [(column, passage) for column in columns for passage in pair_rows.texts_of(row, column, self.file)]
        if not grade:
            if negatives:
                problem = "the score is 0, so the hard negatives have no positive"
                remedy = "Remove the negatives or the record."
                raise textio.error_at(row, negatives[0][0], self.file, problem, remedy)
            return
        self.qrels.setdefault(split, {}).setdefault(query, {})[document] = grade
        self._add_metadata(query, textio.metadata_of(row, (*RESERVED, *columns)))
        for column, passage in negatives:
            self._document(passage)
            self.negatives.append(_Negative(query, Triplet(text, positive.text, passage.text), row, column))

    def _judge(self, query: str, document: str, judgement: _Judgement) -> None:
        earlier = self._judgements.setdefault((query, document), judgement)
        if earlier.grade != judgement.grade:
            problem = f"{_place(earlier.row)} gives the same query and document the score {earlier.grade}"
            raise textio.error_at(judgement.row, "score", self.file, problem, "Keep one of the two.")

    def _add_group(self, row: Row, query: str) -> None:
        if textio.is_empty(row.values.get("group")):
            return
        group = textio.name_of(row, "group", self.file)
        if self.groups.setdefault(query, group) != group:
            problem = f"this query is in the group '{self.groups[query]}' too"
            raise textio.error_at(row, "group", self.file, problem, "Give all rows of a query the same group.")

    def _add_metadata(self, query: str, metadata: dict[str, str]) -> None:
        if not metadata:
            return
        fields = self.fields.setdefault(query, {})
        self._ambiguous |= {(query, key) for key, value in metadata.items() if fields.get(key, value) != value}
        fields.update(metadata)

    def _check_negatives(self) -> None:
        """Raise an error for hard negatives that the file also calls relevant; with `repair`, leave them out."""
        contradictions = [n for n in self.negatives if self._is_positive(n.query, n.triplet.negative)]
        if contradictions and not self.repair:
            first = contradictions[0]
            positive = self._judgements[first.query, self.documents[first.triplet.negative]].row
            problem = f"this hard negative is a positive of the same query in {_place(positive)}"
            raise textio.error_at(first.row, first.column, self.file, problem, self.contradiction)
        if contradictions:
            logger.warning("%s: left out %d hard negatives that are positives", self.file, len(contradictions))
            self.negatives = [n for n in self.negatives if not self._is_positive(n.query, n.triplet.negative)]

    def _is_positive(self, query: str, text: str) -> bool:
        judgement = self._judgements.get((query, self.documents[text]))
        return judgement is not None and judgement.grade > 0


def _place(row: Row) -> str:
    return f"line {row.line}" + (f" of {row.file.name}" if row.file else "")
