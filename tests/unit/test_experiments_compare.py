"""Two runs side by side: what differs, and an interval only where the queries allow one."""

from __future__ import annotations

import pandas as pd
import pytest

from embedlab import paths
from embedlab.errors import ParameterError
from embedlab.reporting import sweep_table
from embedlab.reporting.compare import diff, readable
from embedlab.reporting.compare_params import CompareParams, pair
from embedlab.runs.per_query import mean_over_runs, query_values
from embedlab.runs.records import MetricRow, Record, commit

A, B = (0.5, 0.5, 0.5, 0.5), (0.25, 0.25, 0.25, 0.75)


def row(system="contrastive", value=0.5, metric="ndcg@10", dim=None, **fields):
    return MetricRow(system=system, technique="x", split="test", metric=metric, value=value, dim=dim, n=4, **fields)


def record(name: str, *rows: MetricRow, lr=1e-4, data="d1", notebook="nb", **fields) -> Record:
    parameters = {"seed": 0, "dataset": fields.pop("dataset", "d"), "model_name": "m", "lr": lr}
    content = {"parameters": parameters, "metrics": list(rows or [row()]), "data_fingerprint": data, **fields}
    return Record(run_id=f"{notebook}-{name * 8}-s0", notebook=notebook, **content)


def keep_queries(one: Record, values, ids=("q1", "q2", "q3", "q4"), system="contrastive", dim=None, **columns) -> None:
    folder = paths.runs_dir() / one.run_id
    folder.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame({"query_id": ids, "ndcg@10": values, "system": system, "dim": dim})
    place = {"task": "retrieval", "stage": "retrieval", "split": "test", "condition": "", **columns}
    frame.assign(**place).to_parquet(folder / "per_query.parquet", index=False)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    return tmp_path


def test_only_what_differs_is_listed():
    a = record("a", versions={"torch": "1", "numpy": "2"}, commit="aaa", model_fingerprints={"contrastive": "x"})
    b = record("b", lr=2e-4, versions={"torch": "1"}, commit="bbb", hardware={"threads": 2})
    assert diff(a, b).facts.astype(object).where(lambda cells: cells.notna(), None).values.tolist() == [
        ["parameter", "lr", 1e-4, 2e-4],
        ["model", "contrastive", "x", None],
        ["code", "commit", "aaa", "bbb"],
        ["version", "numpy", "2", None],
        ["hardware", "threads", None, 2],
    ]
    assert diff(a, a).facts.empty


@pytest.mark.parametrize(
    ("low", "high", "n", "paired", "cell"),
    [
        (-0.4, -0.1, 6, True, "-0.250 [-0.400, -0.100] worse"),
        (0.1, 0.4, 6, True, "-0.250 [+0.100, +0.400] better"),
        (0.1, 0.4, 5, True, "-0.250 [+0.100, +0.400]"),
        (-0.4, 0.0, 6, True, "-0.250 [-0.400, +0.000]"),
        (-0.4, -0.1, 6, False, "-0.250"),
    ],
)
def test_a_terminal_says_what_an_interval_shows(low, high, n, paired, cell):
    found = diff(record("a"), record("b")).metrics.head(1)
    found = found.assign(difference=-0.25, ci_low=low, ci_high=high, paired=paired, n=n)
    assert readable(found)[["difference", "n"]].values.tolist() == [[cell, n]]


def test_paired_difference_by_hand_whatever_the_order_of_the_queries():
    a, b = record("a", row(value=0.5)), record("b", row(value=0.375))
    keep_queries(a, A)
    keep_queries(b, B[::-1], ids=("q4", "q3", "q2", "q1"))
    found = diff(a, b)
    line = found.metrics.iloc[0]
    assert found.reasons == [] and bool(line["paired"])
    assert (line["a"], line["b"], line["difference"], line["n"]) == (0.5, 0.375, 0.125, 4)
    # Differences 0.25 three times and -0.25: 5 of 16 sign patterns reach that sum, on either side.
    assert line["p"] == pytest.approx(10 / 16)
    assert line["ci_low"] < 0.125 < line["ci_high"]
    back = diff(b, a).metrics.iloc[0]
    assert (back["difference"], back["ci_high"]) == (-0.125, pytest.approx(-line["ci_low"], abs=0.1))


def test_equal_values_have_no_difference():
    a, b = record("a"), record("b")
    keep_queries(a, (0.5, 0.5, None, 0.5))
    keep_queries(b, (0.5, 0.5, None, 0.5))
    assert diff(a, b).metrics.iloc[0][["difference", "ci_low", "ci_high", "p", "n"]].tolist() == [0, 0, 0, 1, 3]


@pytest.mark.parametrize(
    "other, values, ids, reason",
    [
        ({"data": "d2", "dataset": "e"}, B, None, r"the data differ \(d and e, fingerprints d1 and d2\)"),
        ({"data": ""}, B, None, "did not record what data"),
        ({}, None, None, "no per-query values of ndcg@10 in nb-bbbbbbbb-s0"),
        ({}, B[:3], ("q1", "q2", "q5"), r"the queries differ \(2 only in the first run, 1 only in the second\)"),
    ],
)
def test_says_why_it_is_not_paired(other, values, ids, reason):
    a, b = record("a", row(value=0.5)), record("b", row(value=0.375), **other)
    keep_queries(a, A)
    if values:
        keep_queries(b, values, ids or ("q1", "q2", "q3", "q4"))
    found = diff(a, b)
    assert pd.Series(found.reasons).str.contains(reason).tolist() == [True]
    assert found.metrics[["ci_low", "ci_high", "p"]].isna().all(axis=None)
    assert found.metrics["difference"].tolist() == [0.125] and not found.metrics["paired"].any()


def test_null_metric_gives_no_difference():
    line = diff(record("a", row(value=None)), record("b")).metrics.iloc[0]
    assert pd.isna(line["a"]) and pd.isna(line["difference"]) and line["b"] == 0.5


def test_systems_meet_by_name_and_dimension_or_as_asked():
    a = record(
        "a",
        row(dim=64),
        row(dim=384),
        row(value=0.1, dim=384, statistic="difference", against="base"),
        row(metric="mrr@10", dim=384),
    )
    b = record(
        "b",
        row("student", 0.25, dim=384),
        row(value=0.75, dim=384),
        row(value=0.3, dim=384, statistic="difference", against="base"),
    )
    assert diff(a, b).metrics[["system", "dim", "difference"]].values.tolist() == [["contrastive", 384, -0.25]]
    crossed = diff(a, b, systems=("contrastive", "student")).metrics
    assert crossed[["system", "difference"]].values.tolist() == [["contrastive / student", 0.25]]
    nothing = diff(a, b, metrics=("map@10",))
    assert nothing.metrics.empty and nothing.reasons == ["the two have no metric of the same system in common"]


def test_query_values_are_those_of_the_task_and_split_and_the_last_noted():
    a = record("a")
    keep_queries(a, A, dim=384.0, split="dev")
    assert query_values(a.run_id, "ndcg@10") == {}
    assert query_values(a.run_id, "ndcg@10", split="dev", task="transfer") == {}
    assert query_values(a.run_id, "recall@10", split="dev") == {}
    keep_queries(a, (0.1, 0.2, 0.3, 0.4), ids=("q2", "q1", "q2", "q1"), dim=64.0)
    assert query_values(a.run_id, "ndcg@10")["contrastive", "", 64].to_dict() == {"q1": 0.4, "q2": 0.3}


def test_mean_over_runs_needs_the_same_queries():
    one, other = pd.Series([0.0, 1.0], ["q1", "q2"]), pd.Series([0.5, None], ["q1", "q2"])
    assert mean_over_runs([one, other]).iloc[0] == 0.25 and pd.isna(mean_over_runs([one, other]).iloc[1])
    assert mean_over_runs([one, other.rename({"q2": "q3"})]) is None and mean_over_runs([]) is None


def kept(*found: Record) -> None:
    for one in found:
        commit(one, paths.runs_dir() / one.run_id)


def test_chosen_records_match_every_filter():
    kept(record("a"), record("b", dataset="e"), record("c", notebook="other"), record("d", notebook="11_compare"))

    def ids(**values):
        return [one.run_id[-11] for one in CompareParams(**values).records()]

    assert ids() == ["a", "b", "c"]
    assert ids(dataset="d") == ["a", "c"] and ids(model_name="x") == []
    assert ids(notebook_filter="oth") == ["c"] and ids(max_examples=2) == ["a", "b"]
    assert ids(records_dir=str(paths.project_root() / "nowhere")) == []
    with pytest.raises(ParameterError, match="there is no sweep 'none'"):
        ids(sweep="none")


def test_pair_is_the_best_two_or_the_named():
    found = [
        record(name, row(value=value), lr=lr)
        for name, value, lr in (("a", 0.2, 1.0), ("b", None, 2.0), ("c", 0.4, 3.0))
    ]
    table = sweep_table.sweep_table(found, paired=False)
    assert pair(table) == ["nb-cccccccc-s0", "nb-aaaaaaaa-s0"]
    assert pair(table, "x", "y") == ["x", "y"]
    assert pair(sweep_table.sweep_table(found[:2], paired=False)) == []
    with pytest.raises(ParameterError, match="only one of run_a and run_b is set"):
        pair(table, "x")


def test_view_puts_the_metric_first_once():
    assert CompareParams().view().metrics == ("ndcg@10", "recall@10")
    assert CompareParams(metric="recall@10").view().metrics == ("recall@10", "ndcg@10")
