"""Pre-training notebook at smoke size: every arm runs, and its record says what each stage did."""

from __future__ import annotations

import pytest

from embedlab import paths
from embedlab.sweeps.spec import expand, find_sweep, read_sweep
from experiments.architectures import models
from tests.notebooks.outcomes import rows, run

PATH = paths.notebooks_dir() / "04_domain_pretraining.ipynb"
SMOKE = {"dataset": "icd10cm:smoke", "max_steps": 2, "fine_tune_pairs": 40}


def value(outcome, system, metric="ndcg@10", split="test"):
    return rows(outcome, metric, split=split)[system].value


@pytest.mark.notebook
@pytest.mark.parametrize("objective", ["mlm", "causal", "none"])
def test_runs_at_smoke_size_and_its_numbers_are_read_back(objective, tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path / "cache"))
    model_name = models.save_random("Qwen3", tmp_path / "qwen3") if objective == "causal" else "all-MiniLM-L6-v2"
    outcome = run(PATH, tmp_path, **SMOKE, objective=objective, model_name=model_name)
    files = {file.name for file in outcome.folder.iterdir()}
    assert {"executed.ipynb", "train_log.csv", "per_query.parquet", "model"} <= files
    assert {"pretraining_loss.png", "learning_curve.png", "stages.png", "stages.csv"} <= files
    systems = {"pretrained", "pretrained+contrastive"}
    values, gains = rows(outcome, "ndcg@10", split="test"), rows(outcome, "ndcg@10", "base")
    assert set(values) == {"bm25", "base"} | systems and set(gains) == systems
    assert all(row.ci_low <= row.value <= row.ci_high and row.n == 63 for row in [*values.values(), *gains.values()])
    for system in systems:
        assert gains[system].value == pytest.approx(values[system].value - values["base"].value)
    assert 0 < value(outcome, "pretrained+contrastive", split="dev") <= 1
    assert value(outcome, "word-frequencies", "perplexity", "held out") > 1
    before, after = (value(outcome, system, "perplexity", "held out") for system in ("base", "pretrained"))
    if objective == "none":
        assert values["pretrained"].value == values["base"].value
        assert after is None
    else:
        assert after < before
        assert len(list((tmp_path / "cache" / "pretrained").iterdir())) == 1


def test_sweep_crosses_objective_pairs_and_seeds():
    runs = expand(read_sweep(find_sweep("domain_pretraining")))
    arms = {(values["objective"], values["fine_tune_pairs"]) for values in runs}
    assert len(runs) == 36 and len(arms) == 12
    assert {pairs for objective, pairs in arms if objective == "none"} == {0, 500, 2000}
