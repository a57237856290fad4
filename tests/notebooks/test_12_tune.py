"""The tuning notebook at smoke size, by its command: one winner, the test used once, a model and a report."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from sentence_transformers import SentenceTransformer

from embedlab import paths
from embedlab.cli import tune as command
from tests.notebooks.outcomes import rows, smoke_run


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    path = paths.notebooks_dir() / "12_tune.ipynb"
    return smoke_run(path, tmp_path_factory.mktemp("runs"), minutes=2.5, max_bytes=512)


@pytest.mark.notebook
def test_winner_keeps_the_limit_and_is_tested_with_its_baselines(outcome):
    winner = outcome.record.notes["winner"]
    candidates = pd.DataFrame(outcome.record.notes["candidates"]).set_index("candidate")
    assert {"base", "contrastive"} <= set(candidates.index) and candidates.loc[winner, "dimensions"] <= 128
    tested = rows(outcome, "ndcg@10", split="test")
    assert {"bm25", "base", "hybrid"} < set(tested) and all(row.n == 63 for row in tested.values())
    footprint = rows(outcome, "bytes", stage="footprint")
    assert [row.value for row in footprint.values()] == [4.0 * candidates.loc[winner, "dimensions"]]


@pytest.mark.notebook
def test_no_dev_candidate_but_the_winner_touches_test(outcome):
    tested = set(rows(outcome, "ndcg@10", split="test")) - {"bm25", "base", "hybrid"}
    assert len(tested) == 2 and {system.removesuffix("+bm25") for system in tested} == {min(tested, key=len)}


@pytest.mark.notebook
def test_model_and_report_are_saved(outcome):
    dim = outcome.record.notes["candidates"][0]["dimensions"]
    model = SentenceTransformer(str(outcome.folder / "model"), trust_remote_code=True)
    assert model.get_embedding_dimension() <= 128 < dim
    report = (outcome.folder / "report.md").read_text(encoding="utf-8")
    assert f"**Winner: {outcome.record.notes['winner']}**" in report and "## What to do next" in report
    assert json.dumps(report).count("| ") > 20


def test_command_runs_the_notebook_with_its_values(monkeypatch):
    calls = []
    monkeypatch.setattr(command, "run", lambda *args, **options: calls.append((args, options)))
    command.tune("pairs:my.csv", minutes=3, model="base", max_forgetting=0.01, max_bytes=512)
    ((notebook, parameters), options) = calls[0]
    assert notebook == "12_tune" and options == {"output_dir": "", "force": False, "html": True}
    assert {"dataset=pairs:my.csv", "minutes=3.0", "max_forgetting=0.01", "max_bytes=512"} < set(parameters)
