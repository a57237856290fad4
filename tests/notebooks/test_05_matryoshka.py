"""The Matryoshka notebook at smoke size: every model, width, depth and search is in the record and makes sense."""

from __future__ import annotations

import pandas as pd
import pytest

from embedlab import paths
from tests.notebooks.outcomes import smoke_run

DIMS = {384, 256, 128, 64, 32, 16}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    path = paths.notebooks_dir() / "05_matryoshka.ipynb"
    return smoke_run(path, tmp_path_factory.mktemp("runs"), max_steps=1, corpus_sizes=[2000])


@pytest.fixture(scope="module")
def rows(outcome):
    return pd.DataFrame([row.model_dump() for row in outcome.record.metrics])


@pytest.mark.notebook
def test_every_width_and_depth_is_recorded(rows):
    ndcg = rows[(rows["metric"] == "ndcg@10") & (rows["task"] == "retrieval")]
    by_model = ndcg.dropna(subset="dim").groupby("model")["dim"].agg(set)
    trained = ("tuned", "tuned without MRL", "tuned 2D", "tuned, 3 layers", "tuned 2D, 3 layers")
    for name in ("base", "tuned, prefixes fitted", *trained):
        assert by_model[name] == DIMS
    assert (ndcg["ci_low"] <= ndcg["value"]).all() and (ndcg["value"] <= ndcg["ci_high"]).all()


@pytest.mark.notebook
def test_searches_agree_where_they_must(rows):
    funnel = rows[rows["task"] == "funnel"].set_index(["model", "metric"])["value"]
    whole = rows[(rows["model"] == "tuned") & (rows["metric"] == "ndcg@10") & (rows["dim"] == 384)]["value"].item()
    assert funnel["full", "ndcg@10"] == pytest.approx(whole, abs=1e-6)
    assert funnel["full", "recall of full search"] == 1
    assert 0.5 < funnel["64 → 384", "recall of full search"] <= 1
    assert funnel["16 → 384", "recall of full search"] <= funnel["64 → 384", "recall of full search"]


@pytest.mark.notebook
def test_bytes_are_recorded_with_what_they_are_worth(rows):
    held = rows[rows["task"] == "quantised"].set_index(["model", "metric"])["value"]
    assert held["float32 384, alone", "bytes in memory"] == 1536
    assert held["signs 384, rescored", "bytes in memory"] == 48
    assert held["signs 384, rescored", "bytes on disk"] == 384
    assert held["bit 384, alone", "bytes on disk"] == 0
    assert held["float32 12, alone", "ndcg@10"] < held["float32 384, alone", "ndcg@10"]


@pytest.mark.notebook
def test_files_and_times_are_kept(outcome, rows):
    files = {file.name for file in outcome.folder.iterdir()}
    wanted = {"executed.ipynb", "train_log.csv", "per_query.parquet", "model", "quality_by_dimension.csv"}
    assert wanted | {"quality_by_bytes.csv", "quality_by_bytes.png", "quality_by_dimension.png"} <= files
    speeds = rows[rows["metric"] == "speed"]
    assert set(speeds["task"]) == {"400 documents, batches", "2,000 documents, batches", "2,000 documents, one by one"}
    assert (speeds.loc[speeds["model"].isin(["full", "384 alone"]), "value"] == 1).all() and (speeds["value"] > 0).all()
