"""Filters, pivots and files of the table of all runs."""

from __future__ import annotations

import pandas as pd
import pytest

from embedlab.errors import ParameterError
from embedlab.reporting import tables
from embedlab.runs import filters


@pytest.fixture
def frame() -> pd.DataFrame:
    rows = [
        ("r1", "contrastive", 384, "ndcg@10", 0.5, 1e-4, "icd10cm:small"),
        ("r1", "contrastive", 64, "ndcg@10", 0.4, 1e-4, "icd10cm:small"),
        ("r2", "contrastive", 384, "ndcg@10", 0.7, 1e-4, "icd10cm:full"),
        ("r3", "contrastive", 384, "ndcg@10", None, 2e-4, "beir:x=y"),
        ("r3", "bm25", None, "ndcg@10", 0.2, None, None),
        ("r3", "contrastive", 384, "recall@10", 0.9, 2e-4, "beir:x=y"),
    ]
    columns = ["run_id", "system", "dim", "metric", "value", "p.lr", "dataset"]
    return (
        pd.DataFrame(rows, columns=columns)
        .astype({"dim": "Int64"})
        .assign(task="retrieval", split="test", condition="")
    )


@pytest.mark.parametrize(
    "conditions, found",
    [
        (["lr=1e-4"], [0, 1, 2]),
        (["lr!=1e-4"], [3, 4, 5]),
        (["value>0.4"], [0, 2, 5]),
        (["value>=0.4", "metric=ndcg@10"], [0, 1, 2]),
        (["value < 0.5"], [1, 4]),
        (["dim<=64"], [1]),
        (["dataset~SMALL"], [0, 1]),
        (["dataset~icd.0"], []),
        (["dataset=beir:x=y"], [3, 5]),
        (["dataset~x=y"], [3, 5]),
        (["dim="], [4]),
        (["dim!="], [0, 1, 2, 3, 5]),
        (["dim!=384"], [1, 4]),
        (["value>0.4", "value<0.6"], [0]),
        ([], [0, 1, 2, 3, 4, 5]),
    ],
)
def test_filters_by_hand(frame, conditions, found):
    assert filters.where(frame, conditions).index.tolist() == found


@pytest.mark.parametrize(
    "text, message",
    [
        ("nonsense", "cannot read the filter 'nonsense'"),
        ("=5", "cannot read the filter '=5'"),
        ("valeu>1", "there is no column 'valeu'"),
        ("value>much", "needs a number, got 'much'"),
        ("system>1", "the column system holds text"),
    ],
)
def test_impossible_filters_are_one_clear_line(frame, text, message):
    with pytest.raises(ParameterError, match=message):
        filters.where(frame, [text])


def test_pivot_means_over_runs_and_leaves_gaps_empty(frame):
    wide = tables.pivot(frame.assign(dataset="d"), ["lr", "system"], "dim")
    assert list(wide.columns) == ["lr", "system", "64", "384", ""]
    assert wide.astype(object).where(wide.notna(), None).values.tolist() == [
        [1e-4, "contrastive", 0.4, pytest.approx(0.6), None],
        [2e-4, "contrastive", None, None, None],
        ["", "bm25", None, None, 0.2],
    ]


def test_pivot_never_takes_a_mean_over_splits_models_or_dimensions(frame):
    frame = frame.assign(dataset="d")
    both = pd.concat([frame, frame.assign(split="dev", value=frame["value"] / 2)], ignore_index=True)
    wide = tables.pivot(both, ["run_id"], "metric")
    assert list(wide.columns) == ["run_id", "split", "system", "dim", "ndcg@10"]
    first = wide[wide["run_id"] == "r1"].values.tolist()
    assert first == [
        ["r1", "dev", "contrastive", 64, 0.2],
        ["r1", "dev", "contrastive", 384, 0.25],
        ["r1", "test", "contrastive", 64, 0.4],
        ["r1", "test", "contrastive", 384, 0.5],
    ]


def test_pivot_never_takes_a_mean_over_datasets(frame):
    wide = tables.pivot(frame[frame["dim"] == 384], ["system"], "dim")
    assert wide[["dataset", "384"]].values.tolist()[1:] == [["icd10cm:full", 0.7], ["icd10cm:small", 0.5]]


def test_pivot_of_an_unknown_metric_or_column(frame):
    with pytest.raises(ParameterError, match="no run has the metric 'map'.*ndcg@10, recall@10"):
        tables.pivot(frame, ["system"], "dim", "map")
    with pytest.raises(ParameterError, match="there is no column 'size'"):
        tables.pivot(frame, ["size"], "dim")


def test_files_hold_the_table_and_missing_cells_stay_empty(frame, tmp_path):
    part = frame.loc[[1, 4], ["system", "dim", "value"]].assign(system=["a_b|c", "d"])
    assert tables.export(part, tmp_path / "new" / "t.csv").read_text() == "system,dim,value\na_b|c,64,0.4\nd,,0.2\n"
    assert "| a_b\\|c | 64 | 0.4 |\n| d |  | 0.2 |\n" in tables.export(part, tmp_path / "t.md").read_text()
    tex = tables.export(part, tmp_path / "t.TEX").read_text()
    assert r"a\_b|c & 64 & 0.4" in tex and "d &  & 0.2" in tex and "nan" not in tex.lower()
    assert pd.read_parquet(tables.export(part, tmp_path / "t.parquet"))["dim"].isna().tolist() == [False, True]
    with pytest.raises(ParameterError, match="ending '.docx', which is not supported"):
        tables.export(part, tmp_path / "t.docx")
