"""Answers of two systems side by side."""

import numpy as np
import pytest

from embedlab.data.dataset import Dataset
from embedlab.errors import DataError
from embedlab.evaluation.answers import compare_answers
from embedlab.search.exact import Ranking

CORPUS = {"d0": "anemia", "d1": "cough", "d2": "gout"}
DATA = Dataset("tiny", CORPUS, {"q0": "blood", "q1": "toe"}, {"dev": {"q0": {"d0": 1}, "q1": {"d2": 1}}})


def ranking(*orders, queries=("q0", "q1")):
    indices = np.array(orders)
    scores = np.tile(np.arange(indices.shape[1], 0, -1, dtype=np.float32), (len(orders), 1))
    return Ranking.from_search(queries, list(CORPUS), scores, indices)


def test_shows_what_got_better_and_worse_and_marks_the_right_answer():
    before, after = ranking([1, 2, 0], [1, 2, 0]), ranking([0, 1, 2], [1, 0, 2])
    table = compare_answers(before, after, DATA, "dev", k=2)
    assert table.reset_index().to_dict("list") == {
        "query": ["blood", "blood", "toe", "toe"],
        "rank": [1, 2, 1, 2],
        "before": ["cough", "gout", "cough", "✓ gout"],
        "after": ["✓ anemia", "cough", "cough", "anemia"],
    }


def test_equal_rankings_give_an_empty_table_with_the_same_columns():
    same = ranking([1, 0, 2], [2, 1, 0])
    table = compare_answers(same, same, DATA)
    assert table.empty and list(table.columns) == ["before", "after"]


def test_rankings_of_other_queries_are_an_error():
    with pytest.raises(DataError, match="different queries"):
        compare_answers(ranking([0], [1]), ranking([0], [1], queries=("q1", "q0")), DATA, k=1)
