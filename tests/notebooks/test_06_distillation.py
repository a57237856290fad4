"""The distillation notebook at smoke size: every student on the leaderboard, with intervals, costs and saved models."""

from __future__ import annotations

import pandas as pd
import pytest
from sentence_transformers import SentenceTransformer

from embedlab import paths
from embedlab.evaluation.static_share import SHARES
from embedlab.models.load import load_model
from embedlab.models.loopback import on_loopback
from tests.notebooks.outcomes import smoke_run

NOTEBOOK = paths.notebooks_dir() / "06_distillation.ipynb"
STUDENTS = {
    "contrastive+static",
    "distilled",
    "distilled+labels",
    "distilled+scores",
    "distilled-narrow",
    "static",
    "static-distilled",
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return smoke_run(NOTEBOOK, tmp_path_factory.mktemp("runs"))


def values(outcome, metric):
    """System -> its row of `metric` at full width."""
    rows = [row for row in outcome.record.metrics if row.metric == metric and row.statistic == "value"]
    return {row.system: row for row in sorted(rows, key=lambda row: row.dim or 0)}


def differences(outcome):
    return {(r.system, r.against): r for r in outcome.record.metrics if r.statistic == "difference"}


@pytest.mark.notebook
class TestDistillation:
    def test_every_system_is_recorded_with_its_interval(self, outcome):
        systems, pairs = values(outcome, "ndcg@10"), differences(outcome)
        assert {"bm25", "base", "contrastive", "layers-removed", "reranker+distilled+scores"} | STUDENTS == set(systems)
        assert {(student, "contrastive") for student in STUDENTS} <= pairs.keys()
        assert {("contrastive", "base"), ("distilled+scores", "distilled+labels"), ("static", "bm25")} <= pairs.keys()
        for row in [*systems.values(), *pairs.values()]:
            assert row.ci_low <= row.value <= row.ci_high and row.n == 63
        assert systems["distilled"].condition == "3 layers" and systems["static"].condition == ""

    def test_static_models_are_recorded_at_every_width(self, outcome):
        dims = {(r.system, r.dim) for r in outcome.record.metrics if r.metric == "ndcg@10" and r.statistic == "value"}
        for system, width in (("static", 384), ("contrastive+static", 768)):  # 400 documents are too few to project
            assert {(system, dim) for dim in (width, 256, 128, 64, 32, 16)} <= dims

    def test_costs_are_in_the_expected_order(self, outcome):
        parameters, speed = values(outcome, "parameters"), values(outcome, "texts_per_second")
        assert {row.stage for row in speed.values()} == {"footprint"}
        assert parameters["distilled"].value < parameters["contrastive"].value == parameters["base"].value
        assert parameters["distilled-narrow"].value == parameters["distilled"].value + 384 * 128
        assert parameters["static"].value == 30522 * 384
        assert speed["static"].value > speed["contrastive"].value

    def test_students_start_from_their_teacher_and_not_from_noise(self, outcome):
        """Two steps teach almost nothing; the quality comes from the teacher's layers and token vectors."""
        systems = values(outcome, "ndcg@10")
        assert systems["static-distilled"].value > 0.3 * systems["contrastive"].value
        assert 0 < systems["distilled-narrow"].value <= 1

    def test_files(self, outcome):
        files = {file.name for file in outcome.folder.iterdir()}
        assert {"executed.ipynb", "train_log.csv", "per_query.parquet", "pareto.png", "pareto.csv", "model"} <= files
        table = pd.read_csv(outcome.folder / "pareto.csv")
        assert table["front"].any() and table["value"].between(0, 1).all()

    def test_students_load_as_stock_models(self, outcome):
        folders = {"teacher", "layers", "narrow", "static", "static-distilled", "both", "labelled", "scored"}
        assert {folder.name for folder in (outcome.folder / "model").iterdir()} == folders
        for name in folders - {"both"}:
            model = SentenceTransformer(str(outcome.folder / "model" / name), device="cpu")
            assert model.encode(["cholera"]).shape == (1, 128 if name == "narrow" else 384)
        assert {"distilled", "contrastive+static"} <= outcome.record.model_fingerprints.keys()

    def test_word_overlap_and_share_are_noted(self, outcome):
        slices = outcome.record.notes["static_against_teacher_by_shared_words"]
        assert sum(row["n"] for row in slices) == 63
        assert outcome.record.notes["static_share"] in SHARES


@pytest.mark.notebook
def test_a_model_behind_an_api_teaches(tmp_path):
    """The same students as from a local teacher, without its weights, and nothing is saved or timed of it."""
    with on_loopback(load_model()) as teacher:
        outcome = smoke_run(NOTEBOOK, tmp_path, teacher=teacher, students=["layers", "both"])
    systems, pairs = values(outcome, "ndcg@10"), differences(outcome)
    students = {"distilled", "static", "static-distilled"}
    assert set(systems) == {"bm25", "base", "layers-removed", "closed"} | students
    assert {(student, "closed") for student in students} | {("closed", "base")} <= pairs.keys()
    assert systems["closed"].value == pytest.approx(systems["base"].value)  # the same model, over HTTP
    assert "closed" not in values(outcome, "texts_per_second")
    saved = {folder.name for folder in (outcome.folder / "model").iterdir()}
    assert saved == {"layers", "static", "static-distilled"}
