"""Files of pairs: formats, aliases, triplets, graded pairs, and one clear error for each malformed case."""

import csv
import gzip
import json

import pytest

from embedlab.data import leakage, pairs
from embedlab.data.dataset import GradedPair, Triplet
from embedlab.data.load import load_dataset, source_fingerprint
from embedlab.errors import DataError, LeakageError


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def rows(count=20, **more):
    return [{"query": f"question {i}", "positive": f"answer {i}", **more} for i in range(count)]


def split_rows(*splits, **more):
    return [{**row, "split": split, **more} for row, split in zip(rows(len(splits)), splits, strict=True)]


SPLITS = split_rows("train", "train", "dev", "test")


def test_formats_agree(tmp_path):
    import pyarrow
    import pyarrow.parquet

    records = rows()
    jsonl(tmp_path / "a.jsonl", records)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    with (tmp_path / "c.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["query", "positive"])
        writer.writeheader()
        writer.writerows(records)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "d.parquet")
    first, *others = (pairs.load(str(path), name="n") for path in sorted(tmp_path.iterdir()))
    assert others == [first] * 3
    assert len(first.queries) == len(first.corpus) == 20
    assert {split: len(part) for split, part in first.qrels.items()} == {"train": 15, "dev": 2, "test": 3}


class TestColumnsOfAnotherName:
    """`pairs:FILE?query=COLUMN&positive=COLUMN`."""

    def table(self, folder, **more):
        named = [{"Customer question": row["query"], "reply": row["positive"], **more} for row in rows()]
        return jsonl(folder / "faq.jsonl", named)

    def test_the_same_dataset_as_under_the_usual_names(self, tmp_path):
        spec = f"pairs:{self.table(tmp_path, topic='a')}?query=customer question&positive=reply"
        usual = pairs.load(jsonl(tmp_path / "usual.jsonl", rows(topic="a")), name=spec)
        named = load_dataset(spec)
        assert (named.queries, named.corpus, named.qrels) == (usual.queries, usual.corpus, usual.qrels)
        assert named.fields["q0"]["topic"] == "a"

    def test_without_the_option_the_error_names_it_and_the_columns(self, tmp_path):
        with pytest.raises(DataError, match=r"faq.jsonl:1 \[query\]: 'query' is missing") as caught:
            pairs.load(self.table(tmp_path), name="n")
        assert "pairs:FILE?query=COLUMN" in caught.value.remedy and "customer question, reply" in caught.value.remedy
        with pytest.raises(DataError, match="'positive' is missing"):
            pairs.load(self.table(tmp_path), name="n", query="Customer question")

    def test_a_column_that_is_not_there(self, tmp_path):
        with pytest.raises(DataError, match=r":1 \[answer\]: there is no column 'answer'.*Customer question, reply"):
            pairs.load(self.table(tmp_path), name="n", query="Customer question", positive="answer")
        with pytest.raises(DataError, match="there is no column 'x'"):  # the usual name does not stand in for it
            pairs.load(jsonl(tmp_path / "usual.jsonl", rows()), name="n", query="x")

    def test_two_columns_of_one_meaning(self, tmp_path):
        for other in ("query", "Question", "customer question"):
            with pytest.raises(DataError, match="two columns are read as 'query'"):
                pairs.load(self.table(tmp_path, **{other: "x"}), name="n", query="Customer question", positive="reply")

    def test_swapped_columns(self, tmp_path):
        usual = pairs.load(jsonl(tmp_path / "usual.jsonl", rows()), name="n")
        with pytest.raises(DataError, match="'reply' is named as query and as positive"):
            pairs.load(self.table(tmp_path), name="n", query="reply", positive="Reply")
        swapped = pairs.load(str(tmp_path / "usual.jsonl"), name="n", query="positive", positive="query")
        assert set(swapped.queries.values()) == set(usual.corpus.values())

    def test_a_beir_folder_has_no_columns(self, tmp_path):
        for name in ("corpus", "queries"):
            (tmp_path / f"{name}.jsonl").touch()
        with pytest.raises(DataError, match="no columns to name"):
            pairs.load(str(tmp_path), name="n", query="x")


def test_aliases_case_and_extra_columns(tmp_path):
    canonical = pairs.load(jsonl(tmp_path / "a.jsonl", SPLITS), name="n")
    names = {"query": "Question", "positive": " ANSWER ", "split": "split"}
    renamed = [{names[key]: "validation" if value == "dev" else value for key, value in row.items()} for row in SPLITS]
    other = pairs.load(jsonl(tmp_path / "b.jsonl", [{**row, "source": "web"} for row in renamed]), name="n")
    assert (other.qrels, other.queries, other.corpus) == (canonical.qrels, canonical.queries, canonical.corpus)
    assert other.fields == {query: {"source": "web"} for query in canonical.queries}


def test_the_same_text_is_one_query_or_document(tmp_path):
    records = [
        {"query": "a", "positive": "x", "split": "train"},
        {"query": "a", "positive": "y", "split": "train"},
        {"query": "b", "positive": "x", "split": "train"},
        *SPLITS,
    ]
    dataset = pairs.load(jsonl(tmp_path / "a.jsonl", records), name="n")
    assert dataset.qrels["train"]["q0"] == {"d0": 1, "d1": 1}
    assert dataset.qrels["train"]["q1"] == {"d0": 1}
    assert (dataset.queries["q0"], dataset.corpus["d0"], dataset.corpus["d1"]) == ("a", "x", "y")


def test_negatives_become_documents_and_training_triplets(tmp_path):
    records = split_rows("train", "dev", "test", negative="wrong")
    records[0] |= {"negative_1": "worse", "negative_2": ""}
    dataset = pairs.load(jsonl(tmp_path / "a.jsonl", records), name="n")
    assert set(dataset.triplets) == {
        Triplet("question 0", "answer 0", "wrong"),
        Triplet("question 0", "answer 0", "worse"),
    }
    assert {"wrong", "worse"} < set(dataset.corpus.values())
    assert not {"wrong", "worse"} & {dataset.corpus[d] for split in dataset.qrels for _, d in dataset.pairs(split)}


def test_score_zero_is_no_positive(tmp_path):
    records = [*rows(10, score=1), {"query": "question 0", "positive": "not this", "score": 0}]
    dataset = pairs.load(jsonl(tmp_path / "a.jsonl", records), name="n")
    document = next(d for d, text in dataset.corpus.items() if text == "not this")
    assert all(document not in grades for part in dataset.qrels.values() for grades in part.values())
    assert not dataset.graded_pairs


@pytest.mark.parametrize("columns", [("text1", "text2"), ("sentence1", "sentence2"), ("query", "positive")])
def test_scores_in_between_make_graded_pairs(tmp_path, columns):
    records = [{columns[0]: "a", columns[1]: "b", "score": "0.25"}, {columns[0]: "c", columns[1]: "d", "score": 1}]
    dataset = load_dataset(f"pairs:{jsonl(tmp_path / 'a.jsonl', records)}")
    assert dataset.graded_pairs == (GradedPair("a", "b", 0.25), GradedPair("c", "d", 1.0))
    assert not dataset.queries


def test_graded_pairs_of_other_splits_stay_out(tmp_path):
    records = [{"text1": s, "text2": "b", "score": 0.5, "split": s} for s in ("train", "dev", "test")]
    dataset = pairs.load(jsonl(tmp_path / "a.jsonl", records), name="n")
    assert [pair.text1 for pair in dataset.graded_pairs] == ["train"]


def test_given_groups_stay_together(tmp_path):
    records = [{**row, "group": i // 4} for i, row in enumerate(rows(40))]
    dataset = load_dataset(f"pairs:{jsonl(tmp_path / 'a.jsonl', records)}")
    owners = [{dataset.groups[query] for query in part} for part in dataset.qrels.values()]
    assert sum(map(len, owners)) == 10
    assert set.union(*owners) == set(map(str, range(10)))


def test_made_splits_do_not_leak_even_where_texts_repeat(tmp_path):
    """Paraphrases: every text is a query here and a document there."""
    records = [{"query": f"text {i}", "positive": f"text {i + 1}"} for i in range(60) if i % 6 < 4]
    dataset = pairs.load(jsonl(tmp_path / "a.jsonl", records), name="n")
    assert leakage.check(dataset).clean
    assert all(dataset.qrels.values())
    assert len(set(dataset.groups.values())) == 10


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"query": "Question 0!"}, "1 identical query"),
        ({"positive": "answer 1"}, "1 shared document"),
        ({"group": "g0"}, "1 shared group"),
    ],
)
def test_leaking_files_are_refused_or_repaired(tmp_path, change, kind):
    records = split_rows("train", "train", "dev", "test", group="")
    records[1]["group"] = "g0"
    records[3] |= change
    spec = f"pairs:{jsonl(tmp_path / 'a.jsonl', records)}"
    with pytest.raises(LeakageError, match=kind):
        load_dataset(spec)
    repaired = load_dataset(spec, repair=True)
    assert [len(part) for part in repaired.qrels.values()] == [1, 1, 1]
    assert load_dataset(f"{spec}?repair=true", repair=True).qrels == repaired.qrels


MALFORMED = [
    ([*rows(3), {"query": "a"}], 4, "positive", "missing"),
    ([*rows(3), {"query": "", "positive": "x"}], 4, "query", "empty"),
    ([{"query": 5, "positive": "x"}], 1, "query", "must be a string"),
    ([{"query": "a", "anchor": "b", "positive": "x"}], 1, "anchor", "two columns are read as 'query'"),
    (
        [*rows(1, score=1), {"query": "a", "positive": "x", "score": 3.8}],
        2,
        "score",
        "must be a number from 0 to 1, got 3.8",
    ),
    ([*rows(1, score=1), {"query": "a", "positive": "x", "score": "high"}], 2, "score", "must be a number"),
    ([*rows(1, score=1), {"query": "a", "positive": "x", "score": float("nan")}], 2, "score", "score is empty"),
    ([{"text1": "a", "text2": "b", "score": 0.5}, {"text1": "a", "text2": "b"}], 2, "score", "has no score"),
    ([{"text1": "a", "text2": "", "score": 0.5}], 1, "text2", "empty"),
    ([*SPLITS, {"query": "a", "positive": "x", "split": "exam"}], 5, "split", "unknown split 'exam'"),
    ([*SPLITS, {"query": "a", "positive": "x"}], 5, "split", "has no split"),
    (rows(3, score=0), None, None, "no relevant pair"),
    (rows(2), None, None, "too few for 3 splits"),
    ([{"query": "same", "positive": f"answer {i}"} for i in range(9)], None, None, "too few for 3 splits"),
]


@pytest.mark.parametrize(("records", "line", "field", "problem"), MALFORMED)
def test_malformed_rows(tmp_path, records, line, field, problem):
    path = jsonl(tmp_path / "a.jsonl", records)
    with pytest.raises(DataError, match=problem) as caught:
        load_dataset(f"pairs:{path}")
    assert (caught.value.line, caught.value.field) == (line, field)
    assert caught.value.remedy
    if line is not None:
        assert str(caught.value.file) == path


def test_fingerprint_follows_the_file(tmp_path):
    spec = f"pairs:{jsonl(tmp_path / 'a.jsonl', rows())}"
    before = source_fingerprint(spec)
    assert before == source_fingerprint(spec)
    jsonl(tmp_path / "a.jsonl", rows(21))
    assert source_fingerprint(spec) != before
