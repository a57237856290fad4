"""The evaluation notebook at smoke size: its record, its gate and its exports are read back."""

from __future__ import annotations

import csv

import pandas as pd
import pytest

from embedlab import paths
from embedlab.data.load import load_dataset
from embedlab.data.review import import_judgements
from embedlab.errors import ModelError
from embedlab.evaluation.budgets import Budgets
from embedlab.evaluation.params import EvaluateParams
from embedlab.models.load import load_model
from embedlab.models.loopback import on_loopback
from embedlab.runs import notebooks
from embedlab.sweeps.spec import expand, find_sweep, read_sweep
from tests.notebooks.outcomes import smoke_run

NOTEBOOK = paths.notebooks_dir() / "09_evaluate.ipynb"
CHAPTER = "Diseases of the blood and blood-forming organs and certain disorders involving the immune mechanism"


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return smoke_run(NOTEBOOK, tmp_path_factory.mktemp("runs"), probe_queries=20, high_risk=[CHAPTER])


@pytest.mark.notebook
class TestSmokeRun:
    def test_every_system_has_every_metric_on_the_same_queries(self, outcome):
        rows = [row for row in outcome.record.metrics if row.stage == "retrieval" and row.statistic == "value"]
        assert {(row.system, row.dim) for row in rows} == {
            ("bm25", None),
            *((system, dim) for system in ("base", "contrastive") for dim in (384, 64)),
        }
        assert {row.metric for row in rows} >= {"ndcg@10", "recall@10", "precision@10", "mrr@10", "map@10"}
        assert {row.n for row in rows} == {63}
        assert all(row.ci_low <= row.value <= row.ci_high for row in rows)

    def test_the_gain_is_the_difference_of_the_means(self, outcome):
        ndcg = {
            (row.system, row.dim, row.statistic): row.value
            for row in outcome.record.metrics
            if (row.task, row.metric) == ("retrieval", "ndcg@10")
        }
        tuned, base = ndcg["contrastive", 384, "value"], ndcg["base", 384, "value"]
        assert ndcg["contrastive", 384, "difference"] == pytest.approx(tuned - base)
        assert base != ndcg["base", 64, "value"]

    def test_the_gate_and_its_figure_agree(self, outcome):
        table = pd.read_csv(outcome.folder / "gate.csv", keep_default_na=False)
        assert {"overall", "length", "pydocs"} <= set(table["check"])
        passed = "fail" not in set(table["verdict"])
        assert outcome.record.notes["gate"]["passed"] is passed
        assert (outcome.folder / "gate.png").exists()

    def test_probes_neighbours_clusters_and_context_are_noted(self, outcome):
        stages = {(row.stage, row.task, row.system) for row in outcome.record.metrics}
        assert {("probe", "pydocs", "contrastive"), ("neighbours", "neighbours", "base")} <= stages
        assert ("context", "retrieval", "contrastive") in stages

    def test_curves_follow_every_split_from_before_the_first_step(self, outcome):
        curves = pd.read_csv(outcome.folder / "splits_while_training.csv")
        assert set(curves["split"]) == {"train", "dev", "test"} and curves["step"].min() == 0
        assert curves["step"].max() == 2

    def test_exports_come_back(self, outcome):
        page = (outcome.folder / "wins_and_losses.html").read_text(encoding="utf-8")
        assert "<script" in page and "https://" not in page
        with (outcome.folder / "review.csv").open(encoding="utf-8-sig", newline="") as file:
            assert {row["grade"] for row in csv.DictReader(file)} == {""}
        judged = import_judgements([outcome.folder / "review_filled.csv"], load_dataset("icd10cm:smoke")).grades
        assert 0 < len(judged) <= 50 and {grade for grades in judged.values() for grade in grades.values()} == {0, 1}

    def test_the_candidate_is_kept(self, outcome):
        assert (outcome.folder / "model").is_dir() and (outcome.folder / "train_log.csv").exists()
        prints = outcome.record.model_fingerprints
        assert prints.keys() == {"contrastive", "base"}  # equal where dev found no step better than none


@pytest.mark.notebook
def test_two_models_behind_an_api(tmp_path):
    """The same model under two names: no query may change, nothing is trained, and nothing is saved."""
    with on_loopback(load_model()) as closed:
        names = {"model_name": closed, "against": f"{closed}?input_type=none"}
        outcome = smoke_run(NOTEBOOK, tmp_path, **names, probe_queries=20)
    rows = outcome.record.metrics
    gains = [row for row in rows if row.metric == "ndcg@10" and row.statistic == "difference"]
    assert gains and all(abs(row.value) < 1e-6 for row in gains) and outcome.record.notes["gate"]["passed"]
    assert {row.system for row in rows if row.stage == "context"} == {"candidate", "base", "bm25"}
    assert not (outcome.folder / "model").exists()


def test_an_api_model_cannot_be_the_candidate_that_is_trained():
    known = {parameter.name: parameter.default for parameter in notebooks.parameters(NOTEBOOK)}
    params = EvaluateParams.checked({**known, "model_name": "openai:m", "against": "openai:m"})
    with pytest.raises(ModelError, match="nobody but its owner can change"):
        _ = params.trains_candidate


def test_parameters_and_sweep_fit_the_notebook():
    known = {parameter.name: parameter.default for parameter in notebooks.parameters(NOTEBOOK)}
    params = EvaluateParams.checked(known)
    assert params.trains_candidate and params.budgets() == Budgets()  # the notebook states the defaults of the gate
    other = EvaluateParams.checked({**known, "model_name": "other"})
    assert not other.trains_candidate and other.system == "candidate"
    runs = expand(read_sweep(find_sweep("evaluate")))
    assert len(runs) == 12 and {values["seed"] for values in runs} == {0, 1, 2}
