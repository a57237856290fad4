"""The ceiling on unseen codes: how test queries are divided, and what is trained on and tested."""

from __future__ import annotations

from embedlab.data.dataset import Dataset
from experiments import ceiling

DATA = Dataset(
    name="codes",
    corpus={code: f"name of {code}" for code in ("a", "b", "c", "t")},
    queries={name: f"term {name}" for name in ("a1", "a2", "a3", "b1", "b2", "c1", "t1")},
    qrels={
        "train": {"t1": {"t": 1}},
        "dev": {},
        "test": {"a1": {"a": 1}, "a2": {"a": 1}, "a3": {"a": 1}, "b1": {"b": 1}, "b2": {"b": 1}, "c1": {"c": 1}},
    },
)


def test_halves_divide_the_terms_of_every_code():
    first, second = ceiling.halves(DATA)
    assert sorted(first + second) == ["a1", "a2", "a3", "b1", "b2", "c1"]
    assert abs(len(first) - len(second)) <= 1
    for code, terms in {"a": {"a1", "a2", "a3"}, "b": {"b1", "b2"}}.items():
        assert terms & set(first) and terms & set(second), code


def test_only_queries_whose_code_was_learned_are_tested():
    fold = ceiling.with_more_training(DATA, ["a1", "b1"], ["a2", "c1"])
    assert fold.qrels["train"] == {"t1": {"t": 1}, "a1": {"a": 1}, "b1": {"b": 1}}
    assert fold.qrels["test"] == {"a2": {"a": 1}}  # nothing was learned about code c
    assert not set(fold.qrels["train"]) & set(fold.qrels["test"])
