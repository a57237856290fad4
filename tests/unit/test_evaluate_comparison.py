"""Several systems against one: hand-computed means, the correction over systems, single queries."""

from __future__ import annotations

import math

import numpy as np
import pytest

from embedlab.errors import DataError
from embedlab.evaluation.comparison import compare_systems, metric_table
from embedlab.evaluation.metrics import Evaluation
from embedlab.evaluation.significance import holm, paired_t_test


def evaluation(values, other=None, ids=None):
    values = np.array(values, dtype=float)
    ids = ids or tuple(f"q{i}" for i in range(len(values)))
    metrics = {"ndcg@10": values, "mrr@10": np.array(values if other is None else other, dtype=float)}
    return Evaluation(ids, metrics, int(np.isnan(values).sum()))


def test_means_differences_and_counts_by_hand():
    table = compare_systems({"a": evaluation([1, 0.5, 0.5, math.nan])}, evaluation([0.5, 0.5, 1, 1]))
    row = table.iloc[0]
    assert (row["n"], row["wins"], row["ties"], row["losses"]) == (3, 1, 1, 1)
    assert (row["value"], row["baseline"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert row["difference"] == 0 and row["p_value"] == 1


def test_better_is_positive_and_relative_to_the_baseline():
    row = compare_systems({"a": evaluation([0.6, 0.8])}, evaluation([0.4, 0.6])).iloc[0]
    assert row["difference"] == pytest.approx(0.2) and row["relative"] == pytest.approx(0.4)


def test_holm_counts_the_systems_of_one_metric_and_not_those_of_another():
    rng = np.random.default_rng(0)
    base = rng.random(60)
    systems = {f"s{i}": evaluation(base + rng.normal(0.02 * i, 0.1, 60), base) for i in range(4)}
    table = compare_systems(systems, evaluation(base), ["ndcg@10", "mrr@10"])
    by_metric = table.set_index(["metric", "system"])
    ndcg = by_metric.loc["ndcg@10"]
    np.testing.assert_allclose(ndcg["p_holm"], holm(ndcg["p_value"].to_numpy()))
    assert (ndcg["p_holm"] >= ndcg["p_value"]).all() and (ndcg["p_holm"] > ndcg["p_value"]).any()
    assert (by_metric.loc["mrr@10", "p_holm"] == 1).all()
    assert ndcg.loc["s3", "p_t"] == paired_t_test(systems["s3"].of("ndcg@10"), base)


def test_the_detectable_effect_shrinks_with_more_queries():
    rng = np.random.default_rng(1)
    effects = []
    for n in (50, 200):
        base = rng.random(n)
        effects.append(compare_systems({"a": evaluation(base + rng.normal(0, 0.1, n))}, evaluation(base)).iloc[0])
    assert effects[0]["detectable"] == pytest.approx(2 * effects[1]["detectable"], rel=0.3)


def test_one_query_has_a_difference_and_no_certainty():
    row = compare_systems({"a": evaluation([1.0])}, evaluation([0.5])).iloc[0]
    assert row["difference"] == 0.5 and row[["ci_low", "p_value", "p_holm", "detectable"]].isna().all()


def test_no_query_counts():
    row = compare_systems({"a": evaluation([math.nan])}, evaluation([math.nan])).iloc[0]
    assert row["n"] == 0 and math.isnan(row["value"]) and math.isnan(row["difference"])


def test_other_queries_are_refused():
    with pytest.raises(DataError, match="same queries"):
        compare_systems({"a": evaluation([1, 0], ids=("x", "y"))}, evaluation([1, 0]))


def test_metric_table_holds_every_metric_with_its_interval():
    table = metric_table({"a": evaluation([0, 1, 1, 0.5]), "b": evaluation([0, 0, 0, 0])}, ["mrr@10"])
    assert table[["system", "metric"]].to_numpy().tolist() == [["a", "mrr@10"], ["b", "mrr@10"]]
    assert table["value"].tolist() == [0.625, 0] and table["n"].tolist() == [4, 4]
    assert table["ci_low"][0] < 0.625 < table["ci_high"][0]
