"""The notebook on several tasks and forgetting, at smoke size: every recipe on every task, the curve, the choice."""

from __future__ import annotations

import pandas as pd
import pytest
from sentence_transformers import SentenceTransformer

from embedlab import paths
from embedlab.runs import notebooks
from embedlab.sweeps.spec import expand, find_sweep, read_sweep
from embedlab.training.multitask import RECIPES, MultitaskParams
from tests.conftest import tiny_model
from tests.notebooks.outcomes import smoke_run

NOTEBOOK = paths.notebooks_dir() / "08_multitask.ipynb"
METRICS = {"retrieval": "ndcg@10", "similarity": "cosine_spearman", "classification": "accuracy"}
METRICS |= {"clustering": "v_measure", "pydocs": "ndcg@10"}
MODELS = {*RECIPES, "base+static"}
STEPS = (0, 25, 50, 75, 100)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Parameters with a tiny random base model: five trainings, and a dozen models to score."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_model().save_pretrained(str(folder))
    return {"model_name": str(folder)}


@pytest.fixture(scope="module")
def outcome(smoke, tmp_path_factory):
    return smoke_run(NOTEBOOK, tmp_path_factory.mktemp("runs"), **smoke)


@pytest.fixture(scope="module")
def rows(outcome):
    return pd.DataFrame([row.model_dump() for row in outcome.record.metrics])


@pytest.mark.notebook
class TestSmokeRun:
    def test_every_model_is_scored_on_every_task(self, rows):
        for task, metric in METRICS.items():
            scores = rows[(rows["task"] == task) & (rows["metric"] == metric) & (rows["condition"] == "")]
            values = scores[scores["statistic"] == "value"].set_index("system")["value"]
            differences = scores[scores["statistic"] == "difference"].set_index("system")["value"]
            assert set(differences.index) == MODELS and set(values.index) >= MODELS | {"base"}
            for name in MODELS:
                assert differences[name] == pytest.approx(values[name] - values["base"], abs=1e-6)

    def test_differences_have_intervals(self, rows):
        differences = rows[rows["statistic"] == "difference"]
        assert len(differences) == len(MODELS) * len(METRICS) + 2
        assert (differences["against"] == "base").all()
        assert (differences["ci_low"] <= differences["value"]).all()
        assert (differences["value"] <= differences["ci_high"]).all()

    def test_the_curve_begins_at_the_base_model(self, outcome):
        table = pd.read_csv(outcome.folder / "trade_off.csv").set_index("name")
        averages = {f"{share}% retrieval-only" for share in STEPS}
        with_static = {f"{name} + static" for name in averages}
        assert set(table.index) == averages | with_static | {*RECIPES} - {"retrieval-only"} | {"weighted average"}
        assert tuple(table.loc["0% retrieval-only", ["gain", "change"]]) == (0, 0)
        assert (outcome.folder / "trade_off.png").exists()

    def test_the_choice_is_the_best_within_the_budget(self, outcome):
        table = pd.read_csv(outcome.folder / "trade_off.csv").set_index("name")
        affordable = table[table["change"] >= -outcome.record.parameters["forgetting_budget"]]
        assert affordable.loc[outcome.record.notes["chosen"], "gain"] == affordable["gain"].max()

    def test_the_weights_of_the_mixture_add_up(self, outcome):
        assert set(outcome.record.notes["losses"]) == {*RECIPES, "base"}
        assert sum(outcome.record.notes["mixture"].values()) == pytest.approx(1)

    def test_the_mixture_is_saved_as_a_plain_model(self, outcome):
        model = SentenceTransformer(str(outcome.folder / "model"), device="cpu", trust_remote_code=True)
        assert model.encode(["anemia"]).shape == (1, 32)
        log = pd.read_csv(outcome.folder / "train_log.csv")
        assert set(log["recipe"]) == MODELS and log["step"].max() == 2


@pytest.mark.notebook
def test_with_a_tuned_model_only_the_static_part_is_trained(smoke, tmp_path):
    tuned = tiny_model()
    for weights in tuned.parameters():
        weights.data += 0.01
    tuned.save_pretrained(str(tmp_path / "tuned"))
    values = {**smoke, "tuned_model": str(tmp_path / "tuned"), "forgetting_budget": 1.0}
    outcome = smoke_run(NOTEBOOK, tmp_path / "runs", **values)
    table = pd.read_csv(outcome.folder / "trade_off.csv")
    averages = [f"{share}% contrastive" for share in STEPS]
    assert list(table["name"]) == [*averages, "weighted average", *(f"{name} + static" for name in averages)]
    assert set(pd.read_csv(outcome.folder / "train_log.csv")["recipe"]) == {"base+static"}


def test_parameters_and_sweeps_fit_the_notebook():
    known = {parameter.name: parameter.default for parameter in notebooks.parameters(NOTEBOOK)}
    MultitaskParams.checked(known)
    for name in ("multitask", "forgetting"):
        runs = expand(read_sweep(find_sweep(name)))
        assert {values["seed"] for values in runs} == {0}
