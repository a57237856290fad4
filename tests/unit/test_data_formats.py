"""Formats of other tools: everything that a format holds comes back, each is recognised, and faults have a location."""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from embedlab.cli.main import app
from embedlab.data.dataset import GradedPair
from embedlab.data.formats import registry, trec
from embedlab.data.formats.base import Example, Export, Judged, Negative
from embedlab.data.formats.convert import convert
from embedlab.data.formats.export import export_of
from embedlab.data.load import load_dataset, source_fingerprint
from embedlab.errors import DataError, EmbedlabError

CASES = Path(__file__).resolve().parents[1] / "cases"
TARGETS = {  # format -> files or folders that it can be written to
    "pairs": ("x.jsonl", "x.json", "x.csv", "x.tsv", "x.parquet", "x.xlsx"),
    "flagembedding": ("x.jsonl",),
    "tevatron": ("x.jsonl",),
    "llamaindex": ("x.json",),
    "msmarco": ("x.tsv",),
    "nemo": ("x.jsonl",),
    "ms-swift": ("x.jsonl",),
    "argilla": ("x.json",),
    "label-studio": ("x.json",),
    "datasets": ("x",),
    "beir": ("x",),
    "trec": ("x",),
}
TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), min_size=1, max_size=8)


def word(number, text):
    """A text that no other number gives, and that does not look like a list or an Excel error."""
    return " ".join(f"w{number} {text} end".split())


@st.composite
def exports(draw):
    """Queries with up to three graded positives, and negatives that may answer other queries."""
    texts = [word(n, draw(TEXT)) for n in range(8)]
    splits = draw(st.sampled_from([("",), ("train", "dev", "test")]))
    most = draw(st.sampled_from([1, 3]))
    examples = []
    for number in range(draw(st.integers(1, 4))):
        order = draw(st.permutations(range(8)))
        count, wrong = draw(st.integers(1, 3)), draw(st.integers(0, 3))
        examples.append(
            Example(
                f"q{number}",
                f"query {number} {' '.join(draw(TEXT).split())}?",
                tuple(Judged(f"d{n}", texts[n], draw(st.integers(1, most))) for n in order[:count]),
                tuple(Negative(f"d{n}", texts[n]) for n in order[count : count + wrong]),
                draw(st.sampled_from(splits)),
                draw(st.sampled_from(["", "g1"])),
                {"source": "web"} if draw(st.booleans()) else {},
            )
        )
    return Export(tuple(examples), {f"d{n}": text for n, text in enumerate(texts)})


def kept(export, holds):
    """What a format with these abilities keeps, in a form that can be compared."""
    graded = "grades" in holds
    contents = {}
    for example in export.examples:
        contents[example.query] = (
            {positive.text: positive.grade if graded else 1 for positive in example.positives},
            {negative.text for negative in example.negatives} if "negatives" in holds else set(),
            example.split if "splits" in holds else "",
            example.group if "groups" in holds else "",
            dict(example.fields) if "fields" in holds else {},
            (example.id, {p.text: p.id for p in example.positives}) if "ids" in holds else (),
        )
    return contents, set(export.documents.values()) if "documents" in holds else set()


def read_back(path, name):
    return export_of(registry.collect(path, name))


@pytest.mark.parametrize(("name", "file"), [(name, file) for name, files in TARGETS.items() for file in files])
@settings(max_examples=25, deadline=None)
@given(export=exports())
def test_what_a_format_holds_comes_back(name, file, export):
    format_ = registry.BY_NAME[name]
    if name == "msmarco":
        export = replace(export, examples=tuple(e for e in export.examples if e.negatives))
        if not export.examples:
            return
    if name in ("beir", "trec"):  # without a split: train, from which loaders take the others
        export = replace(export, examples=tuple(replace(e, split=e.split or "train") for e in export.examples))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file
        format_.write(export, path)
        assert kept(read_back(path, name), format_.holds) == kept(export, format_.holds)
        assert name == "msmarco" or registry.read(path)[0] is format_  # short texts could be a header


@pytest.mark.parametrize("name", ["argilla", "label-studio"])
def test_grades_come_back_without_a_zero_among_them(tmp_path, name):
    example = Example("q", "what", (Judged("a", "one", 1), Judged("b", "two", 3)))
    registry.BY_NAME[name].write(Export((example,), {"a": "one", "b": "two"}), tmp_path / "x.json")
    (back,) = read_back(tmp_path / "x.json", "").examples
    assert [positive.grade for positive in back.positives] == [1, 3]


@pytest.mark.parametrize(
    ("name", "file"), [("pairs", "x.csv"), ("sts", "x.tsv"), ("ms-swift", "x.jsonl"), ("datasets", "x")]
)
def test_similarities_come_back(tmp_path, name, file):
    pairs = (GradedPair("a b", "c d", 0.25), GradedPair("e", "f", 1.0), GradedPair("g", "h", 0.0))
    registry.BY_NAME[name].write(Export(similarities=pairs), tmp_path / file)
    assert read_back(tmp_path / file, "").similarities == pairs


def test_every_format_is_tested():
    assert set(TARGETS) | {"sts"} == set(registry.BY_NAME)


def lines(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


def whole(path, content):
    path.write_text(json.dumps(content), "utf-8")
    return path


def message(text, role="user"):
    return {"role": role, "content": text}


def task(answer, **shown):
    kind = "rating" if isinstance(answer, int) else "choices"
    value = {kind: answer if kind == "rating" else [answer]}
    result = {"from_name": "relevance", "type": kind, "value": value}
    return {"id": 1, "data": shown, "annotations": [{"result": [result], "was_cancelled": False}]}


class TestReading:
    def grades(self, path, name=""):
        (example,) = read_back(path, name).examples
        return {p.text: p.grade for p in example.positives}, [n.text for n in example.negatives]

    def test_flag_embedding_with_scores_and_prompt(self, tmp_path, caplog):
        record = {"query": "q", "pos": ["a", "b"], "neg": ["c"], "pos_scores": [0.9, 0.8], "prompt": "Find:"}
        path = lines(tmp_path / "x.jsonl", record)
        assert self.grades(path) == ({"a": 1, "b": 1}, ["c"])
        expected = "read as FlagEmbedding: 1 queries, 2.0 positives each, 2.0 hard negatives each, 3 documents"
        assert expected in caplog.text and "documents, pos_scores not read" in caplog.text

    @pytest.mark.parametrize("name", ["x.csv", "x.json", "folder", "y.json"])
    def test_queries_without_a_relevant_document_are_said(self, tmp_path, caplog, name):
        table = "query,positive,label\nq,a,1\nr,b,0\n"
        answers = [
            {"fields": {"query": q, "document": q}, "responses": {"label": [{"value": q}]}} for q in ("yes", "no")
        ]
        queries = {**LLAMA, "queries": {"1": "q", "2": "r", "3": "s"}, "relevant_docs": {"1": ["a"], "2": []}}
        contents = {"x.csv": table, "x.json": json.dumps(answers), "y.json": json.dumps(queries)}
        if name == "folder":
            lines(tmp_path / "x.jsonl", {"query": "q", "positive": "a"})
            convert(tmp_path / "x.jsonl", tmp_path / name)
            lines(tmp_path / name / "queries.jsonl", {"_id": "q0", "text": "q"}, {"_id": "q1", "text": "r"})
        else:
            (tmp_path / name).write_text(contents[name])
        report = convert(tmp_path / name, tmp_path / "z.jsonl")
        output = caplog.text + report[0]
        assert "queries without a" in output and ("2 queries" if name == "y.json" else "1 queries") in output
        assert len((tmp_path / "z.jsonl").read_text().splitlines()) == 1

    def test_queries_of_a_folder_without_a_relevant_document_are_said(self, tmp_path, caplog):
        convert(lines(tmp_path / "x.jsonl", {"query": "q", "positive": "a"}), tmp_path / "y")
        lines(tmp_path / "y" / "queries.jsonl", {"_id": "q0", "text": "q"}, {"_id": "q1", "text": "r"})
        header = "query-id\tcorpus-id\tscore\n"
        (tmp_path / "y" / "qrels" / "train.tsv").unlink()
        (tmp_path / "y" / "qrels" / "test.tsv").write_text(f"{header}q0\td0\t1\nq1\td0\t0\n")
        load_dataset(f"beir:{tmp_path / 'y'}", training=False)
        assert "left out 1 queries without a relevant document, for example 'q1'" in caplog.text

    def test_triples_without_a_header_and_with_quotes(self, tmp_path):
        good, bad = 'the "big" pump has five words', "no passage about any pump here"
        for name, header in (("a.tsv", ""), ("b.tsv", "query\tpositive\tnegative\n")):
            (tmp_path / name).write_text(f"{header}what is it\t{good}\t{bad}\n", "utf-8")
            assert self.grades(tmp_path / name) == ({good: 1}, [bad])
            assert registry.read(tmp_path / name)[0].name == "msmarco"

    def test_triples_in_a_script_without_spaces(self, tmp_path):
        (tmp_path / "a.tsv").write_text("水泵漏水\t更换水泵的密封圈\t打开房间的电灯\n", "utf-8")
        assert registry.read(tmp_path / "a.tsv")[0].name == "msmarco"

    def test_nemo_with_a_corpus(self, tmp_path):
        (tmp_path / "corpus").mkdir()
        lines(tmp_path / "corpus" / "a.jsonl", *({"id": f"d{n}", "text": f"text {n}"} for n in range(3)))
        record = {"question_id": "7", "question": "q", "pos_doc": [{"id": "d1"}], "neg_doc": [{"id": "d0"}]}
        path = whole(tmp_path / "x.json", {"corpus": {"path": "corpus"}, "data": [record]})
        export = read_back(path, "")
        assert self.grades(path) == ({"text 1": 1}, ["text 0"])
        assert export.documents == {"d0": "text 0", "d1": "text 1", "d2": "text 2"} and export.examples[0].id == "7"
        before = source_fingerprint(f"pairs:{path}")
        lines(tmp_path / "corpus" / "a.jsonl", {"id": "d1", "text": "another"})
        assert source_fingerprint(f"pairs:{path}") != before

    def test_ms_swift_with_system_message_and_label(self, tmp_path):
        wrong = {"messages": [message("q")], "positive_messages": [[message("b")]], "label": 0}
        right = {
            "messages": [message("q")],
            "positive_messages": [[message("Note:", "system"), message("a")]],
            "label": 1,
        }
        assert self.grades(lines(tmp_path / "x.jsonl", right, wrong)) == ({"Note: a": 1}, ["b"])

    def test_argilla_flat_drafts_and_disagreement(self, tmp_path, caplog):
        rows = [
            {"query": "q", "document": "a", "id": "1", "relevance.responses": ["yes", "yes"]},
            {"query": "q", "document": "b", "id": "2", "relevance.responses": ["yes", "no"]},
            {"query": "q", "document": "c", "id": "3", "relevance.responses": ["no", "yes"]},
            {"query": "q", "document": "d", "id": "4", "relevance.responses": None},
        ]
        rows[2]["relevance.responses.status"] = ["submitted", "draft"]
        assert self.grades(whole(tmp_path / "x.json", rows)) == ({"a": 1}, ["c"])
        assert "1 records without an answer left out, 1 pairs left out because their annotators disagree" in caplog.text

    def test_ratings_that_start_at_one(self, tmp_path, caplog):
        tasks = [task(n, question="q", text=f"text {n}") for n in (1, 2, 5)]
        assert self.grades(whole(tmp_path / "x.json", tasks)) == ({"text 2": 1, "text 5": 4}, ["text 1"])
        assert "ratings of 1 mean not relevant" in caplog.text

    def test_label_studio_table(self, tmp_path):
        header = "id,query,document,relevance,annotator,annotation_id,created_at\n"
        rows = "1,q,a,Relevant,1,11,now\n2,q,b,Not relevant,1,12,now\n"
        (tmp_path / "x.csv").write_text(header + rows, "utf-8")
        assert self.grades(tmp_path / "x.csv") == ({"a": 1}, ["b"])

    @pytest.mark.parametrize(("highest", "scale"), [(1, 1), (4.5, 5), (5, 5), (8, 10), (80, 100), (100, 100)])
    def test_scales_of_similarity(self, tmp_path, caplog, highest, scale):
        (tmp_path / "x.csv").write_text(f"sentence1,sentence2,score\na,b,{highest}\nc,d,0\ne,f,0.5\n")
        scores = [pair.score for pair in load_dataset(f"pairs:{tmp_path / 'x.csv'}").graded_pairs]
        assert scores == pytest.approx([highest / scale, 0, 0.5 / scale])
        assert (f"are divided by {scale}" in caplog.text) == (scale > 1)

    def test_classes_are_not_a_scale(self, tmp_path):
        (tmp_path / "x.csv").write_text("sentence1,sentence2,label\na,b,2\nc,d,0\n")
        with pytest.raises(DataError, match="Rename it to 'score' if it is a scale") as caught:
            load_dataset(f"pairs:{tmp_path / 'x.csv'}")
        assert (caught.value.line, caught.value.field) == (2, "label")

    def test_grades_and_zeros(self, tmp_path):
        rows = [{"query": "q", "positive": f"text {n}", "grade": n} for n in range(3)]
        assert self.grades(lines(tmp_path / "x.jsonl", *rows)) == ({"text 1": 1, "text 2": 2}, ["text 0"])
        splits = ("train", "dev", "test")
        rows = [{"query": f"q{n}", "positive": f"p{n}", "grade": 3, "split": s} for n, s in enumerate(splits)]
        rows.append({"query": "q0", "positive": "wrong", "grade": 0, "split": "train"})
        dataset = load_dataset(f"pairs:{lines(tmp_path / 'y.jsonl', *rows)}")
        assert dataset.qrels["train"] == {"q0": {"d0": 3}}
        assert dataset.triplets == (("q0", "p0", "wrong"),)

    def test_a_saved_dataset_has_its_splits_under_both_names(self, tmp_path):
        import datasets

        rows = {split: [{"query": f"{split} q", "positive": f"{split} p"}] for split in ("train", "validation", "test")}
        datasets.DatasetDict({s: datasets.Dataset.from_list(r) for s, r in rows.items()}).save_to_disk(tmp_path / "x")
        for scheme in ("pairs", "hf"):
            dataset = load_dataset(f"{scheme}:{tmp_path / 'x'}")
            assert dataset.split_queries("dev") == {"q1": "validation q"}
            assert source_fingerprint(f"{scheme}:{tmp_path / 'x'}")
        (tmp_path / "x" / "train" / "state.json").write_text("{")
        with pytest.raises(DataError, match="this saved dataset cannot be read"):
            load_dataset(f"pairs:{tmp_path / 'x'}")

    def test_a_folder_of_beir_is_read_as_such(self):
        folder = CASES / "beir_valid_split"
        assert replace(load_dataset(f"pairs:{folder}"), name="") == replace(load_dataset(f"beir:{folder}"), name="")

    def test_excel_has_row_numbers_and_no_errors(self, tmp_path):
        import openpyxl

        book = openpyxl.Workbook()
        for row in (
            [],
            ["query", "positive", "number"],
            ["q", "=1+1", 3.0],
            ["=SUM(1)", "p", None],
            [None],
            ["r", "", 1],
        ):
            book.active.append(row)
        book.active["B3"].data_type = book.active["A4"].data_type = "s"
        book.save(tmp_path / "x.xlsx")
        with pytest.raises(DataError, match="'positive' is empty") as caught:
            load_dataset(f"pairs:{tmp_path / 'x.xlsx'}")
        assert (caught.value.line, caught.value.field) == (6, "positive")
        rows = registry.read(tmp_path / "x.xlsx")[1].rows
        assert rows[0].values == {"query": "q", "positive": "=1+1", "number": "3"}


FLAG, SWIFT, NEMO = "flagembedding", "ms-swift", "nemo"
MALFORMED = [
    (FLAG, [{"query": "q", "pos": ["a"]}, {"query": "q", "pos": [1]}], 2, "pos", "must be a list of texts"),
    (FLAG, [{"query": "q", "pos": []}], 1, "pos", "'pos' is empty"),
    (FLAG, [{"query": "q", "pos": ["a"], "neg": {"x": 1}}], 1, "neg", "must be a list of texts"),
    (FLAG, [{"query": "", "pos": ["a"]}], 1, "query", "'query' is empty"),
    (FLAG, [{"query": "q", "pos": ["a"]}, {"query": "q"}], 2, "pos", "'pos' is missing"),
    (FLAG, [{"query": "q", "pos": ["a"], "neg": ["a"]}], 1, "neg", "is a positive of the same query"),
    ("tevatron", [{"query": "q", "positive_passages": ["a"]}], 1, "positive_passages", "must hold objects with 'text'"),
    ("tevatron", [{"query": "q", "positive_passages": [{"title": "t"}]}], 1, "positive_passages", "'text' is missing"),
    ("tevatron", [{"query": "q", "positive_document_ids": ["1"]}], 1, "positive_passages", "need their corpus"),
    (NEMO, [{"question": "q", "pos_doc": [{"id": "1"}]}], 1, "pos_doc", "ids without texts"),
    (NEMO, [{"question": "q", "pos_doc": []}], 1, "pos_doc", "missing or empty"),
    (SWIFT, [{"messages": [], "positive_messages": [[message("a")]]}], 1, "messages", "must hold lists of messages"),
    (
        SWIFT,
        [{"messages": [message("q"), message("a", "assistant")], "positive_messages": [[message("a")]]}],
        1,
        "messages",
        "expected a user message",
    ),
    (SWIFT, [{"messages": [message("q")], "positive_messages": "a"}], 1, "positive_messages", "list of message lists"),
    (SWIFT, [{"messages": [{"role": "user"}], "positive_messages": []}], 1, "messages", "'content' is missing"),
    (
        "argilla",
        [{"fields": {"query": "q"}, "responses": {"a": ["x"]}}],
        1,
        "responses",
        "list of objects with 'value'",
    ),
    ("argilla", [{"query": "q", "text": "t", "a.responses": ["maybe"]}], 1, "a", "is not a grade"),
    ("argilla", [{"fields": {"text": "q"}, "responses": {"a": [{"value": 1}]}}], 1, "fields", "no field for the query"),
    ("label-studio", [{"data": {"query": "q"}, "annotations": [{}]}], 1, "annotations", "has no list 'result'"),
    ("label-studio", [task("yes", query="q", text="t"), {"id": 2}], 2, "data", "'data' must be an object"),
]


@pytest.mark.parametrize(("name", "records", "line", "field", "problem"), MALFORMED)
def test_faults_have_a_location(tmp_path, name, records, line, field, problem):
    path = lines(tmp_path / "x.jsonl", *records)
    assert registry.detect(registry.Source(path)).name == name
    with pytest.raises(DataError, match=problem) as caught:
        load_dataset(f"pairs:{path}")
    assert (caught.value.file, caught.value.line, caught.value.field) == (path, line, field) and caught.value.remedy


LLAMA = {"queries": {"1": "q"}, "corpus": {"a": "text"}, "relevant_docs": {"1": ["a"]}}


@pytest.mark.parametrize(
    ("part", "value", "line", "problem"),
    [
        ("queries", {}, None, "must be an object that is not empty"),
        ("corpus", {"a": 1}, 1, "must be a string"),
        ("relevant_docs", {"2": ["a"]}, 1, "the query '2' is not in 'queries'"),
        ("relevant_docs", {"1": []}, None, "no query has a relevant document"),
        ("relevant_docs", {"1": "a"}, 1, "must have a list of document ids"),
        ("relevant_docs", {"1": ["a", "b"]}, 1, "the document 'b' of '1' is not in 'corpus'"),
        ("relevant_docs", {"1": [{"id": "a"}]}, 1, "the document {'id': 'a'} of '1' is not in 'corpus'"),
    ],
)
def test_faults_of_llama_index(tmp_path, part, value, line, problem):
    path = whole(tmp_path / "x.json", {**LLAMA, part: value})
    with pytest.raises(DataError, match=problem) as caught:
        load_dataset(f"pairs:{path}")
    field = "corpus.a" if part == "corpus" else part
    assert (caught.value.file, caught.value.line, caught.value.field) == (path, line, field)


@pytest.mark.parametrize(
    ("name", "text", "line", "problem"),
    [
        ("x.tsv", "query\tpositive\tnegative\na\tb\n", 2, "expected query, positive and negative, got 2 cells"),
        ("x.tsv", "1\t2\t3\n", 1, "has ids instead of texts"),
        ("x.qrels", "q 0 d 1\n", None, "a TREC file has ids, and no texts"),
        ("x.json", '{"rows": []}', None, "the format of this file is unknown"),
        ("x.qrels", "q 0 d high\n", 1, "neither TREC judgements"),
        ("x.json", '{"query": "q"}\n{"query": "r"}\n', 2, r"name the file \*.jsonl"),
        ("x.jsonl", '[{"query": "q"}]\n', 1, "A list of all records is a .json file"),
    ],
)
def test_faults_of_other_files(tmp_path, name, text, line, problem):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=problem) as caught:
        load_dataset(f"pairs:{tmp_path / name}")
    assert (caught.value.file, caught.value.line) == (tmp_path / name, line)


@pytest.mark.parametrize("name", registry.BY_NAME)
@pytest.mark.parametrize("file", ["x.jsonl", "x.json", "list.json", "folder"])
def test_a_wrong_format_is_our_error(tmp_path, name, file):
    lines(tmp_path / "x.jsonl", {"frage": "q", "antwort": "a"})
    whole(tmp_path / "x.json", {"frage": "q"})
    whole(tmp_path / "list.json", [{"frage": "q"}])
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError):
        registry.collect(tmp_path / file, name)


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({"question": "q", "pos_doc": [1]}, "pos_doc"),
        ({"question": 1, "pos_doc": ["a"]}, "question"),
        (
            {"query": "q", "positive_passages": [{"docid": "1", "text": "a"}], "negative_passages": [1]},
            "negative_passages",
        ),
        ({"Anchor": 1, "answer": "a"}, "Anchor"),
        ({"query": "q", "answer": 1}, "answer"),
        ({"query": "q", "answer": "a", "relevance": 11}, "relevance"),
    ],
)
def test_errors_name_the_column_of_the_file(tmp_path, record, field):
    with pytest.raises(DataError, match=f"'{field}'") as caught:
        load_dataset(f"pairs:{lines(tmp_path / 'x.jsonl', record)}")
    assert caught.value.field == field


def test_errors_name_the_column_that_the_spec_names(tmp_path):
    path = lines(tmp_path / "x.jsonl", {"Frage": "q", "Antwort": 1})
    with pytest.raises(DataError, match="'Antwort' must be a string"):
        load_dataset(f"pairs:{path}?query=frage&positive=antwort")


@pytest.mark.parametrize(("split", "problem"), [("", "this dataset has no rows"), ("train", "this split has no rows")])
def test_a_saved_dataset_without_rows(tmp_path, split, problem):
    convert(
        lines(tmp_path / "x.jsonl", {"query": "q", "positive": "a", "split": split or None}), tmp_path / "x", "datasets"
    )
    for file in (tmp_path / "x" / split).glob("*.arrow"):
        file.unlink()  # as the library saves a table without rows
    with pytest.raises(DataError, match=problem) as caught:
        registry.read(tmp_path / "x")
    assert caught.value.file == tmp_path / "x" / split


def test_annotators_who_never_agree(tmp_path):
    answers = {"relevance": [{"value": "yes"}, {"value": "no"}]}
    path = whole(tmp_path / "x.json", [{"fields": {"query": "q", "document": "d"}, "responses": answers}])
    with pytest.raises(DataError, match="no pair is left: 0 have no answer, and on 1 the annotators disagree"):
        registry.collect(path)


def test_two_questions_and_no_answers(tmp_path):
    answers = {"relevance": [{"value": 1}], "label": [{"value": 1}]}
    path = whole(tmp_path / "x.json", [{"fields": {"query": "q", "document": "d"}, "responses": answers}])
    with pytest.raises(DataError, match="'label', 'relevance' could each be the relevance"):
        registry.collect(path)
    path = whole(tmp_path / "y.json", [{"fields": {"query": "q", "document": "d"}, "responses": {}}])
    with pytest.raises(DataError, match="no record has an answer"):
        registry.collect(path)


def test_an_unknown_format_is_named(tmp_path):
    path = lines(tmp_path / "x.jsonl", {"query": "q", "pos": ["a"]})
    with pytest.raises(DataError, match="format must be .* got 'flag'"):
        load_dataset(f"pairs:{path}?format=flag")
    with pytest.raises(DataError, match="unknown format 'teva'. Did you mean 'tevatron'?"):
        convert(path, tmp_path / "y.jsonl", "teva")


class TestConvert:
    def source(self, tmp_path):
        rows = [
            {"query": f"question {n}", "positive": f"text {n}", "split": "train", "source": "web"} for n in range(3)
        ]
        return lines(tmp_path / "x.jsonl", *({**row, "neg": "other"} for row in rows))

    def test_losses_are_said(self, tmp_path):
        report = convert(self.source(tmp_path), tmp_path / "y.jsonl", "tevatron")
        assert report[0] == "read as pairs: 3 queries, 1.0 positives each, 1.0 hard negatives each, 4 documents"
        assert report[1:] == [f"wrote {tmp_path / 'y.jsonl'} as Tevatron: 3 queries", "not kept: splits, metadata"]
        report = convert(self.source(tmp_path), tmp_path / "y.json", "llamaindex")
        assert report[2] == "not kept: splits, metadata, hard negatives"

    def test_ids_that_are_merged_are_said(self, tmp_path, caplog):
        rows = [("1", "q", "a", "text"), ("2", "q", "b", "text"), ("3", "other", "c", "text")]
        records = [
            {"query_id": key, "query": query, "positive_passages": [{"docid": document, "text": text}]}
            for key, query, document, text in rows
        ]
        convert(lines(tmp_path / "x.jsonl", *records), tmp_path / "folder")
        assert "merged 1 ids of queries into others with the same text, for example '2' into '1'" in caplog.text
        assert "merged 2 ids of documents into others with the same text, for example 'b' into 'a'" in caplog.text

    def test_a_folder_is_beir_and_loads(self, tmp_path):
        convert(self.source(tmp_path), tmp_path / "folder")
        assert registry.read(tmp_path / "folder")[0].name == "beir"

    def test_nothing_is_overwritten(self, tmp_path):
        path = self.source(tmp_path)
        with pytest.raises(DataError, match="this file or folder exists"):
            convert(path, path)

    @pytest.mark.parametrize(
        ("target", "to", "problem"),
        [
            ("y.jsonl.gz", "", "compressed files are not written. Write .*y.jsonl.$"),
            ("y.tsv", "msmarco", "no query has a hard negative"),
            ("y.csv", "msmarco", "separated by tabs. Name the file"),
            ("y.xlsx", "", r"^[^ ]*/y.xlsx:2 \[positive\]: a text has 39,999 characters"),
        ],
    )
    def test_what_cannot_be_written(self, tmp_path, target, to, problem):
        source = lines(tmp_path / "x.jsonl", {"query": "q", "positive": "long " * 8_000})
        with pytest.raises(DataError, match=problem):
            convert(source, tmp_path / target, to)
        assert not (tmp_path / target).exists()

    def test_advice_needs_no_option_of_a_dataset(self, tmp_path):
        source = lines(tmp_path / "x.jsonl", {"query": "q", "positive": "a", "negatives": ["a"]})
        with pytest.raises(DataError, match="positive of the same query.*Remove it, or remove the positive.$"):
            convert(source, tmp_path / "y.csv")
        with pytest.raises(
            DataError, match="'arg-99-con' is not in corpus.jsonl. Add it to corpus.jsonl, or remove this row"
        ):
            convert(CASES / "beir_unknown_document", tmp_path / "y.csv")

    def test_a_spec_is_not_a_path(self, tmp_path):
        path = self.source(tmp_path)
        with pytest.raises(DataError, match=f"this is the spec of a dataset. Write the path alone: {path}"):
            convert(Path(f"pairs:{path}"), tmp_path / "y.csv")

    def test_similarities_need_a_format_that_holds_them(self, tmp_path):
        (tmp_path / "x.csv").write_text("sentence1,sentence2,score\na,b,0.5\n")
        with pytest.raises(DataError, match="Tevatron cannot hold similarities.*--to with one of"):
            convert(tmp_path / "x.csv", tmp_path / "y.jsonl", "tevatron")

    def test_hard_negatives_from_a_run(self, tmp_path):
        convert(self.source(tmp_path), tmp_path / "folder")
        ids = {text: key for key, text in read_back(tmp_path / "folder", "").documents.items()}
        run = [("text 0", 1), ("text 2", 3), ("text 1", 2)]
        text = "".join(f"q0 Q0 {ids[document]} {rank} {9 - rank}.5 bm25\n" for document, rank in run)
        (tmp_path / "x.run").write_text(text)
        report = convert(tmp_path / "folder", tmp_path / "y.jsonl", run=tmp_path / "x.run", negatives=1)
        assert report[1].endswith("x.run: added 1 hard negatives")
        first = json.loads((tmp_path / "y.jsonl").read_text().splitlines()[0])
        assert first["negatives"] == ["other", "text 1"]  # rank 1 answers the query
        (tmp_path / "x.run").write_text("q0 Q0 gone 1 1.5 bm25\n")
        with pytest.raises(DataError, match="'gone' is not an id of the data"):
            convert(tmp_path / "folder", tmp_path / "z.jsonl", run=tmp_path / "x.run")

    def test_a_run_may_name_ids_that_were_merged(self, tmp_path):
        """a and c have the same text, and so do the queries q and r: the first id of each is kept."""
        corpus = {"a": "same text", "b": "the answer", "c": "same text"}
        lines = [json.dumps({"_id": key, "title": "", "text": text}) for key, text in corpus.items()]
        (tmp_path / "x" / "qrels").mkdir(parents=True)
        (tmp_path / "x" / "corpus.jsonl").write_text("\n".join(lines))
        queries = [json.dumps({"_id": key, "text": "what"}) for key in ("q", "r")]
        (tmp_path / "x" / "queries.jsonl").write_text("\n".join(queries))
        (tmp_path / "x" / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq\tb\t1\nr\tb\t1\n")
        (tmp_path / "x.run").write_text("r Q0 c 1 2.0 x\nr Q0 a 2 1.0 x\nr Q0 b 3 0.5 x\n")
        report = convert(tmp_path / "x", tmp_path / "y.jsonl", run=tmp_path / "x.run")
        assert report[1].endswith("added 1 hard negatives")
        assert json.loads((tmp_path / "y.jsonl").read_text())["negatives"] == ["same text"]

    @pytest.mark.parametrize(
        ("kind", "text"), [("qrels", "q1 0 d1 1\nq1 0 d2 0\n"), ("run", "q1 Q0 d1 1 9.5 bm25\nq1 Q0 d2 2 1.25 bm25\n")]
    )
    def test_judgements_and_runs_become_tables_and_come_back(self, tmp_path, kind, text):
        first, last = tmp_path / f"x.{kind}", tmp_path / f"y.{kind}"
        first.write_text(text)
        assert convert(first, tmp_path / "x.csv")[0].startswith("read 2 ")
        convert(tmp_path / "x.csv", last)
        assert last.read_text() == text and trec.read(last).kind == kind

    def test_judgements_of_texts(self, tmp_path):
        convert(lines(tmp_path / "x.jsonl", {"query": "q", "positive": "a"}), tmp_path / "y.qrels")
        assert (tmp_path / "y.qrels").read_text() == "q0 0 d0 1\n"
        convert(tmp_path / "y.qrels", tmp_path / "z.jsonl")
        assert json.loads((tmp_path / "z.jsonl").read_text())["score"] == 1

    def test_command(self, tmp_path):
        result = CliRunner().invoke(
            app, ["convert", str(self.source(tmp_path)), str(tmp_path / "y.jsonl"), "--to", "nemo"]
        )
        assert result.exit_code == 0 and "as NeMo: 3 queries" in result.output


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("q 0 d 1\nq 0 d\n", 2, "expected 4 columns"),
        ("q 0 d 1\nq 0 d x\n", 2, "the grade must be a whole number"),
        ("q Q0 d 1 0.5 t\nq Q0 d 2 high t\n", 2, "the score must be a number"),
        ("one two\n", 1, "neither TREC judgements"),
    ],
)
def test_faults_of_trec(tmp_path, text, line, problem):
    (tmp_path / "x.run").write_text(text)
    with pytest.raises(DataError, match=problem) as caught:
        trec.read(tmp_path / "x.run")
    assert caught.value.line == line


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | TEXT,
        lambda children: (
            st.lists(children, max_size=3)
            | st.dictionaries(
                st.sampled_from(("query", "pos", "text", "value", "messages", "content", "fields", "data", "result")),
                children,
                max_size=4,
            )
        ),
        max_leaves=12,
    ),
    st.sampled_from(MALFORMED),
)
def test_any_content_loads_or_gives_our_error(value, case):
    name, records, *_ = case
    for field in records[-1]:
        with tempfile.TemporaryDirectory() as folder:
            path = lines(Path(folder) / "x.jsonl", *records[:-1], {**records[-1], field: value})
            logging.disable(logging.WARNING)
            try:
                registry.collect(path, name)
            except EmbedlabError as error:
                assert error.remedy
            finally:
                logging.disable(logging.NOTSET)
