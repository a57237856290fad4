"""Slices: who belongs where, and losses that a better mean hides."""

from __future__ import annotations

import math

import numpy as np
import pytest

from embedlab.errors import DataError, ParameterError
from embedlab.evaluation.metrics import Evaluation
from embedlab.evaluation.slices import slice_differences


def evaluation(values):
    values = np.array(values, dtype=float)
    return Evaluation(tuple(f"q{i}" for i in range(len(values))), {"ndcg@10": values}, int(np.isnan(values).sum()))


def fields(names):
    return {f"q{row}": {"chapter": name} for row, name in enumerate(names) if name}


def test_slice_means_by_hand():
    values = [1, 0, 0.5, 0.25, math.nan, 0.5]
    table = slice_differences(evaluation(values), evaluation([0] * 6), fields("ABBBB"), "chapter", "ndcg@10")
    assert table["slice"].tolist() == ["B", "A", "(unknown)"]
    assert table["n"].tolist() == [3, 1, 1]  # the query without positives does not count
    assert table["mean_a"].tolist() == pytest.approx([0.25, 1, 0.5])
    assert table["ci_low"].isna().tolist() == [False, True, True]
    assert 0 <= table["ci_low"][0] <= 0.25 <= table["ci_high"][0] <= 0.5


def test_slices_add_up_to_the_whole():
    values = np.random.default_rng(0).random(40)
    table = slice_differences(evaluation(values), evaluation([0] * 40), fields("ABCD" * 10), "chapter", "ndcg@10")
    assert (table["n"] * table["mean_a"]).sum() / 40 == pytest.approx(values.mean())


def test_a_loss_in_one_slice_is_flagged_although_the_mean_is_better():
    rng = np.random.default_rng(1)
    before = rng.uniform(0.3, 0.6, 100)
    after = before + np.where(np.arange(100) < 80, 0.2, -0.2) + rng.normal(0, 0.02, 100)
    names = "A" * 80 + "B" * 20
    table = slice_differences(evaluation(after), evaluation(before), fields(names), "chapter", "ndcg@10")
    assert after.mean() > before.mean()
    assert table["slice"].tolist() == ["A", "B"]
    assert table["regression"].tolist() == [False, True]
    assert table["difference"].tolist() == pytest.approx([0.2, -0.2], abs=0.02)
    np.testing.assert_allclose(table["mean_a"] - table["mean_b"], table["difference"])
    swapped = slice_differences(evaluation(before), evaluation(after), fields(names), "chapter", "ndcg@10")
    assert swapped["regression"].tolist() == [True, False]


def test_chance_losses_are_not_flagged_and_p_values_are_corrected():
    rng = np.random.default_rng(2)
    before, noise = rng.uniform(0.3, 0.6, 200), rng.normal(0, 0.1, 200)
    table = slice_differences(
        evaluation(before + noise), evaluation(before), fields("ABCDEFGHIJ" * 20), "chapter", "ndcg@10"
    )
    assert not table["regression"].any()
    assert (table["p_holm"] >= table["p_value"]).all()
    assert table["p_holm"].max() > table["p_value"].max()


def test_a_slice_of_one_query_cannot_be_flagged():
    table = slice_differences(evaluation([0, 1, 1]), evaluation([1, 0, 0]), fields("ABB"), "chapter", "ndcg@10")
    single = table.set_index("slice").loc["A"]
    assert single["difference"] == -1
    assert math.isnan(single["p_value"])
    assert not single["regression"]


def test_a_slice_without_positives_has_no_numbers():
    table = slice_differences(
        evaluation([math.nan, 1, 0]), evaluation([math.nan, 1, 0]), fields("ABB"), "chapter", "ndcg@10"
    )
    empty = table.set_index("slice").loc["A"]
    assert empty["n"] == 0
    assert empty[["mean_a", "mean_b", "difference", "p_value", "p_holm"]].isna().all()
    assert not empty["regression"]


def test_unknown_field_and_different_queries_are_named():
    with pytest.raises(ParameterError, match="No query has the field 'block'. Fields of these queries: chapter"):
        slice_differences(evaluation([1, 1]), evaluation([0, 1]), fields("AB"), "block", "ndcg@10")
    with pytest.raises(DataError, match="not of the same queries"):
        slice_differences(evaluation([1, 1]), evaluation([1]), fields("AB"), "chapter", "ndcg@10")
