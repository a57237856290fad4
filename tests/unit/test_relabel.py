"""What a dataset with more judgements keeps, and what its formats cannot hold."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from embedlab.data.dataset import Dataset, GradedPair, Triplet
from embedlab.data.load import load_dataset
from embedlab.data.relabel import rejected_documents, with_grades, with_queries, write_dataset
from embedlab.errors import DataError

CORPUS = {"a": "alpha", "b": "beta", "c": "gamma", "e": "epsilon"}
DATA = Dataset(
    "toy",
    CORPUS,
    {"t": "train query", "v": "dev query", "q": "test query", "r": "another one"},
    {"train": {"t": {"a": 1}}, "dev": {"v": {"b": 1}}, "test": {"q": {"c": 2, "e": 1}, "r": {"e": 1}}},
    triplets=(Triplet("train query", "alpha", "beta"), Triplet("train query", "alpha", "no document")),
    fields={"q": {"topic": "x", "seen": "unseen"}, "a": {"page": "1"}},
)


def example(export, query):
    return next(example for example in export.examples if example.id == query)


def test_new_grades_join_and_replace_earlier_ones():
    export = with_grades(DATA, {"q": {"a": 1, "b": 0, "c": 0}}, {"q": {"e"}})
    changed = example(export, "q")
    assert {p.id: p.grade for p in changed.positives} == {"e": 1, "a": 1}  # a judged positive is no negative
    assert {n.id for n in changed.negatives} == {"b", "c"}
    assert (changed.split, changed.fields) == ("test", {"topic": "x"})
    assert {e.id: e.split for e in export.examples} == {"t": "train", "v": "dev", "q": "test", "r": "test"}


def test_a_query_without_a_positive_is_left_out():
    assert [e.id for e in with_grades(DATA, {"r": {"e": 0}}, {}).examples] == ["t", "v", "q"]


def test_rejected_documents_of_a_beir_folder_and_its_unknown_ids(tmp_path):
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text("\n".join(json.dumps({"_id": k, "text": v}) for k, v in CORPUS.items()))
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "test query"}')
    (tmp_path / "qrels/test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq\ta\t1\nq\tb\t0\nq\tc\t-1\nq\tgone\t0\nq\tlost\t1\n"
    )
    spec = f"beir:{tmp_path}?repair=true"
    data = load_dataset(spec, training=False)
    assert rejected_documents(spec, data) == {"q": {"b", "c"}}
    export = with_grades(data, {}, rejected_documents(spec, data))
    write_dataset(data, export, tmp_path / "copy")
    copy = load_dataset(f"beir:{tmp_path / 'copy'}?repair=true", training=False)
    assert copy.qrels == data.qrels and copy.corpus == data.corpus  # "lost" still counts as not found
    with pytest.raises(DataError, match="are not in the corpus"):
        write_dataset(data, export, tmp_path / "copy.jsonl")


def test_rejected_documents_of_a_file_of_pairs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"query": "one", "positive": "alpha", "negatives": ["beta"], "score": 1, "split": "train"},
        {"query": "two", "positive": "gamma", "negatives": ["epsilon"], "score": 1, "split": "test"},
        {"query": "two", "positive": "alpha", "score": 0, "split": "test"},
        {"query": "six", "positive": "delta", "score": 1, "split": "dev"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    data = load_dataset(f"pairs:{path}")
    rejected = rejected_documents(f"pairs:{path}", data)
    texts = {data.queries[q]: {data.corpus[d] for d in documents} for q, documents in rejected.items()}
    assert texts == {"one": {"beta"}, "two": {"alpha", "epsilon"}}


def test_other_sources_have_the_negatives_of_their_triplets():
    assert rejected_documents("icd10cm:smoke", DATA) == {"t": {"b"}}


@pytest.mark.parametrize(("target", "ignored"), [("out", True), ("out.jsonl", False)])
def test_what_is_lost_is_named(tmp_path, target, ignored):
    data = Dataset(**{**vars(DATA), "labels": {"kind": {"a": "x"}}, "graded_pairs": (GradedPair("x", "y", 0.5),)})
    lost = write_dataset(data, with_grades(data, {}, rejected_documents("icd10cm:smoke", data)), tmp_path / target)
    assert {"metadata of documents", "labels", "1 graded pairs", "1 hard negatives of other texts"} <= set(lost)
    assert any("training does not read" in part for part in lost) == ignored
    assert "groups" not in lost and "related documents" not in lost


def test_grades_and_hard_negatives_come_back_from_a_file_of_pairs(tmp_path):
    export = with_grades(DATA, {"q": {"a": 2, "b": 0}}, rejected_documents("icd10cm:smoke", DATA))
    write_dataset(DATA, export, tmp_path / "out.jsonl")
    data = load_dataset(f"pairs:{tmp_path / 'out.jsonl'}?split_by=query")
    found = {
        data.queries[q]: {data.corpus[d]: g for d, g in judged.items()} for q, judged in data.qrels["test"].items()
    }
    assert found["test query"] == {"gamma": 2, "epsilon": 1, "alpha": 2}
    assert data.triplets == (Triplet("train query", "alpha", "beta"),)


def test_groups_stay_in_a_file_of_pairs(tmp_path):
    data = replace(DATA, groups={"q": "g1", "r": "g1", "t": "g2"})
    write_dataset(data, with_grades(data, {}, {}), tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {row["query"]: row.get("group") for row in rows} == {
        **{"test query": "g1", "another one": "g1", "train query": "g2", "dev query": None},
    }


def test_of_equal_texts_the_first_is_the_negative():
    data = replace(DATA, corpus={**CORPUS, "z": "beta"})
    assert rejected_documents("icd10cm:smoke", data) == {"t": {"b"}}


def test_an_existing_target_is_never_changed(tmp_path):
    (tmp_path / "out.csv").write_text("earlier")
    with pytest.raises(DataError, match="exists"):
        write_dataset(DATA, with_grades(DATA, {}, {}), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "earlier"


def test_an_interrupted_folder_leaves_nothing(tmp_path, monkeypatch):
    from embedlab.data.formats import beir_folder

    def write(path, content):
        if path.name == "test.tsv":
            raise OSError(28, "No space left on device")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    monkeypatch.setattr(beir_folder, "write_atomic", write)
    with pytest.raises(OSError, match="No space"):
        write_dataset(DATA, with_grades(DATA, {}, {}), tmp_path / "new" / "out")
    assert list((tmp_path / "new").iterdir()) == []


def test_new_queries_get_ids_by_row_and_no_judgement(tmp_path):
    (tmp_path / "q.csv").write_text("Question,query_id\nnew one,\nTEST QUERY,\ntest query,\nnew two,own\n")
    data = with_queries(DATA, tmp_path / "q.csv", "test")
    assert {k: data.queries[k] for k in ("n1", "n2", "own")} == {"n1": "new one", "n2": "TEST QUERY", "own": "new two"}
    assert "n3" not in data.queries and data.qrels["test"]["own"] == {} and data.qrels["test"]["q"] == {"c": 2, "e": 1}
    assert "n1" not in DATA.queries and "n1" not in DATA.qrels["test"]
