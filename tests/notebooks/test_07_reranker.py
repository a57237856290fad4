"""The reranker notebook at smoke size: three orders and two students on one split, and models that load."""

from __future__ import annotations

import pandas as pd
import pytest
from sentence_transformers import CrossEncoder, SentenceTransformer

from embedlab import paths
from tests.notebooks.outcomes import rows, smoke_run

NOTEBOOK = paths.notebooks_dir() / "07_reranker.ipynb"
ORDERS = {"tuned", "cross-encoder", "cross-encoder and tuned"}
PAIRS = [("cholera", "Cholera, unspecified"), ("cholera", "Fracture of femur")]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return smoke_run(NOTEBOOK, tmp_path_factory.mktemp("runs"), depth=4, negatives=2)


@pytest.mark.notebook
class TestReranker:
    def test_every_order_and_student_has_its_interval(self, outcome):
        found = rows(outcome, "ndcg@10")
        assert ORDERS | {"bm25", "base", "labelled", "scored"} <= found.keys()
        assert {"cross-encoder and tuned - tuned", "cross-encoder - tuned", "scored - labelled"} <= found.keys()
        for row in found.values():
            assert row.ci_low <= row.value <= row.ci_high and row.n == 63

    def test_a_new_order_finds_no_more_and_no_less(self, outcome):
        found = rows(outcome, "recall@100")
        assert len({found[name].value for name in ORDERS}) == 1
        assert found["tuned"].value != found["base"].value

    def test_the_share_is_the_best_on_dev(self, outcome):
        table = pd.read_csv(outcome.folder / "quality_by_share.csv").set_index("share")["ndcg@10"]
        share = outcome.record.notes["share_of_the_embedding_model"]
        assert table[share] == table.max() and len(table) == 6

    def test_the_cross_encoder_loads_with_its_code(self, outcome):
        folder = outcome.folder / "model" / "reranker"
        scores = CrossEncoder(str(folder), device="cpu", trust_remote_code=True).predict(PAIRS)
        assert scores.shape == (2,) and scores[0] > scores[1]

    def test_students_load_as_stock_models(self, outcome):
        vectors = [
            SentenceTransformer(str(outcome.folder / "model" / name), device="cpu").encode(["cholera"])
            for name in ("labelled", "scored")
        ]
        assert vectors[0].shape == (1, 384) and abs(vectors[0] - vectors[1]).max() > 0

    def test_costs_and_calibration_are_recorded(self, outcome):
        assert rows(outcome, "milliseconds_per_query")["cross-encoder"].value > 0
        assert outcome.record.notes["temperature"] > 0 and 0 <= outcome.record.notes["picks_the_answer"] <= 1
