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


@pytest.fixture(scope="module")
def values(rows):
    return rows[rows["statistic"] == "value"]


@pytest.mark.notebook
def test_every_width_and_depth_is_recorded(values):
    ndcg = values[(values["metric"] == "ndcg@10") & (values["stage"] == "retrieval")]
    dims = ndcg.dropna(subset="dim").groupby(["system", "condition"])["dim"].agg(set)
    systems = ["base", "contrastive", "contrastive-full-width", "matryoshka-2d", "matryoshka-adaptor"]
    shallow = [("contrastive", "3 layers"), ("matryoshka-2d", "3 layers")]
    for key in [*((system, "") for system in systems), *shallow]:
        assert dims[key] == DIMS
    assert (ndcg["ci_low"] <= ndcg["value"]).all() and (ndcg["value"] <= ndcg["ci_high"]).all()


@pytest.mark.notebook
def test_truncation_is_compared_with_the_full_width(rows):
    cost = rows[(rows["condition"] == "truncated, against full width") & (rows["statistic"] == "difference")]
    assert (cost["system"] == cost["against"]).all() and set(cost["dim"]) == DIMS - {384}
    assert set(cost["system"]) == {
        "base",
        "contrastive",
        "contrastive-full-width",
        "matryoshka-2d",
        "matryoshka-adaptor",
    }
    trained = rows[rows["metric"] == "training_seconds"]
    assert {"contrastive", "contrastive-full-width", "matryoshka-2d"} <= set(trained["system"])


@pytest.mark.notebook
def test_searches_agree_where_they_must(values):
    search = values[(values["stage"] == "search") & (values["task"] == "retrieval")]
    search = search.drop_duplicates(["condition", "metric"]).set_index(["condition", "metric"])["value"]
    full = values[(values["system"] == "contrastive") & (values["stage"] == "retrieval") & (values["condition"] == "")]
    full = full[(full["metric"] == "ndcg@10") & (full["dim"] == 384)]["value"].item()
    assert search["full", "ndcg@10"] == pytest.approx(full, abs=1e-6)
    assert search["full", "recall of full search"] == 1
    assert 0.5 < search["64 → 384", "recall of full search"] <= 1
    assert search["16 → 384", "recall of full search"] <= search["64 → 384", "recall of full search"]
    assert {"threshold", "share stopped", "MFLOP per query", "ndcg@10"} <= set(search["64, stop early"].index)


@pytest.mark.notebook
def test_bytes_are_recorded_with_their_quality(values):
    stored = values[values["stage"] == "quantised"].set_index(["condition", "metric"])["value"]
    assert stored["float32 384, alone", "bytes in memory"] == 1536
    assert stored["signs 384, rescored", "bytes in memory"] == 48
    assert stored["signs 384, rescored", "bytes on disk"] == 384
    assert stored["bit 384, alone", "bytes on disk"] == 0
    assert stored["float32 12, alone", "ndcg@10"] < stored["float32 384, alone", "ndcg@10"]


@pytest.mark.notebook
def test_files_and_times_are_stored(outcome, values):
    files = {file.name for file in outcome.folder.iterdir()}
    expected = {"executed.ipynb", "train_log.csv", "per_query.parquet", "model", "quality_by_dimension.csv"}
    assert expected | {"quality_by_bytes.csv", "quality_by_bytes.png", "quality_by_dimension.png"} <= files
    speeds = values[values["metric"] == "speed"].set_index("condition")["value"]
    for condition in ("400 documents, batches, 384 alone", "2,000 documents, batches, full"):
        assert speeds[condition] == 1
    assert "2,000 documents, one by one, stop early" in speeds.index and (speeds > 0).all()
