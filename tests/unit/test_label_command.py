"""`embedlab label next` and `add`: from a dataset to a sheet, filled in, and back into a dataset."""

from __future__ import annotations

import csv
import json

import pytest
from typer.testing import CliRunner

from embedlab.cli.label import app
from embedlab.data.load import load_dataset
from embedlab.data.relabel import rejected_documents
from embedlab.errors import DataError, EmbedlabError, ParameterError
from tests.conftest import tiny_model

WORDS = ("kidney", "liver", "heart", "brain", "eye", "ear", "skin", "bone")
CORPUS = {f"d{i}": f"pain of the {word} and the {WORDS[i - 1]}" for i, word in enumerate(WORDS)}
QUERIES = {f"q{i}": f"{word} pain {'left' * (i % 2)}" for i, word in enumerate(WORDS)}
SPLITS = {"train": WORDS[:4], "dev": WORDS[4:5], "test": WORDS[5:]}


@pytest.fixture(autouse=True)
def models(monkeypatch, tmp_path):
    monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path / "cache"))
    model = tiny_model()
    monkeypatch.setattr("embedlab.models.load.load_model", lambda name, **_: {"m": model}[name])


@pytest.fixture
def folder(tmp_path):
    """A BEIR folder; q7 has a document judged not relevant."""
    path = tmp_path / "beir"
    (path / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", CORPUS), ("queries", QUERIES)):
        lines = (json.dumps({"_id": key, "text": text}) for key, text in texts.items())
        (path / f"{name}.jsonl").write_text("\n".join(lines))
    for split, words in SPLITS.items():
        rows = [f"q{WORDS.index(word)}\td{WORDS.index(word)}\t1" for word in words]
        rows += ["q7\td0\t0"] if split == "test" else []
        (path / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]))
    return path


@pytest.fixture
def pairs(tmp_path):
    """The same as a file of pairs without ids; a row of score 0 says that q7 is not answered by d0."""
    rows = [
        {"query": QUERIES[f"q{i}"], "positive": CORPUS[f"d{i}"], "score": 1, "split": split, "organ": word}
        for split, words in SPLITS.items()
        for word in words
        for i in [WORDS.index(word)]
    ]
    rows.append({"query": QUERIES["q7"], "positive": CORPUS["d0"], "score": 0, "split": "test", "organ": "bone"})
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def invoke(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, EmbedlabError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def rows_of(path):
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def fill(sheet, name, judge):
    """Fill in a sheet: judge(query text, document text) -> grade, or "" for no judgement."""
    rows = rows_of(sheet)
    target = sheet.with_name(name)
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "relevant": judge(row["query"], row["document"])} for row in rows)
    return target


def shares_a_word(query, document):
    return int(query.split()[0] in document)


def by_text(data, split="test"):
    """(query text, document text) of every positive."""
    return {(data.queries[q], data.corpus[d]) for q, d in data.pairs(split)}


class TestNext:
    def test_the_sheet_has_unjudged_test_pairs_only(self, folder, tmp_path):
        out = tmp_path / "sheet.csv"
        text = invoke("next", f"beir:{folder}", "-m", "m", "--count", 5, "-o", out)
        rows = rows_of(out)
        assert len(rows) == 5 and "5 of " in text and "m, bm25" in text
        assert {row["query_id"] for row in rows} <= {"q5", "q6", "q7"}
        judged = {("q5", "d5"), ("q6", "d6"), ("q7", "d7"), ("q7", "d0")}
        assert not judged & {(row["query_id"], row["document_id"]) for row in rows}

    def test_with_a_count_above_all_it_has_every_candidate_once(self, folder, tmp_path):
        out = tmp_path / "sheet.csv"
        invoke("next", f"beir:{folder}", "-m", "m", "--count", 999, "-o", out)
        pairs = [(row["query_id"], row["document_id"]) for row in rows_of(out)]
        # Every query has 8 documents in the first 10, of which one is judged; q7 has a second, judged 0.
        assert len(set(pairs)) == len(pairs) == 7 + 7 + 6

    def test_it_says_what_judgements_and_pairs_bring(self, folder, tmp_path):
        curve = ("--curve", "100=0.3", "--curve", "200=0.4", "--more-pairs", "200")
        text = invoke("next", f"beir:{folder}", "-m", "m", "-o", tmp_path / "s.csv", "--gain", "0.05", *curve)
        assert "m against bm25, test, nDCG@10" in text and "3 judged queries show a gain of" in text
        assert "a gain of 0.05 takes" in text and "200 more training pairs: +0.100 nDCG@10 expected" in text

    def test_mistakes_are_found_before_anything_is_encoded(self, folder, tmp_path, monkeypatch):
        monkeypatch.setattr("embedlab.models.load.load_model", lambda name, **_: pytest.fail("a model was loaded"))
        existing = tmp_path / "sheet.csv"
        existing.write_text("work of hours")
        for arguments, error, problem in (
            (("-o", existing), ParameterError, "exists"),
            (("--curve", "100"), ParameterError, "expected name=value"),
            (("--curve", "many=0.3"), ParameterError, "expected numbers"),
            (("--curve", "100=0.3"), ParameterError, "needs two numbers of pairs"),
            (("--gain", "0"), ParameterError, "above 0"),
            (("--count", "0"), ParameterError, "at least 1"),
            (("--split", "validation"), ParameterError, "no validation queries"),
        ):
            with pytest.raises(error, match=problem):
                invoke("next", f"beir:{folder}", "-m", "m", "-o", tmp_path / "new.csv", *arguments)
        assert existing.read_text() == "work of hours"


@pytest.mark.parametrize("source", ["folder", "pairs"])
@pytest.mark.parametrize("target", ["judged", "judged.jsonl", "judged.csv"])
def test_round_trip(source, target, request, tmp_path):
    """Every grade of the sheet comes back, zeros as negatives that are not asked again; all else stays the same."""
    path = request.getfixturevalue(source)
    spec = f"{'beir' if source == 'folder' else 'pairs'}:{path}"
    before = load_dataset(spec)
    invoke("next", spec, "-m", "m", "--count", 12, "-o", tmp_path / "sheet.csv")
    filled = fill(tmp_path / "sheet.csv", "filled.csv", shares_a_word)
    grades = {(row["query"], row["document"]): int(row["relevant"]) for row in rows_of(filled)}
    text = invoke("add", spec, filled, "-o", tmp_path / target)
    assert f"12 judgements: {sum(grades.values())} relevant" in text

    name = f"{'pairs' if '.' in target else 'beir'}:{tmp_path / target}"
    after = load_dataset(f"{name}?split_by=query", training=False)
    assert by_text(after) == by_text(before) | {pair for pair, grade in grades.items() if grade}
    assert by_text(after, "train") == by_text(before, "train") and by_text(after, "dev") == by_text(before, "dev")
    assert set(after.corpus.values()) == set(CORPUS.values())

    rejected = rejected_documents(name, after)
    negatives = {(after.queries[q], after.corpus[d]) for q, ds in rejected.items() for d in ds if q in after.queries}
    assert negatives == {pair for pair, grade in grades.items() if not grade} | {(QUERIES["q7"], CORPUS["d0"])}

    invoke("next", f"{name}?split_by=query", "-m", "m", "--count", 99, "-o", tmp_path / "second.csv")
    again = {(row["query"], row["document"]) for row in rows_of(tmp_path / "second.csv")}
    assert not again & set(grades) and len(again) == 20 - 12


class TestAdd:
    @pytest.fixture
    def sheet(self, folder, tmp_path):
        invoke("next", f"beir:{folder}", "-m", "m", "--count", 6, "-o", tmp_path / "sheet.csv")
        return tmp_path / "sheet.csv"

    def test_two_judges(self, folder, sheet, tmp_path):
        first = rows_of(sheet)[0]
        ada = fill(sheet, "ada.csv", shares_a_word)
        bob = fill(
            sheet,
            "bob.csv",
            lambda q, d: (
                1 - shares_a_word(q, d) if d == first["document"] and q == first["query"] else shares_a_word(q, d)
            ),
        )
        text = invoke("add", f"beir:{folder}", ada, bob, "-o", tmp_path / "out")
        assert "5 judgements" in text and "ada.csv and bob.csv: 83% equal grades in 6 rows, Cohen's kappa" in text
        assert "pairs with different grades, left out: 1. Agree on one grade" in text
        assert f"{first['query_id']} / {first['document_id']}: " in text and "(ada.csv:2)" in text
        qrels = (tmp_path / "out" / "qrels" / "test.tsv").read_text()
        assert f"{first['query_id']}\t{first['document_id']}" not in qrels

    def test_zeros_are_in_the_folder(self, folder, sheet, tmp_path):
        invoke("add", f"beir:{folder}", fill(sheet, "f.csv", lambda q, d: 0), "-o", tmp_path / "out")
        lines = (tmp_path / "out" / "qrels" / "test.tsv").read_text().splitlines()[1:]
        zeros = {tuple(line.split("\t")[:2]) for line in lines if line.endswith("\t0")}
        assert zeros == {(row["query_id"], row["document_id"]) for row in rows_of(sheet)} | {("q7", "d0")}

    def test_it_says_how_to_load_what_it_wrote(self, folder, sheet, tmp_path):
        filled = fill(sheet, "f.csv", lambda q, d: 0)
        assert f"use it as beir:{tmp_path / 'a'}" in invoke("add", f"beir:{folder}", filled, "-o", tmp_path / "a")
        spec = f"beir:{folder}?split_by=query"
        assert f"use it as beir:{tmp_path / 'b'}?split_by=query" in invoke("add", spec, filled, "-o", tmp_path / "b")

    def test_an_answer_of_a_training_query_is_named_as_a_leak(self, folder, sheet, tmp_path):
        text = invoke("add", f"beir:{folder}", fill(sheet, "f.csv", lambda q, d: 1), "-o", tmp_path / "out")
        assert "now also answers a training query" in text and "?split_by=query" in text

    def test_nothing_is_written_if_a_row_is_wrong(self, folder, sheet, tmp_path):
        filled = fill(sheet, "f.csv", lambda q, d: "maybe")
        with pytest.raises(DataError, match=r"f\.csv:2 \[relevant\]: relevant must be a whole number from 0 to 1"):
            invoke("add", f"beir:{folder}", filled, "-o", tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_what_exists_stays(self, folder, sheet, tmp_path):
        filled = fill(sheet, "f.csv", lambda q, d: 0)
        (tmp_path / "out.jsonl").write_text("earlier")
        with pytest.raises(ParameterError, match="exists"):
            invoke("add", f"beir:{folder}", filled, "-o", tmp_path / "out.jsonl")
        assert (tmp_path / "out.jsonl").read_text() == "earlier"


class TestNewQueries:
    @pytest.fixture
    def queries(self, tmp_path):
        path = tmp_path / "new.csv"
        path.write_text(f"query\nkidney stone\n{QUERIES['q5']}\nliver spot\nkidney stone\n")
        return path

    def test_they_are_asked_about_first_and_come_back_judged(self, folder, queries, tmp_path):
        spec, sheet, out = f"beir:{folder}", tmp_path / "sheet.csv", tmp_path / "out"
        invoke("next", spec, "-m", "m", "--queries", queries, "--count", 99, "-o", sheet)
        asked = {row["query_id"] for row in rows_of(sheet)}
        assert {"n1", "n3"} <= asked and not {"n2", "n4"} & asked  # row 2 is in the data, row 4 repeats row 1
        answer = next(row["document_id"] for row in rows_of(sheet) if row["query_id"] == "n1")
        judge = lambda q, d: int(q == "kidney stone" and d == CORPUS[answer]) if q != "liver spot" else 0  # noqa: E731
        text = invoke("add", spec, fill(sheet, "f.csv", judge), "--queries", queries, "-o", out)
        assert "queries without a relevant document, left out: 1" in text
        after = load_dataset(f"beir:{out}?split_by=query")
        assert after.qrels["test"]["n1"] == {answer: 1} and "n3" not in after.queries
        assert {"q5", "q6", "q7"} <= set(after.qrels["test"])

    def test_a_test_set_from_documents_alone(self, tmp_path, queries):
        documents = tmp_path / "texts"
        documents.mkdir()
        for key, text in CORPUS.items():
            (documents / f"{key}.txt").write_text(text)
        spec, sheet, out = f"docs:{documents}", tmp_path / "sheet.csv", tmp_path / "out"
        text = invoke("next", spec, "-m", "m", "--queries", queries, "--count", 99, "-o", sheet)
        assert "on too few queries" in text  # nothing is judged yet
        text = invoke("add", spec, fill(sheet, "f.csv", shares_a_word), "--queries", queries, "-o", out)
        assert f"use it as beir:{out}" in text
        data = load_dataset(f"beir:{out}", training=False)
        assert set(data.queries.values()) == {"kidney stone", QUERIES["q5"], "liver spot"}
        assert len(data.corpus) == len(CORPUS) and all(map(shares_a_word, *zip(*by_text(data), strict=True)))

    def test_without_them_the_sheet_has_unknown_ids(self, folder, queries, tmp_path):
        sheet = tmp_path / "sheet.csv"
        invoke("next", f"beir:{folder}", "-m", "m", "--queries", queries, "--count", 99, "-o", sheet)
        with pytest.raises(DataError, match=r"\[query_id\]: 'n\d' is not in the dataset"):
            invoke("add", f"beir:{folder}", fill(sheet, "f.csv", shares_a_word), "-o", tmp_path / "out")

    def test_an_unknown_split_is_refused(self, folder, queries, tmp_path):
        arguments = ("s.csv", "--queries", queries, "-o", tmp_path / "x.jsonl", "--split", "tset")
        with pytest.raises(DataError, match="unknown split 'tset'. Use one of train, dev, test"):
            invoke("add", f"beir:{folder}", *arguments)

    @pytest.mark.parametrize(
        ("rows", "problem", "field"),
        [
            ("query_id,query\nq5,new", "'q5' is taken", "query_id"),
            ("query_id,query\nd1,new", "'d1' is taken", "query_id"),
            ("query_id,query\na,new\na,newer", "'a' is taken", "query_id"),
            ("query_id,query\na,", "'query' is empty", "query"),
            ("text\nnew", "'query' is missing", "query"),
        ],
    )
    def test_bad_rows(self, folder, tmp_path, rows, problem, field):
        path = tmp_path / "bad.csv"
        path.write_text(rows)
        with pytest.raises(DataError, match=problem) as caught:
            invoke("next", f"beir:{folder}", "-m", "m", "--queries", path, "-o", tmp_path / "s.csv")
        assert caught.value.file == path and caught.value.field == field and caught.value.line == rows.count("\n") + 1
