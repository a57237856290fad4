"""BEIR folders: what is read, and one clear error for each malformed case."""

import gzip
import json
import os
from pathlib import Path

import pytest

from embedlab.data import beir, leakage
from embedlab.data.load import load_dataset, source_fingerprint
from embedlab.errors import DataError, LeakageError

MEDQUAD = Path(os.environ.get("EMBEDLAB_MEDQUAD", "unset"))


def write(folder, corpus=None, queries=None, **qrels):
    """A folder of three documents and queries, with the parts given replaced."""
    documents = [{"_id": f"d{i}", "title": f"Title {i}", "text": f"text {i}", "source": "s"} for i in range(3)]
    questions = [{"_id": f"q{i}", "text": f"question {i}", "kind": "k"} for i in range(3)]
    (folder / "qrels").mkdir(parents=True)
    for name, default, text in (("corpus", documents, corpus), ("queries", questions, queries)):
        lines = "".join(json.dumps(line) + "\n" for line in default)
        (folder / f"{name}.jsonl").write_text(lines if text is None else text, "utf-8")
    rows = {"train": "q0\td0\t1\n", "dev": "q1\td1\t1\n", "test": "q2\td2\t2\nq2\td0\t0\n"}
    for split, text in (qrels or rows).items():
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + text, "utf-8")
    return folder


def test_folder_by_hand(tmp_path):
    dataset = beir.load(str(write(tmp_path)), name="n")
    assert dataset.corpus["d1"] == "Title 1 text 1"
    assert dataset.queries == {"q0": "question 0", "q1": "question 1", "q2": "question 2"}
    # A grade of 0 is a judgement, not a positive; d0 may therefore be relevant in train.
    assert dataset.qrels == {"train": {"q0": {"d0": 1}}, "dev": {"q1": {"d1": 1}}, "test": {"q2": {"d2": 2}}}
    assert dataset.fields["d0"] == {"source": "s"}
    assert dataset.fields["q0"] == {"kind": "k"}
    assert leakage.check(dataset).clean


def test_gzip_bom_and_line_ends_change_nothing(tmp_path):
    plain = beir.load(str(write(tmp_path / "plain")), name="n")
    folder = write(tmp_path / "other")
    for path in [*folder.glob("*.jsonl"), *folder.glob("qrels/*.tsv")]:
        content = b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n")
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
        path.unlink()
    assert beir.load(str(folder), name="n") == plain


def line(**values):
    return json.dumps(values) + "\n"


D0, Q0 = line(_id="d0", title="", text="x"), line(_id="q0", text="x")
MALFORMED = [
    ({"corpus": D0 + "{\n"}, "corpus.jsonl", 2, None, "invalid JSON"),
    ({"corpus": D0 + line(title="t", text="x")}, "corpus.jsonl", 2, "_id", "missing"),
    ({"corpus": D0 + line(_id="d1", title="t")}, None, None, None, None),  # a title is enough
    ({"corpus": D0 + line(_id="d1", title="", text=" ")}, "corpus.jsonl", 2, "text", "empty"),
    ({"corpus": D0 + line(_id="d1")}, "corpus.jsonl", 2, "text", "missing"),
    ({"corpus": D0 + line(_id="d1", text=3)}, "corpus.jsonl", 2, "text", "must be a string"),
    ({"corpus": D0 + D0}, "corpus.jsonl", 2, "_id", "'d0' occurs twice"),
    ({"corpus": ""}, "corpus.jsonl", None, None, "no rows"),
    ({"queries": Q0 + line(_id="q1", text="")}, "queries.jsonl", 2, "text", "empty"),
    ({"queries": Q0 + Q0}, "queries.jsonl", 2, "_id", "'q0' occurs twice"),
    ({"test": "q0\td0\t1\nq9\td0\t1\n"}, "test.tsv", 3, "query-id", "'q9' is not in queries.jsonl"),
    ({"test": "q0\td9\t1\n"}, "test.tsv", 2, "corpus-id", "'d9' is not in corpus.jsonl"),
    ({"test": "q0\td0\t0.5\n"}, "test.tsv", 2, "score", "must be an integer"),
    ({"test": "q0\td0\t\n"}, "test.tsv", 2, "score", "empty"),
    ({"test": "q0\t0\td0\t1\n"}, "test.tsv", 2, None, "expected 3 cells as in the header, got 4"),
    ({"test": "q0\td0\t1\nq0\td0\t0\n"}, "test.tsv", 3, "score", "judged twice"),
    ({"test": ""}, "test.tsv", None, None, "no rows"),
    ({"test": "q0\td0\t0\n"}, "qrels", None, None, "no relevant pair"),
    ({"test": "q0\td0\t1\n"}, None, None, None, "too few"),
]


@pytest.mark.parametrize(("parts", "file", "number", "field", "problem"), MALFORMED)
def test_malformed_folder(tmp_path, parts, file, number, field, problem):
    if problem is None:
        parts = {**parts, "train": "q0\td0\t1\n", "dev": "q1\td1\t1\n", "test": "q2\td1\t1\n"}
        assert beir.load(str(write(tmp_path, **parts)), name="n").corpus["d1"] == "t"
        return
    with pytest.raises(DataError, match=problem) as caught:
        beir.load(str(write(tmp_path, **parts)), name="n")
    assert (caught.value.line, caught.value.field) == (number, field)
    assert caught.value.remedy
    if file is not None:
        assert caught.value.file.name == (file or tmp_path.name)


@pytest.mark.parametrize(
    ("name", "text"), [("test.tsv", "q2\td2\t2\nq2\td0\t0\n"), ("test.qrels", "q2 0 d2 2\nq2\t0\td0\t0\n")]
)
def test_qrels_without_a_header_and_of_trec(tmp_path, name, text):
    expected = beir.load(str(write(tmp_path / "a")), name="n")
    write(tmp_path / "b")
    (tmp_path / "b" / "qrels" / "test.tsv").unlink()
    (tmp_path / "b" / "qrels" / name).write_text(text, "utf-8")
    assert beir.load(str(tmp_path / "b"), name="n") == expected


def test_qrels_with_other_names(tmp_path):
    write(tmp_path)
    (tmp_path / "qrels" / "test.tsv").write_text("query\tdocument\tgrade\nq1\td1\t1\n", "utf-8")
    with pytest.raises(DataError, match="line 1 must be the header.*'query', 'document', 'grade'") as caught:
        beir.load(str(tmp_path), name="n")
    assert (caught.value.file.name, caught.value.line, caught.value.field) == ("test.tsv", 1, "query-id")


@pytest.mark.parametrize("gone", ["corpus.jsonl", "queries.jsonl", "qrels/*"])
def test_missing_parts(tmp_path, gone):
    for path in write(tmp_path).glob(gone):
        path.unlink()
    with pytest.raises(DataError) as caught:
        load_dataset(f"beir:{tmp_path}")
    assert gone.rstrip("/*") in str(caught.value.file)


def test_ids_that_lost_their_zeros_are_explained(tmp_path):
    write(tmp_path, line(_id="007", text="x"), test="q0\t7\t1\n")
    with pytest.raises(DataError, match="'7' is not in corpus.jsonl.*There is '007'.*removed zeros"):
        beir.load(str(tmp_path), name="n")


def test_other_files_of_judgements_are_named(tmp_path):
    write(tmp_path, test="q0\td0\t1\n")
    (tmp_path / "qrels" / "test.tsv").rename(tmp_path / "qrels" / "test.csv")
    with pytest.raises(DataError, match="contains no judgements.*There are other files: test.csv"):
        beir.load(str(tmp_path), name="n")


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "x.csv").touch()
    with pytest.raises(DataError, match="this is a file. Write pairs:"):
        load_dataset(f"beir:{tmp_path / 'x.csv'}")


def test_missing_folder():
    with pytest.raises(DataError, match="folder does not exist"):
        load_dataset("beir:no/such/folder")


def many(folder, **qrels):
    documents = "".join(line(_id=f"d{i}", title="", text=f"about {i}") for i in range(40))
    questions = "".join(line(_id=f"q{i}", text=f"{i} ?") for i in range(40))
    return write(folder, documents, questions, **qrels)


def test_missing_splits_are_cut_so_that_nothing_leaks(tmp_path):
    rows = "".join(f"q{i}\td{i // 2}\t1\n" for i in range(40))  # two queries per document
    dataset = load_dataset(f"beir:{many(tmp_path, test=rows)}")
    owner = {d: split for split in dataset.qrels for _, d in dataset.pairs(split)}
    assert all(owner[d] == split for split in dataset.qrels for _, d in dataset.pairs(split))
    assert {split: len(part) for split, part in dataset.qrels.items()} == {"train": 30, "dev": 4, "test": 6}


def test_shared_document_is_refused_unless_told_otherwise(tmp_path):
    train, dev, test = "q0\td0\t1\nq1\td1\t1\n", "q2\td2\t1\n", "q3\td0\t1\n"
    spec = f"beir:{many(tmp_path, train=train, dev=dev, test=test)}"
    with pytest.raises(LeakageError, match="1 shared document"):
        load_dataset(spec)
    for repaired in (load_dataset(spec, repair=True), load_dataset(f"{spec}?repair=true")):
        assert list(repaired.qrels["train"]) == ["q1"]
    kept = load_dataset(f"{spec}?split_by=query")
    assert list(kept.qrels["train"]) == ["q0", "q1"]
    assert kept.fields["q3"]["seen"] == "seen"


def test_fingerprint_covers_every_file(tmp_path):
    folder = write(tmp_path)
    seen = {source_fingerprint(f"beir:{folder}")}
    for path in sorted(folder.rglob("*.*")):
        path.write_bytes(path.read_bytes() + b"\n")
        seen.add(source_fingerprint(f"beir:{folder}"))
    assert len(seen) == 6


@pytest.mark.skipif(not (MEDQUAD / "corpus.jsonl").is_file(), reason="EMBEDLAB_MEDQUAD names no BEIR folder of MedQuAD")
def test_medquad():
    dataset = load_dataset(f"beir:{MEDQUAD}?repair=true")
    assert len(dataset.corpus) == 15_809
    assert len(dataset.qrels["test"]) == 1_761
    assert len(dataset.qrels["train"]) > 10_000
    assert len(dataset.qrels["dev"]) > 1_400
    assert leakage.check(dataset).clean
    query = next(iter(dataset.qrels["test"]))
    assert set(dataset.fields[query]) == {"focus", "qtype", "seen"}
