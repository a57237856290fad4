"""Pre-training notebook at smoke size: every arm runs, and its record says what each stage did."""

from __future__ import annotations

import pytest

from embedlab import paths
from embedlab.sweeps.spec import expand, find_sweep, read_sweep
from tests.notebooks.outcomes import run

PATH = paths.notebooks_dir() / "04_domain_pretraining.ipynb"
SMOKE = {"dataset": "icd10cm:smoke", "max_steps": 2, "fine_tune_pairs": 40}


def value(record, model, metric="ndcg@10", split="test"):
    return next(row.value for row in record.metrics if (row.model, row.metric, row.split) == (model, metric, split))


@pytest.mark.notebook
@pytest.mark.parametrize("objective", ["mlm", "none"])
def test_runs_at_smoke_size_and_its_numbers_are_read_back(objective, tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path / "cache"))
    outcome = run(PATH, tmp_path, **SMOKE, objective=objective)
    files = {file.name for file in outcome.folder.iterdir()}
    assert {"executed.ipynb", "train_log.csv", "per_query.parquet", "model"} <= files
    assert {"pretraining_loss.png", "learning_curve.png", "stages.png", "stages.csv"} <= files
    record = outcome.record
    rows = [row for row in record.metrics if (row.metric, row.split) == ("ndcg@10", "test")]
    assert {row.model for row in rows} == {"bm25", "base", "pretrained", "pretrained - base", "tuned", "tuned - base"}
    assert all(row.ci_low <= row.value <= row.ci_high and row.n == 63 for row in rows)
    assert value(record, "pretrained - base") == pytest.approx(value(record, "pretrained") - value(record, "base"))
    assert value(record, "tuned - base") == pytest.approx(value(record, "tuned") - value(record, "base"))
    assert 0 < value(record, "tuned", split="dev") <= 1
    assert value(record, "word frequencies", "perplexity", "held out") > 1
    if objective == "none":
        assert value(record, "pretrained") == value(record, "base")
        assert value(record, "after", "perplexity", "held out") is None
    else:
        assert value(record, "after", "perplexity", "held out") < value(record, "before", "perplexity", "held out")
        assert len(list((tmp_path / "cache" / "pretrained").iterdir())) == 1


def test_sweep_crosses_objective_pairs_and_seeds():
    runs = expand(read_sweep(find_sweep("domain_pretraining")))
    arms = {(values["objective"], values["fine_tune_pairs"]) for values in runs}
    assert len(runs) == 36 and len(arms) == 12
    assert {pairs for objective, pairs in arms if objective == "none"} == {0, 500, 2000}
