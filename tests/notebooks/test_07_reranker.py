"""The reranker notebook at smoke size: three rankings and two students on one split, and models that load."""

from __future__ import annotations

import pandas as pd
import pytest
from sentence_transformers import CrossEncoder, SentenceTransformer

from embedlab import paths
from tests.notebooks.outcomes import smoke_run

NOTEBOOK = paths.notebooks_dir() / "07_reranker.ipynb"
RANKINGS = {"contrastive", "reranker", "reranker+contrastive"}
PAIRS = [("cholera", "Cholera, unspecified"), ("cholera", "Fracture of femur")]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return smoke_run(NOTEBOOK, tmp_path_factory.mktemp("runs"), depth=4, negatives=2)


def values(outcome, metric):
    return {r.system: r for r in outcome.record.metrics if r.metric == metric and r.statistic == "value"}


@pytest.mark.notebook
class TestReranker:
    def test_every_ranking_and_student_has_its_interval(self, outcome):
        systems = values(outcome, "ndcg@10")
        pairs = {(r.system, r.against): r for r in outcome.record.metrics if r.statistic == "difference"}
        assert RANKINGS | {"bm25", "base", "labels-only", "distilled+scores"} == systems.keys()
        assert {("reranker+contrastive", "contrastive"), ("distilled+scores", "labels-only")} <= pairs.keys()
        for row in [*systems.values(), *pairs.values()]:
            assert row.ci_low <= row.value <= row.ci_high and row.n == 63
        assert systems["reranker"].condition == "first 4 documents"

    def test_reranking_keeps_the_same_documents(self, outcome):
        recall = values(outcome, "recall@100")
        assert len({recall[name].value for name in RANKINGS}) == 1
        assert recall["contrastive"].value != recall["base"].value

    def test_the_share_is_the_best_on_dev(self, outcome):
        curve = pd.read_csv(outcome.folder / "quality_by_share.csv").set_index("embedding_share")["ndcg@10"]
        assert curve[outcome.record.notes["embedding_share"]] == curve.max() and len(curve) == 6

    def test_the_cross_encoder_loads_with_its_code(self, outcome):
        folder = outcome.folder / "model" / "reranker"
        scores = CrossEncoder(str(folder), device="cpu", trust_remote_code=True).predict(PAIRS)
        assert scores.shape == (2,) and scores[0] > scores[1]
        assert set(outcome.record.model_fingerprints) == {"base", "reranker", "labels-only", "distilled+scores"}

    def test_students_load_as_stock_models(self, outcome):
        vectors = [
            SentenceTransformer(str(outcome.folder / "model" / name), device="cpu").encode(["cholera"])
            for name in ("labelled", "scored")
        ]
        assert vectors[0].shape == (1, 384) and abs(vectors[0] - vectors[1]).max() > 0

    def test_costs_and_calibration_are_recorded(self, outcome):
        assert values(outcome, "milliseconds_per_query")["reranker"].value > 0
        notes = outcome.record.notes
        assert notes["temperature"] > 0 and 0 <= notes["held_out_accuracy"] <= 1
