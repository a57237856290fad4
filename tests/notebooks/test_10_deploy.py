"""The deployment notebook at smoke size: its record is read back and says what must hold whatever the model."""

from __future__ import annotations

import pytest

from embedlab import paths
from tests.notebooks.outcomes import run

SMOKE = {"dataset": "icd10cm:smoke", "max_steps": 3, "max_examples": 200, "drift_repeats": 2, "adapter_sample": 200}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return run(paths.notebooks_dir() / "10_deploy.ipynb", tmp_path_factory.mktemp("runs"), **SMOKE)


def values(outcome, task, metric):
    return {row.model: row.value for row in outcome.record.metrics if (row.task, row.metric) == (task, metric)}


@pytest.mark.notebook
def test_runs_at_smoke_size_and_leaves_its_files(outcome):
    files = {file.name for file in outcome.folder.iterdir()}
    assert {"recall_and_latency.png", "recall_and_latency.csv", "adapters.png", "adapters.csv"} <= files
    spaces = outcome.record.model_fingerprints
    assert len({spaces["old"], spaces["new"]}) == 2


@pytest.mark.notebook
def test_indexes_and_quality_are_read_back(outcome):
    recall = values(outcome, "index", "recall@10")
    assert recall["flat"] == 1.0 and min(recall.values()) > 0.8
    megabytes = values(outcome, "index", "megabytes")
    assert megabytes["binary, rescored"] < megabytes["int8"] < megabytes["flat"] < megabytes["hnsw"]
    quality = values(outcome, "retrieval", "ndcg@10")
    assert {"old", "new", "new queries, old documents", "new, mapped by procrustes, documents"} <= set(quality)
    rows = [row for row in outcome.record.metrics if row.task == "retrieval" and row.metric == "ndcg@10"]
    assert all(row.ci_low <= row.value <= row.ci_high for row in rows)


@pytest.mark.notebook
def test_drift_is_quiet_and_loud_where_it_must_be(outcome):
    alarms = values(outcome, "drift", "alarms")
    assert alarms["all from Python documentation"] >= 3
    assert alarms["no drift"] == 0


@pytest.mark.notebook
def test_verdict_and_recheck_are_kept(outcome):
    notes = outcome.record.notes
    assert notes["shadow"]["verdict"] == ("hold" if notes["shadow"]["holds"] else "promote")
    assert notes["recheck"]["found"]["value"] == notes["recheck"]["stored"]["value"]
