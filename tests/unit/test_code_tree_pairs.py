"""Training data from the tree of codes: which pairs and texts are added, and that test stays as it is."""

from __future__ import annotations

import numpy as np
import pytest

from embedlab.data.dataset import Dataset
from experiments import code_tree_pairs as tree

DATA = Dataset(
    name="codes",
    corpus={"A01": "Typhoid", "A01.0": "Typhoid", "A01.02": "Typhoid of the heart", "B20": "HIV"},
    queries={"q": "typhoid heart", "r": "aids", "t": "typhoid fever"},
    qrels={"train": {"q": {"A01.02": 1}, "r": {"B20": 1}}, "dev": {}, "test": {"t": {"A01.0": 1}}},
)


@pytest.mark.parametrize(
    ("code", "expected"), [("A01.02", "A01.0"), ("A01.0", "A01"), ("A01", None), ("A01.921", "A01"), ("B20.1X", "B20")]
)
def test_parent_is_the_nearest_code_above(code, expected):
    assert tree.parent(code, DATA.corpus) == expected


def test_parents_are_relevant_in_training_only():
    changed = tree.parents_too(DATA)
    assert changed.qrels["train"] == {"q": {"A01.0": 1, "A01.02": 1}, "r": {"B20": 1}}
    assert changed.qrels["test"] == DATA.qrels["test"]


def test_descriptions_become_queries_for_other_descriptions():
    changed = tree.child_to_parent(DATA)
    assert changed.pairs("train") == [*DATA.pairs("train"), ("child-A01.02", "A01.0")]  # A01.0 is named as its parent
    assert changed.queries["child-A01.02"] == "Typhoid of the heart"
    assert changed.qrels["test"] == DATA.qrels["test"]


def test_documents_name_their_parent_once():
    corpus = tree.under_parent(DATA).corpus
    assert corpus == {**DATA.corpus, "A01.02": "Typhoid: Typhoid of the heart"}


def test_table_pairs_the_queries_of_one_seed():
    found = {"dev": {"static": np.array([0.5])}, "test": {"static": np.array([0.2, 0.4, 0.6])}}
    better = {**found, "test": {"static": np.array([0.3, 0.5, 0.7])}}
    text = tree.table([tree.row(tree.REFERENCE, 0, found), tree.row("parents relevant", 0, better)])
    assert "+0.100 [+0.100, +0.100]" in text and "| 0.500 | 0.400 [" in text
