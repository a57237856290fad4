"""The distillation notebook at smoke size: every student in one table, with intervals, costs and plain models."""

from __future__ import annotations

import pandas as pd
import pytest
from sentence_transformers import SentenceTransformer

from embedlab import paths
from tests.notebooks.outcomes import rows, smoke_run

NOTEBOOK = paths.notebooks_dir() / "06_distillation.ipynb"
STUDENTS = {"both", "layers", "narrow", "static", "static, distilled only", "scored", "labelled"}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return smoke_run(NOTEBOOK, tmp_path_factory.mktemp("runs"))


@pytest.mark.notebook
class TestDistillation:
    def test_every_model_is_in_the_table_with_its_interval(self, outcome):
        found = rows(outcome, "ndcg@10")
        assert {"bm25", "base", "teacher", "cross-encoder over scored"} | STUDENTS <= found.keys()
        assert {f"{student} - teacher" for student in STUDENTS} <= found.keys()
        assert {"scored - labelled", "labelled - layers", "static - base"} <= found.keys()
        for row in found.values():
            assert row.ci_low <= row.value <= row.ci_high and row.n == 63

    def test_costs_are_in_the_order_they_must_be(self, outcome):
        parameters, speed = rows(outcome, "parameters"), rows(outcome, "texts_per_second")
        assert parameters["layers"].value < parameters["teacher"].value == parameters["base"].value
        assert parameters["narrow"].value == parameters["layers"].value + 384 * 128
        assert parameters["static"].value == 30522 * 384
        assert speed["static"].value > speed["teacher"].value

    def test_the_start_of_a_student_is_its_teacher_and_not_noise(self, outcome):
        """Two steps teach nothing; what ranks already comes from the teacher's layers and the piece vectors."""
        found = rows(outcome, "ndcg@10")
        assert found["static, distilled only"].value > 0.3 * found["teacher"].value
        assert 0 < found["narrow"].value <= 1

    def test_files(self, outcome):
        files = {file.name for file in outcome.folder.iterdir()}
        assert {"executed.ipynb", "train_log.csv", "per_query.parquet", "pareto.png", "pareto.csv", "model"} <= files
        table = pd.read_csv(outcome.folder / "pareto.csv")
        assert table["front"].any() and table["value"].between(0, 1).all()

    def test_students_load_as_stock_models(self, outcome):
        for name in ("layers", "narrow", "static", "labelled", "scored"):
            model = SentenceTransformer(str(outcome.folder / "model" / name), device="cpu")
            dimension = 128 if name == "narrow" else 384
            assert model.encode(["cholera"]).shape == (1, dimension)

    def test_failures_are_noted_by_shared_words(self, outcome):
        slices = outcome.record.notes["static_minus_teacher_by_shared_words"]
        assert sum(row["n"] for row in slices) == 63
