"""Files as others have them, each with its right value: loaded to what it says, or refused with the place."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from embedlab.data import pairs
from embedlab.data.dataset import Triplet
from embedlab.data.load import load_dataset
from embedlab.data.review import export_sheet, import_judgements
from embedlab.errors import DataError
from embedlab.evaluation.local_tasks import local_task, sts_columns
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.probes import open_probe
from embedlab.evaluation.task_files import folder_tasks
from embedlab.search.exact import Ranking

CASES = Path(__file__).resolve().parents[1] / "cases"
SPLITS = ("train", "train", "dev", "test")


def case(name):
    return f"{'beir' if name.startswith('beir') else 'pairs'}:{CASES / name}"


def write(path, records):
    """Records in the format of the suffix, as pandas writes them."""
    frame = pd.DataFrame(records)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return f"pairs:{path}"


def four(**columns):
    """Four pairs in three splits; a column is a value, or a list of four."""
    rows = [{"query": f"question {n}", "positive": f"answer {n}", "split": SPLITS[n]} for n in range(4)]
    for name, value in columns.items():
        values = value if isinstance(value, list) else [value] * 4
        for row, cell in zip(rows, values, strict=True):
            row[name] = cell
    return rows


def content(dataset):
    return dataset.corpus, dataset.queries, dataset.qrels, dataset.triplets, dataset.groups, dataset.fields


class TestScores:
    def test_zeros_of_a_label_are_not_relevant(self, caplog):
        label, score = (load_dataset(case(f"pairs_scores/{name}01.csv")) for name in ("label", "score"))
        assert content(label) == content(score)
        assert all(len(grades) == 1 for part in label.qrels.values() for grades in part.values())
        assert "'label' is read as the score" in caplog.text

    def test_a_label_of_two_sentences_is_their_score(self):
        dataset = load_dataset(case("pairs_scores/label.csv"))
        assert [pair.score for pair in dataset.graded_pairs][:3] == [0, 1, 0]

    @pytest.mark.parametrize("name", ["label", "Labels", "relevance", "is_relevant"])
    @pytest.mark.parametrize("values", [[1, 0, 1, 1], [True, False, True, True], ["1.0", "0.0", "1.0", "1.0"]])
    def test_every_usual_name(self, tmp_path, name, values):
        dataset = load_dataset(write(tmp_path / "x.csv", four(**{name: values})))
        assert "question 1" not in dataset.queries.values()
        assert len(dataset.queries) == 3

    def test_a_label_of_words_is_metadata(self, tmp_path):
        dataset = load_dataset(write(tmp_path / "x.csv", four(label=["sport", "news", "sport", "news"])))
        assert {fields["label"] for fields in dataset.fields.values()} == {"sport", "news"}

    @pytest.mark.parametrize(
        ("columns", "line", "field", "problem"),
        [
            ({"label": [1, 2, 1, 1]}, 3, "label", "from 0 .not relevant. to 1, got '2'"),
            ({"label": ["1", "x", "1", "1"]}, 3, "label", "got 'x'"),
            ({"label": ["irrelevant", "relevant", "relevant", "relevant"]}, 2, "label", "got 'irrelevant'"),
            ({"label": ["1", "", "1", "1"]}, 3, "label", "is empty"),
            ({"label": 1, "relevance": 1}, None, "label", "could each be the relevance"),
            ({"score": ["1", "", "1", "1"]}, 3, "score", "the score is empty"),
            ({"score": ["1", "0,5", "1", "1"]}, 3, "score", "Write it with a decimal point: 0.5"),
            ({"score": [1, -0.5, 1, 1]}, 3, "score", "add 1 and divide by 2"),
            ({"score": [1, 85, 1, 1]}, 3, "score", "Divide the scores by the maximum"),
        ],
    )
    def test_what_is_refused(self, tmp_path, columns, line, field, problem):
        with pytest.raises(DataError, match=problem) as caught:
            load_dataset(write(tmp_path / "x.csv", four(**columns)))
        assert (caught.value.line, caught.value.field) == (line, field)

    def test_the_same_pair_cannot_be_both(self, tmp_path):
        rows = four(score=1)
        with pytest.raises(DataError, match="line 2 gives the same query and document the score 1") as caught:
            load_dataset(write(tmp_path / "x.csv", [*rows, {**rows[0], "score": 0}]))
        assert (caught.value.line, caught.value.field) == (6, "score")


NAMES = ["negative", "negatives", "negative_2", "hard_negative", "Hard Negative", "hard_negatives", "neg", "negs"]
NAMES += ["neg_doc", "negative_passage", "hard_negative_1", "neg2"]


class TestHardNegatives:
    @pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
    @pytest.mark.parametrize("name", NAMES)
    def test_every_usual_name_in_every_format(self, tmp_path, name, suffix):
        spec = write(tmp_path / f"x{suffix}", four(**{name: [f"wrong {n}" for n in range(4)]}))
        expected = [Triplet(f"question {n}", f"answer {n}", f"wrong {n}") for n in range(2)]
        assert list(load_dataset(spec).triplets) == expected
        (tmp_path / f"x{suffix}").rename(tmp_path / f"train{suffix}")
        assert list(load_dataset(f"hf:{tmp_path}").triplets) == expected

    @pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
    @pytest.mark.parametrize(
        "value", [["bad", "worse"], [{"docid": "1", "text": "bad"}, {"docid": "2", "text": "worse"}]]
    )
    def test_lists(self, tmp_path, suffix, value):
        rows = [{**row, "negatives": value} for row in four()]
        dataset = load_dataset(write(tmp_path / f"x{suffix}", rows))
        assert [triplet.negative for triplet in dataset.triplets] == ["bad", "worse"] * 2

    def test_files_of_other_tools(self):
        counts = {"hard_negative.jsonl": 1, "negatives_list.jsonl": 2, "positive_list.jsonl": 0, "tevatron.jsonl": 1}
        for name, count in counts.items():
            dataset = load_dataset(case(f"pairs_lists/{name}"))
            assert len(dataset.triplets) == count * len(dataset.qrels["train"])
        assert len(load_dataset(case("pairs_lists/pos_neg.parquet")).triplets) == 60

    def test_several_positives_each_get_the_negatives(self, tmp_path):
        rows = [{**row, "positive": [row["positive"], f"{row['positive']} too"], "neg": "wrong"} for row in four()]
        dataset = load_dataset(write(tmp_path / "x.jsonl", rows))
        assert {len(grades) for part in dataset.qrels.values() for grades in part.values()} == {2}
        assert len(dataset.triplets) == 4

    @pytest.mark.parametrize(
        ("columns", "field", "problem"),
        [
            ({"negatives": "['a text', 'another']"}, "negatives", "a list that was written as a text"),
            ({"positive": "['a text' 'another']"}, "positive", "a list that was written as a text"),
            ({"false negatives": "a text"}, "false negatives", "seems to hold negatives"),
            ({"false negatives": "水泵过热怎么办"}, "false negatives", "seems to hold negatives"),
            ({"positive_2": "a text"}, "positive_2", "seems to hold positives"),
            ({"negative": "answer 0"}, "negative", "is a positive of the same query in line 2"),
            ({"negative": "a text", "score": [1, 0, 1, 1]}, "negative", "the score is 0"),
            ({"negative": "a text", "score": 0.5}, "negative", "takes no hard negatives"),
        ],
    )
    def test_what_is_refused(self, tmp_path, columns, field, problem):
        with pytest.raises(DataError, match=problem) as caught:
            load_dataset(write(tmp_path / "x.csv", four(**columns)))
        assert caught.value.field == field and caught.value.line in (2, 3)

    def test_negatives_that_are_positives_can_be_left_out(self, tmp_path, caplog):
        spec = write(tmp_path / "x.csv", four(negative=["answer 0", "wrong", "", ""]))
        assert [t.negative for t in load_dataset(f"{spec}?repair=true").triplets] == ["wrong"]
        assert "left out 1 hard negatives" in caplog.text

    def test_ids_and_scores_of_negatives_are_metadata(self, tmp_path):
        dataset = load_dataset(write(tmp_path / "x.csv", four(negative_id="d9", neg_scores=0.5)))
        assert not dataset.triplets and set(dataset.fields["q0"]) == {"negative_id", "neg_scores"}


def test_unread_columns_are_said(tmp_path, caplog):
    load_dataset(write(tmp_path / "x.jsonl", [{**row, "tags": ["a"]} for row in four()]))
    assert "these columns hold lists or objects and are not read: tags" in caplog.text
    load_dataset(write(tmp_path / "y.csv", four(score=0.5, group="g", note="n")))
    assert "graded pairs have no metadata or groups, so these are not read: group, note" in caplog.text


@pytest.mark.parametrize("name", ["target", "rating", "y"])
def test_zeros_and_ones_under_an_unknown_name_are_said(tmp_path, caplog, name):
    rows = [{**row, name: i % 2, "length": 7} for i, row in enumerate(four())]
    load_dataset(write(tmp_path / "x.csv", rows))
    assert f"'{name}' holds only 0 and 1 and is metadata. Rename it to 'score'" in caplog.text
    caplog.clear()
    load_dataset(write(tmp_path / "y.csv", [{**row, "score": 1} for row in rows]))
    assert "holds only 0 and 1" not in caplog.text


TYPED = {
    "float": [1.0, 2.5, 3.0, 4.0],
    "float32": list(np.array([0.1, 0.2, 0.3, 1e20], dtype=np.float32)),
    "gaps": [1, None, 3, 4],
    "int": [1, 2, 3, 4],
    "bool": [True, False, True, True],
    "date": pd.to_datetime(["2024-01-31"] * 4),
    "time": pd.to_datetime(["2024-01-31", "2024-01-31 10:30:00", "2024-02-01", "2024-02-02"], format="mixed"),
    "zeros": ["007", "070", "700", "000"],
}


@pytest.mark.parametrize("kind", TYPED)
@pytest.mark.parametrize("column", ["group", "field"])
def test_types_are_the_same_in_csv_and_parquet(tmp_path, kind, column):
    frame = pd.DataFrame(four())
    frame[column] = pd.Series(TYPED[kind], dtype=np.float32 if kind == "float32" else None)
    frame.to_csv(tmp_path / "x.csv", index=False)
    frame.to_parquet(tmp_path / "x.parquet")
    from_csv, from_parquet = (pairs.load(str(tmp_path / name), name="x") for name in ("x.csv", "x.parquet"))
    assert content(from_csv) == content(from_parquet)
    assert from_csv.fields if column == "field" else "q0" not in from_csv.groups.values()


def test_groups_with_gaps_are_the_same_in_csv_and_parquet():
    assert content(pairs.load(str(CASES / "pairs_gaps/float_group.csv"), name="x")) == content(
        pairs.load(str(CASES / "pairs_gaps/float_group.parquet"), name="x")
    )


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_empty_score_is_unknown(suffix):
    with pytest.raises(DataError, match="the score is empty"):
        load_dataset(case(f"pairs_gaps/score_nan.{suffix}"))


DIALECTS = [
    ("semicolon.csv", 1, "separated by semicolons: the header is 'query;positive'"),
    ("cr.csv", 1, "the lines end with CR alone"),
    ("utf16.tsv", 1, "not UTF-8 but UTF-16"),
    ("cp1252.csv", 2, "not UTF-8"),
    ("backslash.csv", 7, 'write a quote inside a quoted cell twice, as ""'),
]


@pytest.mark.parametrize(("name", "line", "problem"), DIALECTS)
def test_dialects_are_named(name, line, problem):
    with pytest.raises(DataError, match=problem) as caught:
        load_dataset(case(f"pairs_dialects/{name}"))
    assert caught.value.line == line


def test_line_with_the_delimiter_and_huge_cells(tmp_path):
    assert len(load_dataset(case("pairs_dialects/sepline.csv")).queries) == 40
    dataset = load_dataset(write(tmp_path / "x.csv", four(positive=[f"{n} " + "long " * 40_000 for n in range(4)])))
    assert min(map(len, dataset.corpus.values())) > 150_000


DEEP = '{"query": "a", "positive": "b", "x": ' + "[" * 200_000 + "]" * 200_000 + "}\n"
HALF_DEEP = '{"query": "a", "positive": "b", "x": ' + "[" * 800 + "1" + "]" * 800 + "}\n"
JSONL = [
    (DEEP, None, "nested too deeply"),
    ('{"query": "a", "positive": "b", "n": ' + "9" * 5_000 + "}\n", None, "too many digits"),
    ('{"query": "a", "query": "c", "positive": "b"}\n', "query", "the key 'query' occurs twice"),
    ('{"query": "\\u200b\\ufeff", "positive": "b"}\n', "query", "'query' is empty"),
    ('{"query": "a\\u0000", "positive": "b"}\n', "query", "NUL character"),
    ('{"query": "a", "positive": "b", "note": "\\ud800"}\n', "note", "half of a surrogate pair"),
    ('{"query": "a", "positive": "b", "Query": "c"}\n', "Query", "two columns are read as 'query'"),
]


@pytest.mark.parametrize(("line", "field", "problem"), JSONL)
def test_json_that_is_refused(tmp_path, line, field, problem):
    (tmp_path / "x.jsonl").write_text('{"query": "q", "positive": "p"}\n' + line)
    with pytest.raises(DataError, match=problem) as caught:
        load_dataset(f"pairs:{tmp_path / 'x.jsonl'}")
    assert (caught.value.line, caught.value.field) == (2, field)


def test_json_nested_less_deeply_is_no_crash(tmp_path):
    lines = "".join(json.dumps(row) + "\n" for row in four())
    (tmp_path / "x.jsonl").write_text(lines + HALF_DEEP.replace("}", ', "split": "train"}'))
    try:
        load_dataset(f"pairs:{tmp_path / 'x.jsonl'}")
    except DataError as error:
        assert error.line == 5


class TestPaths:
    def test_a_question_mark_belongs_to_a_file_that_exists(self, tmp_path):
        spec = write(tmp_path / "a?b=c.csv", four())
        assert len(load_dataset(spec).queries) == len(load_dataset(f"{spec}?repair=true").queries) == 4

    def test_paths_that_are_not_there(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(DataError, match=f"does not exist.*searched at {tmp_path}/no.csv"):
            load_dataset("pairs:no.csv")
        with pytest.raises(DataError, match="/no/file: this file does not exist"):
            load_dataset("pairs:/no/file")
        with pytest.raises(DataError, match="this is a folder"):
            load_dataset(f"pairs:{tmp_path}")
        with pytest.raises(DataError, match="there is no such file"):
            load_dataset("pairs:a?b.csv")
        with pytest.raises(DataError, match="cannot be read"):
            load_dataset("pairs:" + "x" * 5_000 + ".csv")


def folder(path, documents=(), judgements=()):
    """A BEIR folder of twelve documents and queries, and what is added."""
    (path / "qrels").mkdir(parents=True)
    corpus = [*({"_id": f"d{n}", "text": f"about {n} things"} for n in range(12)), *documents]
    queries = [{"_id": f"q{n}", "text": f"question {n} of all"} for n in range(12)]
    for name, records in (("corpus", corpus), ("queries", queries)):
        (path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    for split, numbers in (("train", range(6)), ("dev", range(6, 9)), ("test", range(9, 12))):
        rows = [("query-id", "corpus-id", "score"), *((f"q{n}", f"d{n}", 1) for n in numbers)]
        with (path / "qrels" / f"{split}.tsv").open("w", newline="") as file:
            csv.writer(file, delimiter="\t").writerows([*rows, *(judgements if split == "test" else ())])
    return f"beir:{path}"


EMPTY = [{"_id": f"e{n}", "title": "", "text": text} for n, text in enumerate(("", " ", "\u200b", None))]


class TestBeir:
    def test_documents_without_text_are_left_out_and_counted(self, tmp_path, caplog):
        dataset = load_dataset(folder(tmp_path / "a", EMPTY, [("q9", "e0", 0)]))
        assert len(dataset.corpus) == 12
        assert "corpus.jsonl: left out 4 records without a text, first in line 13" in caplog.text

    def test_a_document_without_text_cannot_be_relevant(self, tmp_path):
        spec = folder(tmp_path / "a", EMPTY, [("q9", "e1", 1)])
        with pytest.raises(DataError, match="empty, but test.tsv:5 judges it relevant") as caught:
            load_dataset(spec)
        assert (caught.value.file.name, caught.value.line, caught.value.field) == ("corpus.jsonl", 14, "text")
        assert load_dataset(f"{spec}?repair=true").qrels["test"]["q9"] == {"d9": 1, "e1": 1}

    def test_an_unknown_document_counts_as_not_found(self, tmp_path, caplog):
        spec = folder(tmp_path / "a", (), [("q9", "gone", 1), ("q8", "d8", 0)])
        with pytest.raises(DataError, match="'gone' is not in corpus.jsonl.*repair=true"):
            load_dataset(spec)
        dataset = load_dataset(f"{spec}?repair=true")
        assert "documents that are missing or empty: 1. They count as not found" in caplog.text
        ranking = Ranking.from_scores({q: {q.replace("q", "d"): 1.0} for q in dataset.qrels["test"]})
        recall = dict(zip(ranking.query_ids, evaluate(ranking, dataset.qrels["test"], [1]).of("recall@1"), strict=True))
        assert recall == {"q9": 0.5, "q10": 1.0, "q11": 1.0}
        assert ("q9", "gone") not in dataset.pairs("test")

    @pytest.mark.parametrize("other", ["D8", "\uff448"])
    def test_an_id_that_looks_alike_is_named(self, tmp_path, other):
        spec = folder(tmp_path / "a", (), [("q8", other, 1)])
        with pytest.raises(DataError, match="There is 'd8', and this is .*: write both the same way"):
            load_dataset(spec)

    def test_repair_refuses_judgements_of_which_no_document_is_known(self, tmp_path):
        spec = folder(tmp_path)
        for path in (tmp_path / "qrels").iterdir():
            path.write_text(path.read_text(encoding="utf-8").replace("\td", "\tdoc-"), encoding="utf-8")
        with pytest.raises(DataError, match="no relevant document is in corpus.jsonl"):
            load_dataset(f"{spec}?repair=true")

    def test_the_case_of_a_standard_corpus(self):
        with pytest.raises(DataError, match="'arg-99-con' is not in corpus.jsonl"):
            load_dataset(case("beir_unknown_document"))
        assert len(load_dataset(case("beir_unknown_document") + "?repair=true").queries) == 20

    def test_equal_duplicates_float_grades_and_other_names_of_dev(self):
        assert len(load_dataset(case("beir_duplicate_judgements")).queries) == 40
        grades = load_dataset(case("beir_float_grades")).qrels
        assert {grade for part in grades.values() for judged in part.values() for grade in judged.values()} == {1}
        assert len(load_dataset(case("beir_valid_split")).qrels["dev"]) == 5

    @pytest.mark.parametrize("name", ["val", "valid", "validation"])
    def test_two_names_of_one_split(self, tmp_path, name):
        spec = folder(tmp_path)
        shutil.copy(tmp_path / "qrels" / "dev.tsv", tmp_path / "qrels" / f"{name}.tsv")
        with pytest.raises(DataError, match=f"dev.tsv and {name}.tsv are both the dev split"):
            load_dataset(spec)
        (tmp_path / "qrels" / "dev.tsv").unlink()
        assert list(load_dataset(spec).qrels["dev"]) == ["q6", "q7", "q8"]

    def test_other_files_of_judgements_are_said(self, tmp_path, caplog):
        spec = folder(tmp_path)
        (tmp_path / "qrels" / "exam.tsv").write_text("")
        load_dataset(spec)
        assert "these files are not read: exam.tsv" in caplog.text

    def test_percentages_are_said(self, tmp_path, caplog):
        load_dataset(folder(tmp_path, (), [("q9", "d10", 85)]))
        assert "the scores go up to 85" in caplog.text

    @pytest.mark.parametrize("grade", [10**20, "1_0", "1,5", "0.5", "high", "١"])
    def test_grades_that_are_refused(self, tmp_path, grade):
        with pytest.raises(DataError, match="score must be an integer") as caught:
            load_dataset(folder(tmp_path, (), [("q9", "d10", grade)]))
        assert (caught.value.file.name, caught.value.line, caught.value.field) == ("test.tsv", 5, "score")

    def test_decimal_ids_are_refused(self):
        with pytest.raises(DataError, match="got 0.0") as caught:
            load_dataset(case("beir_float_ids"))
        assert caught.value.line == 1

    @pytest.mark.parametrize("name", ["beir_no_header", "beir_trec"])
    def test_judgements_without_a_header_and_of_trec(self, name):
        assert len(load_dataset(case(name)).queries) == 40

    def test_decimal_ids_are_recognised(self, tmp_path):
        spec = folder(tmp_path, [{"_id": 7, "text": "seven"}], [("q9", "7.0", 1)])
        with pytest.raises(DataError, match="There is '7': write ids as whole numbers"):
            load_dataset(spec)


class TestTasks:
    def sts(self, folder, scores):
        for split in ("train", "test"):
            rows = [f"a {n},b {n},{score}" for n, score in enumerate(scores)]
            (folder / "stsb").mkdir(exist_ok=True)
            (folder / "stsb" / f"{split}.csv").write_text("\n".join(["sentence1,sentence2,score", *rows]))
        return folder

    @pytest.mark.parametrize(
        ("scores", "line", "problem"),
        [
            ((0, 0, 0), None, "Every pair has the same score"),
            ((3, -1, -3), 3, "must be 0 or more, got '-1'"),
            ((0.5, "0,5", 1), 3, "expected 3 cells"),
            ((1, "", 2), 3, "must be a number"),
        ],
    )
    def test_training_scores_that_are_refused(self, tmp_path, scores, line, problem):
        with pytest.raises(DataError, match=problem) as caught:
            folder_tasks(self.sts(tmp_path, scores))
        assert caught.value.file.name == "train.csv" and caught.value.line == line

    def test_a_first_line_of_equal_sentences_is_data(self, tmp_path):
        (tmp_path / "x.csv").write_text("same,same,5.0\nother,different,1\n")
        assert sts_columns(tmp_path / "x.csv")["sentence1"] == ["same", "other"]
        pd.DataFrame({"0": ["a"], "1": ["b"], "2": [3.0]}).to_parquet(tmp_path / "x.parquet")
        with pytest.raises(DataError, match="'sentence1' is missing"):
            sts_columns(tmp_path / "x.parquet")

    @pytest.mark.parametrize(
        ("probe", "problem"),
        [
            ("sts:sts_const", "Every pair has the same score"),
            ("clustering:clu_one", "form no groups"),
            ("classification:cls_one", "no train split"),
        ],
    )
    def test_constant_probes_are_refused_before_a_model_is_scored(self, probe, problem):
        kind, name = probe.split(":")
        with pytest.raises(DataError, match=problem):
            open_probe(f"{kind}:{CASES / 'probes_one_class' / name}.csv")

    @pytest.mark.parametrize(
        ("train", "test", "line", "problem"),
        [
            ("aaaa", "aa", None, "Every training text has the label 'a'"),
            ("abab", "ac", 7, "No training text has the label 'c'"),
        ],
    )
    def test_labels_that_cannot_be_learnt(self, tmp_path, train, test, line, problem):
        splits = ["train"] * 4 + ["test"] * 2
        rows = [f"text {n},{label},{split}" for n, (label, split) in enumerate(zip(train + test, splits, strict=True))]
        (tmp_path / "x.csv").write_text("\n".join(["text,label,split", *rows]))
        with pytest.raises(DataError, match=problem) as caught:
            local_task("classification", tmp_path / "x.csv")
        assert (caught.value.line, caught.value.field) == (line, "label")

    @pytest.mark.parametrize(
        ("content", "line", "problem"),
        [
            ("text,label,split\na,x,train\nb,y,exam\n", 3, "unknown split 'exam'"),
            ("text,label,split\na,x,train\nb,y,\n", 3, "has no split"),
            ("text,label,category\na,x,y\n", 2, "two columns are read as 'label'"),
        ],
    )
    def test_columns_that_are_refused(self, tmp_path, content, line, problem):
        (tmp_path / "x.csv").write_text(content)
        with pytest.raises(DataError, match=problem) as caught:
            local_task("clustering", tmp_path / "x.csv")
        assert caught.value.line == line

    def test_a_word_is_no_pair_of_text_and_label(self, tmp_path):
        (tmp_path / "x.json").write_text('{"test": [["a", "x"], "by"]}')
        with pytest.raises(DataError, match="something else than .text, label.") as caught:
            local_task("clustering", tmp_path / "x.json")
        assert (caught.value.line, caught.value.field) == (2, "test")


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [("impressions", 1e300, "too large"), ("clicks", "1_0", "whole number"), ("position", "inf", "whole number")],
)
def test_counts_of_clicks_that_are_refused(tmp_path, column, value, problem):
    row = {"query": "x", "document": "y", "position": 1, "impressions": 20, "clicks": 1}
    write(tmp_path / "x.csv", [row, {**row, column: value}])
    with pytest.raises(DataError, match=problem) as caught:
        load_dataset(f"clicks:{tmp_path / 'x.csv'}")
    assert (caught.value.line, caught.value.field) == (3, column)


def test_ids_that_look_like_formulas_come_back(tmp_path):
    from embedlab.data.dataset import Dataset

    dataset = Dataset("x", {"=d": "text", "-d": "other"}, {"@q": "what"}, {"test": {"@q": {"=d": 1}}})
    export_sheet(tmp_path / "x.csv", dataset, {"@q": ["=d", "-d"]})
    frame = pd.read_csv(tmp_path / "x.csv", dtype=str, keep_default_na=False)
    assert not any(cell.startswith(("=", "-", "@", "+")) for cell in frame.to_numpy().ravel())
    frame.assign(grade="2").to_csv(tmp_path / "x.csv", index=False)
    assert import_judgements([tmp_path / "x.csv"], dataset).grades == {"@q": {"=d": 2, "-d": 2}}
