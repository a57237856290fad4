"""The notebook on other shapes of retriever at smoke size: systems, costs, shortlists, saved models."""

from __future__ import annotations

import pandas as pd
import pytest
from sentence_transformers import MultiVectorEncoder, SentenceTransformer, SparseEncoder

from embedlab import paths
from tests.notebooks.outcomes import rows, smoke_run

DENSE = {"base", "linear-probe", "contrastive", "asymmetric-distilled", "asymmetric", "static", "contrastive+static"}
DENSE |= {"labels-only", "distilled+tokens"}
OTHER = {"sparse-start", "sparse", "late-interaction-start", "late-interaction"}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    path = paths.notebooks_dir() / "15_retrievers.ipynb"
    return smoke_run(path, tmp_path_factory.mktemp("runs"), static_epochs=1.0, shortlist=20)


@pytest.mark.notebook
def test_every_system_is_measured_with_its_costs(outcome):
    measured = {row.system for row in outcome.record.metrics if row.metric == "ndcg@10" and row.statistic == "value"}
    assert measured == DENSE | OTHER | {"bm25", "hybrid", "contrastive+sparse"}
    for against in ("base", "bm25", "hybrid", "contrastive"):
        later = (DENSE | OTHER | {"contrastive+sparse"}) - {"base", "linear-probe", "contrastive"}
        assert later <= set(rows(outcome, "ndcg@10", against=against))
    size = {system: row.value for system, row in rows(outcome, "bytes_per_document").items()}
    assert set(size) == DENSE | OTHER
    width = {system: size[system] / 4 for system in DENSE}
    assert width.pop("contrastive+static") == 768  # 400 documents are too few to project it to 384 dimensions
    assert set(width.values()) == {384}
    vectors = rows(outcome, "tokens_per_document")["late-interaction"].value
    terms = rows(outcome, "terms_per_document")["sparse"].value
    assert size["late-interaction"] == pytest.approx(2 * 128 * vectors) and size["sparse"] == pytest.approx(8 * terms)
    speed = {system: row.value for system, row in rows(outcome, "milliseconds_per_query").items()}
    assert speed["asymmetric"] < speed["contrastive"] and set(speed) == DENSE | OTHER
    encoded = {system: row.value for system, row in rows(outcome, "texts_per_second").items()}
    assert encoded["static"] > encoded["contrastive"] > 0 and set(encoded) == DENSE | OTHER
    table = pd.read_csv(outcome.folder / "retrievers.csv")
    assert set(table["system"]) == DENSE | OTHER | {"contrastive+sparse"}


@pytest.mark.notebook
def test_shortlists_are_conditions_of_late_interaction(outcome):
    conditions = {row.condition for row in outcome.record.metrics if row.stage == "search" and row.metric == "ndcg@10"}
    assert conditions == {f"first 20 of {name}" for name in ("tokens (FAISS)", "bm25", "base", "sparse")}


@pytest.mark.notebook
def test_models_load_without_this_package(outcome):
    folder = outcome.folder / "model"
    sparse = SparseEncoder(str(folder / "sparse"), device="cpu")
    terms = (folder / "sparse" / "terms.txt").read_text(encoding="utf-8").split("\n")
    assert len(terms) == sparse.encode_document(["Cholera"]).shape[1]
    colbert = MultiVectorEncoder(str(folder / "late-interaction"), device="cpu")
    assert colbert.encode_query(["Cholera"])[0].shape[1] == 128
    joined = SentenceTransformer(str(folder / "asymmetric"), device="cpu")
    assert joined.encode_query(["Cholera"]).shape == joined.encode_document(["Cholera"]).shape == (1, 384)


@pytest.mark.notebook
def test_training_times_add_up_and_the_front_holds_the_best_and_the_cheapest(outcome):
    points = pd.read_csv(outcome.folder / "pareto.csv").set_index("system")
    seconds = points["training_seconds_in_all"]
    assert seconds["base"] == 0 < seconds["linear-probe"]
    assert seconds["contrastive+static"] == pytest.approx(seconds["contrastive"] + seconds["static"])
    assert seconds["contrastive+sparse"] == pytest.approx(seconds["contrastive"] + seconds["sparse"])
    assert seconds["labels-only"] > seconds["contrastive"]
    front = points.index[points["front"].fillna(False).astype(bool)]
    measured = points.dropna(subset=["bytes_per_document"])
    assert {measured["nDCG@10"].idxmax(), measured["bytes_per_document"].idxmin()} <= set(front)
    assert pd.isna(points.loc["contrastive+sparse", "front"])
