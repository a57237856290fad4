"""The diagnosis notebook, executed once at smoke size, its record and files read back."""

from __future__ import annotations

import pandas as pd
import pytest

from embedlab import paths
from embedlab.evaluation.diagnose.failures import NAMES
from embedlab.sweeps.spec import expand, find_sweep, read_sweep
from tests.notebooks.outcomes import rows, run

SMOKE = {"dataset": "icd10cm:smoke", "max_steps": 3, "chunkings": ["3", "4+1"], "filter_field": "chapter"}
REMEDIES = {
    "centring",
    "prompts",
    "enrichment",
    "bm25",
    "feedback",
    "hybrid",
    "chunking",
    "filter",
    "linear-probe",
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return run(paths.notebooks_dir() / "01_diagnose.ipynb", tmp_path_factory.mktemp("runs"), **SMOKE)


@pytest.mark.notebook
class TestRun:
    def test_every_remedy_is_compared_with_the_base_model_on_the_same_queries(self, outcome):
        values, gains = rows(outcome, "ndcg@10"), rows(outcome, "ndcg@10", against="base")
        assert set(values) == {"base"} | REMEDIES and set(gains) == REMEDIES
        for row in [*values.values(), *gains.values()]:
            assert (row.split, row.n) == ("test", 63)
            assert row.ci_low <= row.value <= row.ci_high
        for name in REMEDIES:
            assert gains[name].value == pytest.approx(values[name].value - values["base"].value)

    def test_chunking_changes_the_ranking(self, outcome):
        values = {system: row.value for system, row in rows(outcome, "ndcg@10").items()}
        assert values["chunking"] != values["base"]
        assert values["filter"] == values["base"]  # the smoke set has one chapter

    def test_causes_add_up_to_the_misses_of_the_base_model(self, outcome):
        causes = outcome.record.notes["causes"]
        per_query = pd.read_parquet(outcome.folder / "per_query.parquet")
        base = per_query[per_query["system"] == "base"]
        without_answer = set(base.loc[base["recall@10"] == 0, "query_id"])
        missed = pd.read_csv(outcome.folder / "missed.csv")
        assert list(causes) == list(NAMES) and sum(causes.values()) == len(missed)
        assert set(missed["query_id"]) == without_answer
        drawn_causes = pd.read_csv(outcome.folder / "causes.csv").set_index("cause")["n"]
        assert drawn_causes.to_dict() == causes

    def test_the_verdict_is_recorded_with_its_evidence(self, outcome):
        notes = outcome.record.notes
        assert notes["action"] in notes["verdict"] and notes["thresholds"]["good_enough"] == 0.85
        assert notes["train_pairs"] == 321
        assert notes["left_out"] == {}
        assert set(notes["seconds"]) == REMEDIES - {"linear-probe"} | {"fine-tune"}
        trials = pd.read_csv(outcome.folder / "trials.csv")
        assert trials.groupby("kind")["chosen"].sum().eq(1).all()
        for name in ("gain_by_remedy", "gain_by_training_queries", "causes"):
            assert (outcome.folder / f"{name}.png").exists() and (outcome.folder / f"{name}.csv").exists()


def test_the_sweep_fits_the_notebook():
    path = find_sweep("diagnose")
    assert len(expand(read_sweep(path), path)) == 18
