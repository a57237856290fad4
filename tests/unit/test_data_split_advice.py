"""Where splits cannot be made, every kind of data gets advice that helps there."""

from __future__ import annotations

import json

import pytest

from embedlab.data.load import load_dataset
from embedlab.errors import DataError, LeakageError

WORDS = (
    *("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel"),
    *("india", "juliett", "kilo", "lima", "mike", "november", "oscar", "papa"),
)
SHARING = "add ?split_by=query"


def lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def query(number):
    return f"{WORDS[number]} question {number} on {WORDS[-number]}"


def pairs(path, count, documents):
    lines(path, [{"query": query(n), "positive": f"text {WORDS[n % documents]}"} for n in range(count)])
    return f"pairs:{path}"


def flag_embedding(path, count, documents):
    lines(path, [{"query": query(n), "pos": [f"text {WORDS[n % documents]}"]} for n in range(count)])
    return f"pairs:{path}"


def hub(path, count, documents):
    pairs(path / "train.jsonl", count, documents)
    return f"hf:{path}"


def beir(path, count, documents):
    lines(path / "corpus.jsonl", [{"_id": f"d{n}", "text": f"text {WORDS[n]}"} for n in range(documents)])
    lines(path / "queries.jsonl", [{"_id": f"q{n}", "text": query(n)} for n in range(count)])
    (path / "qrels").mkdir(exist_ok=True)
    judged = "".join(f"q{n}\td{n % documents}\t1\n" for n in range(count))
    (path / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return f"beir:{path}"


def clicks(path, count, documents):
    shown = [(n, d) for n in range(count) for d in range(documents + 2)]
    counts = {True: 90, False: 0}
    records = [
        {"query": query(n), "document": f"text {WORDS[d]}", "impressions": 100, "clicks": counts[d == n % documents]}
        for n, d in shown
    ]
    lines(path, records)
    return f"clicks:{path}"


def glossary(path, count, documents):
    names = {d: [query(n) for n in range(count) if n % documents == d] for d in range(documents)}
    lines(path, [{"term": f"text {WORDS[d]}", "synonyms": synonyms} for d, synonyms in names.items()])
    return f"glossary:{path}"


def parallel(path, count, documents):
    lines(path, [{"de": f"wort {WORDS[n]}", "en": f"word {WORDS[n]}"} for n in range(documents)])
    return f"parallel:{path}?languages=de-en"


KINDS = {  # kind of data -> its advice, and whether it can share documents
    pairs: ("Add queries about other documents. A column 'split' lets you choose the splits yourself.", True),
    flag_embedding: ("Add queries about other documents.", True),
    hub: ("Add queries about other documents.", True),
    beir: (
        "Add queries about other documents. With qrels/train.tsv, qrels/dev.tsv and qrels/test.tsv you choose the "
        "splits yourself.",
        True,
    ),
    clicks: ("Collect clicks on other documents.", True),
    glossary: ("Add terms with synonyms or definitions.", False),
    parallel: ("Add terms. In a table, a column 'split' lets you choose the splits yourself.", False),
}


def test_a_warning_names_only_what_changes_the_splits(tmp_path, caplog):
    distinct = [" ".join(f"{number * prime:x}" for prime in (7_919, 104_729, 1_299_709)) for number in range(1, 69)]
    texts = [{"query": distinct[n], "positive": distinct[34 if n < 30 else 34 + n]} for n in range(34)]
    lines(tmp_path / "x.jsonl", texts)
    load_dataset(f"pairs:{tmp_path / 'x.jsonl'}")
    assert "The splits have 30 train" in caplog.text and SHARING in caplog.text
    caplog.clear()
    lines(tmp_path / "x.jsonl", [row | {"group": "g" if n < 30 else str(n)} for n, row in enumerate(texts)])
    load_dataset(f"pairs:{tmp_path / 'x.jsonl'}")
    assert "The splits have 30 train" in caplog.text and SHARING not in caplog.text


@pytest.mark.parametrize("make", KINDS)
def test_the_advice_helps(tmp_path, make):
    advice, can_share = KINDS[make]
    spec = make(tmp_path / "x.jsonl", 12, 2)
    with pytest.raises(DataError, match="2 unrelated groups, too few for 3 splits") as caught:
        load_dataset(spec)
    assert caught.value.remedy.startswith(advice)
    assert (SHARING in caught.value.remedy) == can_share
    if can_share:
        assert all(load_dataset(f"{spec}?split_by=query").qrels.values())
    assert all(load_dataset(make(tmp_path / "x.jsonl", 12, 6)).qrels.values())


@pytest.mark.parametrize("make", KINDS)
def test_sharing_documents_is_not_advised_where_it_does_not_help(tmp_path, make):
    with pytest.raises(DataError, match="too few for 3 splits") as caught:
        load_dataset(make(tmp_path / "x.jsonl", 2, 2))
    assert caught.value.remedy == KINDS[make][0]


def test_splits_of_ones_own_are_read_where_the_advice_says(tmp_path):
    splits = ("train", "dev", "test")
    records = [{"query": query(n), "positive": f"text {WORDS[n]}", "split": splits[n]} for n in range(3)]
    lines(tmp_path / "x.jsonl", records)
    beir(tmp_path / "x", 3, 3)
    for n, split in enumerate(splits):
        (tmp_path / "x" / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\nq{n}\td{n}\t1\n")
    for spec in (f"pairs:{tmp_path / 'x.jsonl'}", f"beir:{tmp_path / 'x'}"):
        assert [len(queries) for queries in load_dataset(spec).qrels.values()] == [1, 1, 1]
    lines(tmp_path / "y.jsonl", [{"de": query(n), "en": f"word {n}", "split": splits[n]} for n in range(3)])
    assert all(load_dataset(f"parallel:{tmp_path / 'y.jsonl'}").qrels.values())


def test_a_large_group_gets_the_advice_of_its_kind(tmp_path, caplog):
    beir(tmp_path / "x", 16, 16)
    judged = "".join(f"q{n}\td{min(n, 3)}\t1\n" for n in range(16))
    (tmp_path / "x" / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    load_dataset(f"beir:{tmp_path / 'x'}")
    (notice,) = (message for message in caplog.messages if "wanted were" in message)
    assert "qrels/test.tsv" in notice and SHARING in notice and "column" not in caplog.text


def test_leaks_name_only_options_that_the_spec_takes(tmp_path):
    splits = ("train", "dev", "test")
    records = [{"de": query(n), "en": f"word {WORDS[n % 4]}", "split": splits[n % 3]} for n in range(12)]
    lines(tmp_path / "x.jsonl", records)
    with pytest.raises(LeakageError, match="repair=true") as caught:
        load_dataset(f"parallel:{tmp_path / 'x.jsonl'}")
    assert "split_by" not in caught.value.remedy
