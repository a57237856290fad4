"""The deployment notebook at smoke size: its record is read back and says what must hold whatever the model."""

from __future__ import annotations

import pytest

from embedlab import paths
from tests.notebooks.outcomes import run

SMOKE = {"dataset": "icd10cm:smoke", "max_steps": 3, "max_examples": 200, "drift_repeats": 2, "adapter_sample": 200}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return run(paths.notebooks_dir() / "10_deploy.ipynb", tmp_path_factory.mktemp("runs"), **SMOKE)


def by_condition(outcome, stage, metric):
    return {row.condition: row.value for row in outcome.record.metrics if (row.stage, row.metric) == (stage, metric)}


@pytest.mark.notebook
def test_runs_at_smoke_size_and_leaves_its_files(outcome):
    files = {file.name for file in outcome.folder.iterdir()}
    assert {"recall_and_latency.png", "recall_and_latency.csv", "adapters.png", "adapters.csv"} <= files
    spaces = outcome.record.model_fingerprints
    assert len({spaces["base"], spaces["contrastive"]}) == 2


@pytest.mark.notebook
def test_indexes_and_quality_are_read_back(outcome):
    recall = by_condition(outcome, "index", "recall@10")
    assert recall["flat"] == 1.0 and min(recall.values()) > 0.8
    megabytes = by_condition(outcome, "index", "megabytes")
    assert megabytes["binary, rescored"] < megabytes["int8"] < megabytes["flat"] < megabytes["hnsw"]
    rows = [row for row in outcome.record.metrics if row.metric == "ndcg@10" and row.statistic == "value"]
    assert {row.system for row in rows} == {"base", "contrastive", "mixed-index", "mapped-queries"}
    assert "new queries, old documents" in by_condition(outcome, "retrieval", "ndcg@10")
    assert "procrustes, documents" in by_condition(outcome, "adapter", "ndcg@10")
    assert all(row.ci_low <= row.value <= row.ci_high for row in rows)


@pytest.mark.notebook
def test_drift_raises_alarms_only_where_something_changed(outcome):
    alarms = by_condition(outcome, "drift", "alarms")
    assert alarms["all from Python documentation"] >= 3
    assert alarms["no drift"] == 0


@pytest.mark.notebook
def test_verdict_and_recheck_are_kept(outcome):
    notes = outcome.record.notes
    assert notes["shadow"]["verdict"] == ("hold" if notes["shadow"]["holds"] else "promote")
    assert notes["recheck"]["found"]["value"] == notes["recheck"]["stored"]["value"]
