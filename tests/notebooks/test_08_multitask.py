"""The notebook on several tasks and forgetting, at smoke size: every recipe on every task, the curve, the choice."""

from __future__ import annotations

import pandas as pd
import pytest
from sentence_transformers import SentenceTransformer

from embedlab import paths
from embedlab.runs import notebooks
from embedlab.sweeps.spec import expand, find_sweep, read_sweep
from embedlab.training.multitask.train import MultitaskParams
from tests.conftest import tiny_model
from tests.notebooks.outcomes import smoke_run

NOTEBOOK = paths.notebooks_dir() / "08_multitask.ipynb"
RECIPES = {"retrieval", "multi-task", "layer decay", "replay", "anchor"}
MODELS = RECIPES | {"table"}
METRICS = {"retrieval": "ndcg@10", "similarity": "cosine_spearman", "classification": "accuracy"}
METRICS |= {"clustering": "v_measure", "pydocs": "ndcg@10"}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Parameters with a tiny random base model: five trainings, and a dozen models to judge."""
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
    def test_every_model_is_judged_on_every_task(self, rows):
        for task, metric in METRICS.items():
            values = rows[(rows["task"] == task) & (rows["metric"] == metric)].set_index("model")["value"]
            for name in MODELS:
                assert values[f"{name} - base"] == pytest.approx(values[name] - values["base"], abs=1e-6)
            assert -1 <= values["base"] <= 1

    def test_differences_carry_their_intervals(self, rows):
        found = rows[rows["model"].str.endswith(" - base") & rows["metric"].isin(METRICS.values())]
        assert len(found) == len(MODELS) * len(METRICS) + 2
        assert ((found["ci_low"] <= found["value"]) & (found["value"] <= found["ci_high"])).all()

    def test_the_curve_begins_at_the_base_model(self, outcome):
        table = pd.read_csv(outcome.folder / "trade_off.csv").set_index("name")
        mixed = {f"{share}% retrieval" for share in (0, 25, 50, 75, 100)}
        beside = {f"{name} + table" for name in mixed}
        assert set(table.index) == mixed | beside | RECIPES - {"retrieval"} | {"cocktail"}
        assert tuple(table.loc["0% retrieval", ["gain", "change"]]) == (0, 0)
        assert (outcome.folder / "trade_off.png").exists()

    def test_the_choice_is_the_best_within_the_budget(self, outcome):
        table = pd.read_csv(outcome.folder / "trade_off.csv").set_index("name")
        affordable = table[table["change"] >= -outcome.record.parameters["forgetting_budget"]]
        assert affordable.loc[outcome.record.notes["chosen"], "gain"] == affordable["gain"].max()

    def test_cocktail_is_a_mixture(self, outcome):
        assert set(outcome.record.notes["losses"]) == RECIPES | {"base"}
        assert sum(outcome.record.notes["mixture"].values()) == pytest.approx(1)

    def test_the_mixture_is_kept_as_a_plain_model(self, outcome):
        model = SentenceTransformer(str(outcome.folder / "model"), device="cpu", trust_remote_code=True)
        assert model.encode(["anemia"]).shape == (1, 32)
        log = pd.read_csv(outcome.folder / "train_log.csv")
        assert set(log["recipe"]) == MODELS and log["step"].max() == 2


@pytest.mark.notebook
def test_a_tuned_model_is_traded_off_and_only_the_table_trained(smoke, tmp_path):
    tuned = tiny_model()
    for weights in tuned.parameters():
        weights.data += 0.01
    tuned.save_pretrained(str(tmp_path / "tuned"))
    values = {**smoke, "tuned_model": str(tmp_path / "tuned"), "forgetting_budget": 1.0}
    found = smoke_run(NOTEBOOK, tmp_path / "runs", **values)
    table = pd.read_csv(found.folder / "trade_off.csv")
    line = [f"{share}% tuned" for share in (0, 25, 50, 75, 100)]
    assert list(table["name"]) == [*line, "cocktail", *(f"{name} + table" for name in line)]
    assert set(pd.read_csv(found.folder / "train_log.csv")["recipe"]) == {"table"}


def test_parameters_and_sweeps_fit_the_notebook():
    known = {parameter.name: parameter.default for parameter in notebooks.parameters(NOTEBOOK)}
    MultitaskParams.checked(known)
    for name in ("multitask", "forgetting"):
        runs = expand(read_sweep(find_sweep(name)))
        assert {values["seed"] for values in runs} == {0}
