"""Each kind of leak is found, named and repaired; clean data passes without a word."""

import logging
from dataclasses import replace

import pytest

from embedlab.data import leakage
from embedlab.data.dataset import SPLITS, Dataset, GradedPair, Triplet
from embedlab.data.leakage import IDENTICAL, KINDS, NEAR_IDENTICAL, SHARED_DOCUMENT, SHARED_GROUP, TRAINING_TEXT
from embedlab.data.load import load_dataset
from embedlab.errors import LeakageError

QUERIES = {
    "train": {"a": "stomach ache after eating", "b": "hair loss"},
    "dev": {"c": "broken left arm"},
    "test": {"d": "red itchy eyes in spring", "e": "hay fever"},
}


def clean(split_by="document"):
    queries = {q: text for part in QUERIES.values() for q, text in part.items()}
    return Dataset(
        name="hand",
        # A held-out query may read like a document nobody trains on.
        corpus={**{f"d{q}": f"answer for {q}" for q in queries}, "extra": "Hay fever"},
        queries=queries,
        qrels={split: {q: {f"d{q}": 1} for q in part} for split, part in QUERIES.items()},
        triplets=(Triplet("bald spots on the head", "answer for b", "answer for d"),),
        groups={q: f"g{q}" for q in queries},
        graded_pairs=(GradedPair("answer for a", "answer for b", 0.3),),
        split_by=split_by,
    )


def with_query(query, text):
    return replace(clean(), queries={**clean().queries, query: text})


def with_document(document, text, split_by="document"):
    return replace(clean(split_by), corpus={**clean().corpus, document: text})


def with_triplet(*texts, split_by="document"):
    return replace(clean(split_by), triplets=(*clean().triplets, Triplet(*texts)))


LEAKS = [
    ("query in train", with_query("b", "HAY  fever."), IDENTICAL, ("train", "b")),
    ("query of dev in train", with_query("b", "broken, left arm"), IDENTICAL, ("train", "b")),
    ("dev repeats test", with_query("c", "Hay-fever"), IDENTICAL, ("dev", "c")),
    ("nearly the same", with_query("a", "red itchy eyes in early spring"), NEAR_IDENTICAL, ("train", "a")),
    ("dev nearly test", with_query("c", "spring: red itchy eyes in"), NEAR_IDENTICAL, ("dev", "c")),
    ("triplet query", with_triplet("hay fever!", "x", "y"), IDENTICAL, ("triplets", 1)),
    ("triplet query near", with_triplet("eyes red itchy spring in", "x", "y"), NEAR_IDENTICAL, ("triplets", 1)),
    ("training positive", with_document("da", "Hay fever"), TRAINING_TEXT, ("train", "a")),
    ("triplet positive text", with_triplet("x", "hay FEVER", "y"), TRAINING_TEXT, ("triplets", 1)),
    ("triplet negative text", with_triplet("x", "y", "hay fever"), TRAINING_TEXT, ("triplets", 1)),
    (
        "graded pair",
        replace(clean(), graded_pairs=(GradedPair("x", "Hay fever", 0.1),)),
        TRAINING_TEXT,
        ("graded_pairs", 0),
    ),
    (
        "document id",
        replace(clean(), qrels={**clean().qrels, "train": {"a": {"da": 1, "dd": 1}, "b": {"db": 1}}}),
        SHARED_DOCUMENT,
        ("train", "a"),
    ),
    ("document text", with_document("da", "Answer for D!"), SHARED_DOCUMENT, ("train", "a")),
    ("dev's document", with_document("dc", "Answer for D!"), SHARED_DOCUMENT, ("dev", "c")),
    ("triplet positive", with_triplet("x", "answer for e", "y"), SHARED_DOCUMENT, ("triplets", 1)),
    (
        "graded held-out document",
        replace(clean(), graded_pairs=(GradedPair("answer for e", "x", 0.1),)),
        SHARED_DOCUMENT,
        ("graded_pairs", 0),
    ),
    ("group", replace(clean(), groups={**clean().groups, "a": "ge"}), SHARED_GROUP, ("train", "a")),
]


@pytest.mark.parametrize(("dataset", "kind", "place"), [case[1:] for case in LEAKS], ids=[case[0] for case in LEAKS])
def test_leak_is_found_and_repaired(dataset, kind, place):
    report = leakage.check(dataset)
    assert [(leak.kind, tuple(leak.example)) for leak in report.leaks] == [(kind, place)]
    assert report.counts == {**dict.fromkeys(KINDS, 0), kind: 1}
    repaired, found = leakage.repair(dataset)
    assert found == report
    assert leakage.check(repaired).clean
    assert repaired.qrels["test"] == dataset.qrels["test"]
    part, key = place
    lost = {split: len(dataset.qrels[split]) - len(repaired.qrels[split]) for split in QUERIES}
    assert lost == {split: int(split == part) for split in QUERIES}
    assert len(dataset.triplets) - len(repaired.triplets) == (part == "triplets")
    assert len(dataset.graded_pairs) - len(repaired.graded_pairs) == (part == "graded_pairs")
    assert (key in repaired.queries) == (part not in QUERIES and key in dataset.queries)


def test_clean_data_is_quiet(caplog):
    with caplog.at_level(logging.INFO):
        assert leakage.guard(clean(), drop_leaks=False) is not None
    assert leakage.check(clean()).clean
    assert not caplog.records
    assert str(leakage.check(clean())) == "no leaks"


def test_nothing_trains_on_the_documents_of_dev():
    assert leakage.check(with_document("dc", "Hay fever")).clean


def test_shared_documents_are_fine_when_only_queries_are_held_out():
    dataset = with_document("da", "Answer for D!", split_by="query")
    dataset = replace(dataset, triplets=(Triplet("x", "answer for e", "y"),))
    assert leakage.check(dataset).clean
    assert not leakage.check(with_triplet("hay fever", "x", "y", split_by="query")).clean


def test_one_query_judged_in_two_splits():
    dataset = replace(clean(), qrels={**clean().qrels, "train": {"a": {"da": 1}, "d": {"db": 1}}})
    repaired, report = leakage.repair(dataset)
    assert [leak.example for leak in report.leaks] == [("train", "d")]
    assert repaired.queries["d"] == dataset.queries["d"], "test still needs it"


def test_guard_refuses_with_count_example_and_remedy():
    dataset = replace(with_query("b", "hay fever"), triplets=(Triplet("x", "answer for e", "y"),))
    with pytest.raises(LeakageError) as caught:
        leakage.guard(dataset, drop_leaks=False, file="somewhere")
    message = str(caught.value)
    for part in (
        "somewhere",
        "2 leaking",
        "1 identical query",
        "1 shared document",
        "'hay fever'",
        "'hand?repair=true'",
    ):
        assert part in message
    assert "\n" not in message


def test_guard_repairs_and_logs(caplog):
    with caplog.at_level(logging.INFO):
        assert leakage.check(leakage.guard(with_query("b", "hay fever"), drop_leaks=True)).clean
    assert "1 identical query" in caplog.text


def test_a_leak_shows_the_text_of_its_example():
    """The query, or the first document of a pair that has none."""
    leaks = leakage.check(
        replace(with_query("b", "HAY  fever."), graded_pairs=(GradedPair("x", "Hay fever", 0.1),))
    ).leaks
    assert [(leak.text, leak.held_out) for leak in leaks] == [("HAY  fever.", "hay fever"), ("x", "hay fever")]


def test_options_of_the_data_stay_in_the_remedy():
    dataset = replace(with_query("b", "hay fever"), name="pairs:my.csv?negatives=2&repair=false")
    with pytest.raises(LeakageError) as caught:
        leakage.guard(dataset, drop_leaks=False)
    assert "'pairs:my.csv?negatives=2&repair=true' drops the leaks" in str(caught.value)


def test_the_spec_of_the_remedy_loads(tmp_path):
    """A space in the name of a column became a plus, which is another name."""
    rows = [f"query about {word},answer {word},{split}" for word, split in zip("abcdef", SPLITS * 2, strict=True)]
    rows += ["hay fever,answer x,test", "Hay fever,answer y,train"]
    path = tmp_path / "my.csv"
    path.write_text("\n".join(["customer question,positive,split", *rows]), encoding="utf-8")
    with pytest.raises(LeakageError) as caught:
        load_dataset(f"pairs:{path}?query=customer question")
    specs = [part for part in caught.value.remedy.split("'") if part.startswith("pairs:")]
    assert len(specs) == 2
    assert all(list(map(len, load_dataset(spec).qrels.values())) == [2, 2, 3] for spec in specs)


def test_guard_wants_something_to_train_on_only_when_asked():
    leaking = replace(with_query("a", "red itchy eyes, spring"), split_by="query")
    only = replace(leaking, queries={**leaking.queries, "a": "hay fever", "b": "Hay fever!"}, triplets=())
    assert leakage.guard(only, drop_leaks=True).qrels["train"] == {}
    with pytest.raises(LeakageError, match="without the leaking examples, train has no query left"):
        leakage.guard(only, drop_leaks=True, needs_training=True)
    one_left = replace(only, queries={**only.queries, "b": "hair loss"})
    assert list(leakage.guard(one_left, drop_leaks=True, needs_training=True).qrels["train"]) == ["b"]
    no_train = replace(only, qrels={**only.qrels, "train": {}, "dev": {"c": {"dc": 1}}})
    no_train = replace(no_train, queries={**no_train.queries, "c": "hay fever"})
    assert leakage.guard(no_train, drop_leaks=True, needs_training=True).qrels["dev"] == {}


def test_a_split_is_not_emptied_silently(caplog):
    dataset = with_query("c", "hay fever")  # the only query of dev
    with pytest.raises(LeakageError, match=r"keeps .*0 of 1 dev.* queries, which leaves dev empty\."):
        leakage.guard(dataset, drop_leaks=False)
    assert leakage.guard(dataset, drop_leaks=True, needs_training=True).qrels["dev"] == {}
    assert "every dev query leaks, so none is left" in caplog.text


def test_every_leaking_triplet_is_counted():
    dataset = replace(clean(), triplets=tuple(Triplet("hay fever", f"p{i}", "n") for i in range(5)))
    report = leakage.check(dataset)
    assert report.counts[IDENTICAL] == 5
    assert [leak.example.key for leak in report.leaks] == [0, 1, 2, 3, 4]
