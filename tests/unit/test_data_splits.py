"""Groups never cross splits, and the same data always splits the same way."""

import logging
import os
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from embedlab.data import splits
from embedlab.data.dataset import SPLITS, Dataset, GradedPair, Triplet
from embedlab.data.splits import (
    cap_training,
    complete_splits,
    components,
    group_queries,
    group_split,
    mark_seen,
    seeded_order,
)
from embedlab.errors import DataError, ParameterError

KEYS = st.dictionaries(st.text("abcdef", min_size=1), st.frozensets(st.integers(0, 8), max_size=3), max_size=15)


def slow_components(keys):
    """Merge sets until nothing changes."""
    parts = [({item}, set(its_keys)) for item, its_keys in keys.items()]
    merged = True
    while merged:
        merged = False
        for i, (items, its_keys) in enumerate(parts):
            for j in range(i + 1, len(parts)):
                if its_keys & parts[j][1]:
                    parts[i] = (items | parts[j][0], its_keys | parts[j][1])
                    del parts[j]
                    merged = True
                    break
            if merged:
                break
    return {item: min(items) for items, _ in parts for item in items}


@settings(deadline=None)  # the first call imports scipy
@given(KEYS)
def test_components_equal_the_slow_reference(keys):
    assert components(keys) == slow_components(keys)


@given(st.lists(st.integers(0, 20), min_size=30, max_size=120), st.integers(0, 5))
def test_no_group_crosses_and_nothing_is_lost(numbers, seed):
    groups = {f"q{i}": f"g{number}" for i, number in enumerate(numbers)}
    assume(len(set(numbers)) >= 3)
    sizes = {"test": 15, "dev": 10}
    parts = group_split(groups, sizes, seed=seed)
    assert sorted(item for part in parts.values() for item in part) == sorted(groups)
    owners = [{groups[item] for item in part} for part in parts.values()]
    assert all(owners), "every split has something"
    assert sum(map(len, owners)) == len(set(groups.values()))
    smallest = min(numbers.count(number) for number in numbers)
    assert all(len(parts[split]) <= size or smallest > 1 for split, size in sizes.items())
    shuffled = random.Random(seed).sample(sorted(groups), len(groups))
    again = group_split({item: groups[item] for item in shuffled}, sizes, seed=seed)
    assert {split: sorted(part) for split, part in again.items()} == {s: sorted(p) for s, p in parts.items()}


def test_single_queries_fill_the_sizes_exactly():
    parts = group_split({f"q{i}": f"q{i}" for i in range(100)}, {"test": 15, "dev": 10})
    assert {split: len(part) for split, part in parts.items()} == {"train": 75, "test": 15, "dev": 10}


def test_splits_of_many_queries_are_capped_and_the_rest_is_trained_on(monkeypatch, caplog):
    monkeypatch.setattr(splits, "LARGEST", {"dev": 5, "test": 9})
    queries = {f"q{i}": f"query number {i}" for i in range(100)}
    grades = {query: {f"d{query}": 1} for query in queries}
    with caplog.at_level(logging.INFO):
        qrels, _ = complete_splits({"train": grades}, queries, {})
    assert {split: len(part) for split, part in qrels.items()} == {"train": 86, "dev": 5, "test": 9}
    assert "{'test': 9, 'dev': 5} instead of {'test': 15, 'dev': 10} queries" in caplog.text
    given, _ = complete_splits({"train": grades, "dev": grades, "test": grades}, queries, {})
    assert len(given["dev"]) == 100, "splits that the data names stay as they are"


def test_a_long_text_links_queries_like_a_short_one():
    queries = {"a": "one", "b": "two", "c": "three"}
    corpus = {"x": "long " * 50, "y": "LONG " * 50 + ".", "z": "other " * 50}
    qrels = {"a": {"x": 1}, "b": {"y": 1}, "c": {"z": 1}}
    assert group_queries(queries, qrels, corpus) == {"a": "a", "b": "a", "c": "c"}


def test_a_giant_group_stays_in_train():
    groups = {f"q{i}": "giant" for i in range(90)} | {f"s{i}": f"s{i}" for i in range(2)}
    parts = group_split(groups, {"test": 14, "dev": 9})
    assert len(parts["train"]) == 90
    assert len(parts["test"]) == len(parts["dev"]) == 1


def test_splits_that_a_large_group_spoils_are_reported_with_its_size(caplog):
    """18 of 20 queries belong together; 3 for test and 2 for dev were wanted, and one each is left."""
    queries = {f"q{i}": f"{chr(97 + i) * 3} {chr(97 + i) * 4} {chr(97 + i) * 5}" for i in range(20)}
    train = {query: {f"d{query}": 1} for query in queries}
    groups = {f"q{i}": "large" for i in range(18)}
    corpus = {f"d{query}": f"about {query}" for query in queries}
    with caplog.at_level(logging.INFO):
        splits, _ = complete_splits({"train": train}, queries, corpus, user_groups=groups)
    assert {split: len(part) for split, part in splits.items()} == {"train": 18, "dev": 1, "test": 1}
    assert "divided train by groups: 18 train, 1 dev, 1 test" in caplog.text
    assert "The largest group of related queries has 18 of 20 queries and stays in one split." in caplog.text
    caplog.clear()
    complete_splits({"train": train}, queries, corpus)
    assert "largest group" not in caplog.text


def test_too_few_groups_is_an_error():
    with pytest.raises(DataError, match="2 unrelated groups, too few for 3 splits"):
        group_split({"a": "1", "b": "2", "c": "2"}, {"test": 1, "dev": 1})


def test_seeds_differ_and_samples_are_nested():
    names = [f"q{i}" for i in range(50)]
    assert seeded_order(names, 0) != seeded_order(names, 1)
    assert seeded_order(names) == seeded_order(reversed(names))
    assert group_split({n: n for n in names}, {"test": 9}, seed=0) != group_split(
        {n: n for n in names}, {"test": 9}, seed=1
    )


def test_order_does_not_depend_on_the_hash_seed():
    code = (
        "from embedlab.data.splits import *; q = {f'q{i}': f'w{i % 7} common words {i}' for i in range(40)};"
        "r = {k: {f'd{i // 3}': 1} for i, k in enumerate(q)};"
        "print(complete_splits({'test': r}, q, {f'd{i}': f'document {i}' for i in range(14)}))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(runs) == 1


def test_what_joins_queries():
    queries = {"a": "chest pain", "b": "Chest  pain!", "c": "one two three four", "d": "four three two one five"}
    queries |= {
        "e": "see document",
        "f": "asks",
        "g": "lonely",
        "h": "given one",
        "i": "given two",
        "j": "a twin's text",
    }
    corpus = {"1": "x", "2": "y", "3": "z", "4": "lonely", "5": "shared", "6": "Shared.", "7": "u", "8": "v", "9": "w"}
    documents = {"a": "1", "b": "2", "c": "3", "d": "7", "e": "5", "f": "6", "g": "8", "h": "9", "i": "9", "j": "4"}
    qrels = {query: {document: 1} for query, document in documents.items()}
    corpus |= {"10": "other"}
    qrels["i"] = {"10": 1}
    by_document = group_queries(queries, qrels, corpus, user_groups={"h": "x", "i": "x"})
    assert by_document == {
        "a": "a", "b": "a",  # the same text
        "c": "c", "d": "c",  # nearly the same text
        "e": "e", "f": "e",  # documents with the same text
        "g": "g", "j": "g",  # j's document reads like query g
        "h": "h", "i": "h",  # told so
    }  # fmt: skip
    by_query = group_queries(queries, qrels, corpus, split_by="query")
    assert by_query["e"] != by_query["f"]
    assert by_query["g"] == by_query["j"]


def judged(names):
    return {name: {f"d-{name}": 1} for name in names}


def texts(names):
    return {name: f"{name} {name}x" for name in names}, {f"d-{name}": f"about {name}" for name in names}


@pytest.mark.parametrize(
    ("given_splits", "kept", "sizes"),
    [
        ({"test": 100}, (), {"train": 75, "dev": 10, "test": 15}),
        ({"train": 100}, (), {"train": 75, "dev": 10, "test": 15}),
        ({"train": 85, "test": 40}, ("test",), {"train": 75, "dev": 10, "test": 40}),
        ({"train": 90, "dev": 30}, ("dev",), {"train": 75, "dev": 30, "test": 15}),
        ({"dev": 85, "test": 20}, ("test",), {"train": 75, "dev": 10, "test": 20}),
        ({"train": 5, "dev": 3, "test": 2}, SPLITS, {"train": 5, "dev": 3, "test": 2}),
    ],
)
def test_complete_cuts_only_what_is_missing(given_splits, kept, sizes):
    names = {split: [f"{split}{i}" for i in range(count)] for split, count in given_splits.items()}
    queries, corpus = texts([name for part in names.values() for name in part])
    qrels = {split: judged(part) for split, part in names.items()}
    made, groups = complete_splits(qrels, queries, corpus)
    assert {split: len(part) for split, part in made.items()} == sizes
    assert list(made) == list(SPLITS)
    assert all(made[split] == qrels[split] for split in kept)
    assert set(groups) == set(queries)


def small_dataset():
    queries, corpus = texts([f"q{i}" for i in range(12)])
    qrels = {"train": judged(f"q{i}" for i in range(8)), "dev": judged(["q8"]), "test": judged(["q9", "q10"])}
    qrels["test"]["q10"] = {"d-q10": 1, "d-q3": 1}
    triplets = tuple(Triplet(f"t{i}", corpus["d-q8"] if i == 0 else "p", "n") for i in range(4))
    graded = tuple(GradedPair(f"l{i}", "r", 0.5) for i in range(8))
    groups = {query: query for query in queries}
    return Dataset("x", corpus, queries, qrels, triplets, groups, graded_pairs=graded, fields={"q9": {"k": "v"}})


def test_cap_takes_from_training_alone():
    dataset = small_dataset()
    capped = cap_training(dataset, 4)
    assert len(capped.qrels["train"]) == 4
    assert (capped.qrels["dev"], capped.qrels["test"]) == (dataset.qrels["dev"], dataset.qrels["test"])
    assert len(capped.triplets) == 2
    assert len(capped.graded_pairs) == 4
    assert set(capped.queries) == set(capped.groups) == {q for part in capped.qrels.values() for q in part}
    assert capped.corpus == dataset.corpus
    assert set(cap_training(dataset, 2).qrels["train"]) < set(capped.qrels["train"])
    assert list(capped.qrels["train"]) == [q for q in dataset.qrels["train"] if q in capped.qrels["train"]]
    assert cap_training(dataset, 99).qrels == dataset.qrels
    assert cap_training(dataset, 2).qrels == cap_training(dataset, 2, seed=0).qrels
    assert len({tuple(cap_training(dataset, 2, seed).qrels["train"]) for seed in range(9)}) > 1
    assert cap_training(dataset, 2).qrels != cap_training(dataset, 2, seed=1).qrels


@pytest.mark.parametrize("cap", [0, -1])
def test_cap_must_leave_something(cap):
    with pytest.raises(ParameterError) as caught:
        cap_training(small_dataset(), cap)
    assert caught.value.field == "max_examples"


def test_seen_means_a_positive_of_training():
    fields = mark_seen(small_dataset()).fields
    assert fields["q10"]["seen"] == "seen"  # through the pair (q3, d-q3)
    assert fields["q8"]["seen"] == "seen"  # through a triplet
    assert fields["q9"] == {"k": "v", "seen": "unseen"}
    assert "q0" not in fields


@pytest.mark.parametrize(("length", "count"), [(0, 3), (3, 5), (199, 100), (1000, 7), (10, 10)])
def test_evenly_spread_reaches_both_ends(length, count):
    """A stride of 199 // 100 = 1 would return the first hundred."""
    sample = [int(text) for text in splits.evenly_spread(map(str, range(length)), count)]
    assert len(sample) == min(length, count) and sample == sorted(set(sample))
    if sample:
        gaps = np.diff([*sample, length])
        assert sample[0] == 0 and max(gaps) - min(gaps) <= 1
