"""Any table of texts, ids and grades loads to exactly its content, or gives one of our errors with its place."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from embedlab.data import beir, click_log, hub, pairs, review
from embedlab.data.dataset import Dataset
from embedlab.errors import EmbedlabError
from embedlab.evaluation.local_tasks import labelled_columns, sts_columns
from tests.fuzz import loaders as fuzz
from tests.fuzz.loaders import FORMATS, Table, write_table

MANY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**60), 2**60),
    st.floats(),
    st.text(st.characters(codec="utf-8"), max_size=12),
    st.lists(st.text("ab ", max_size=3), max_size=2),
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
SUFFIXES = st.sampled_from(FORMATS)


def records(**columns):
    """Lists of records with these columns."""
    return st.lists(st.fixed_dictionaries(columns), min_size=1, max_size=8)


def load(read, table, suffix, name="x"):
    """What `read` makes of a table in a format, and the records as the file holds them; skips what was refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}{suffix}"
        written = write_table(table, path)
        assume(written is not None)
        try:
            return read(path), written
        except EmbedlabError as error:
            assert str(error.file).startswith((folder, f"hf:{folder}")) and error.remedy
            return None, written


def spread(count):
    return [("train", "dev", "test", "train")[n % 4] for n in range(count)]


PAIRS = {"query": CELLS, "positive": CELLS, "negative": CELLS, "score": CELLS, "group": CELLS, "note": CELLS}
GOOD_PAIRS = {
    "query": TEXTS,
    "positive": TEXTS,
    "hard_negatives": st.one_of(st.none(), TEXTS, st.lists(TEXTS, max_size=2)),
    "label": st.sampled_from([0, 1, 1, 1]),
    "note": st.one_of(TEXTS, st.integers(), st.booleans()),
}


@MANY
@given(st.one_of(records(**PAIRS), records(**GOOD_PAIRS)), SUFFIXES, st.booleans(), st.data())
def test_pairs(rows, suffix, as_hub, data):
    columns = [*data.draw(st.lists(st.sampled_from(sorted(rows[0])), unique=True)), "query", "positive"]
    rows = [
        {c: row[c] for c in dict.fromkeys(columns)} | {"split": s}
        for row, s in zip(rows, spread(len(rows)), strict=True)
    ]
    roles = {"query": "query", "positive": "positive", "group": "group", "score": "score", "label": "score"}
    roles |= {"negative": "negative", "hard_negatives": "negative", "note": "other"}
    table = Table(rows, {role: [c for c in rows[0] if roles.get(c) == role] for role in set(roles.values())})

    def read(path):
        return hub.load(str(path.parent), name="x") if as_hub else pairs.load(str(path), name="x")

    dataset, written = load(read, table, suffix, "train")
    if dataset is not None:
        trained = [row for row in written if row["split"] == "train"]
        graded = bool(dataset.graded_pairs)
        assert fuzz.compare_pairs(dataset, fuzz.expected_pairs(trained if graded else written, table)) == []


@MANY
@given(records(sentence1=CELLS, sentence2=TEXTS, score=CELLS), SUFFIXES)
def test_sentence_pairs(rows, suffix):
    columns, written = load(sts_columns, Table(rows), suffix)
    if columns is not None:
        loaded = list(zip(columns["sentence1"], columns["sentence2"], columns["score"], strict=True))
        expected = [
            (fuzz.text(row["sentence1"]), row["sentence2"].strip(), fuzz.number(row["score"])) for row in written
        ]
        assert loaded == expected


@MANY
@given(records(text=TEXTS, label=CELLS), SUFFIXES)
def test_labelled_texts(rows, suffix):
    columns, written = load(labelled_columns, Table(rows), suffix)
    if columns is not None:
        names = sorted({str(fuzz.text(row["label"])) for row in written})
        expected = [(row["text"].strip(), names.index(str(fuzz.text(row["label"])))) for row in written]
        assert list(zip(columns["test"]["text"], columns["test"]["label"], strict=True)) == expected


@MANY
@given(records(query=TEXTS, document=TEXTS, position=st.one_of(st.integers(0, 3), CELLS), clicks=CELLS), SUFFIXES)
def test_clicks(rows, suffix):
    log, written = load(click_log.read_log, Table(rows), suffix)
    if log is not None:
        expected = Counter()
        for row in written:
            expected[row["query"].strip(), row["document"].strip()] += int(fuzz.number(row["clicks"]))
        loaded = Counter()
        for row in log.counts.to_dict("records"):
            loaded[log.queries[row["query"]], log.documents[row["document"]]] += row["clicks"]
        assert loaded == expected


@MANY
@given(records(query_id=st.sampled_from("ab"), document_id=st.sampled_from("cd"), grade=CELLS), SUFFIXES)
def test_review_sheets(rows, suffix):
    dataset = Dataset("x", {"c": "one", "d": "two"}, {"a": "what", "b": "who"}, {"test": {}})
    judged, written = load(lambda path: review.import_judgements([path], dataset), Table(rows), suffix)
    if judged is not None:
        graded = [row for row in written if fuzz.text(row["grade"]) is not None]
        assert judged.open == len(written) - len(graded)
        for query, grades in judged.grades.items():
            for document, grade in grades.items():
                same = [row for row in graded if (row["query_id"], row["document_id"]) == (query, document)]
                assert {fuzz.number(row["grade"]) for row in same} == {grade}


@MANY
@given(
    records(_id=st.one_of(st.integers(0, 9), CELLS), title=st.one_of(st.just(""), TEXTS), text=CELLS, note=CELLS),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), CELLS), min_size=1, max_size=8),
    st.booleans(),
)
def test_beir_folders(documents, judgements, repair):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "qrels").mkdir()
        write_table(Table(documents), folder / "corpus.jsonl")
        queries = "".join(json.dumps({"_id": n, "text": f"question {n}"}) + "\n" for n in range(10))
        (folder / "queries.jsonl").write_text(queries)
        rows = [dict(zip(("query-id", "corpus-id", "score"), judgement, strict=True)) for judgement in judgements]
        for split, part in zip(("train", "dev", "test"), (rows, rows[:1], rows[-1:]), strict=True):
            write_table(Table(part), folder / "qrels" / f"{split}.tsv")
        try:
            dataset = beir.load(name, name="x", repair=repair)
        except EmbedlabError as error:
            assert str(error.file).startswith(name) and error.remedy
            return
    texts = {
        fuzz.text(row["_id"]): f"{row['title'].strip()} {fuzz.text(row['text']) or ''}".strip() for row in documents
    }
    assert dict(dataset.corpus) == {key: text for key, text in texts.items() if text}
    for query, grades in dataset.qrels["train"].items():
        grade_of = {str(row["corpus-id"]): fuzz.number(row["score"]) for row in rows if str(row["query-id"]) == query}
        assert grades == {d: grade for d, grade in grade_of.items() if grade > 0 and d in dataset.corpus}


@pytest.mark.parametrize("seed", range(4))
def test_a_slice_of_the_fuzz_run(seed):
    outcomes, faults = fuzz.run(100, 1_000 + seed)
    assert not faults
    assert sum(count["loaded"] for count in outcomes.values()) > 25
