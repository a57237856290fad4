"""The contrastive notebook at smoke size: its page on losses, its mining, its adapter, and any model by its folder."""

from __future__ import annotations

import pandas as pd
import pytest
from sentence_transformers import SentenceTransformer

from embedlab import paths
from embedlab.training.contrastive.mining import MiningReport
from tests.conftest import tiny_model
from tests.notebooks.outcomes import rows, smoke_run


def execute(folder, **changes):
    return smoke_run(paths.notebooks_dir() / "03_contrastive.ipynb", folder, **changes)


def sizes(outcome):
    return {row.metric: row.value for row in outcome.record.metrics if row.stage == "footprint"}


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    changes = {"lora_rank": 4, "loss": "gist", "negatives": ["bm25", "base"], "hard_negatives": 2}
    return execute(tmp_path_factory.mktemp("runs"), **changes)


@pytest.mark.notebook
def test_page_on_losses(adapted):
    forces = pd.read_csv(adapted.folder / "loss_gradients.csv")
    assert (adapted.folder / "loss_gradients.png").exists()
    largest = forces.groupby("loss")["gradient_negative"].max()
    assert largest["infonce"] > 19 and largest["triplet"] == pytest.approx(1)
    released = forces[(forces["loss"] == "gist") & (forces["negative"] > 0.6)]
    assert len(released) and (released["gradient_negative"] == 0).all()


@pytest.mark.notebook
def test_mining_is_reported_by_source(adapted):
    reports = {source: MiningReport(**report) for source, report in adapted.record.notes["mining"].items()}
    assert set(reports) == {"bm25", "base"}
    pairs = {report.pairs for report in reports.values()}
    assert len(pairs) == 1 and 0 < reports["base"].full <= pairs.pop()
    assert reports["base"].is_positive > 0


@pytest.mark.notebook
def test_adapter_is_small_and_merged_into_a_plain_model(adapted):
    whole = sum(parameter.numel() for parameter in SentenceTransformer(str(adapted.folder / "model")).parameters())
    footprint = sizes(adapted)
    assert footprint["trainable parameters"] < 0.02 * whole
    assert footprint["adapter bytes"] == pytest.approx(4 * footprint["trainable parameters"], rel=0.1)
    assert footprint["training bytes"] < 0.35 * 16 * whole
    assert (adapted.folder / "adapter" / "adapter_model.safetensors").exists()
    assert not (adapted.folder / "model" / "adapter_config.json").exists()


@pytest.mark.notebook
def test_probe_is_recorded_with_its_interval(adapted):
    row = rows(adapted, "ndcg@10", "base", stage="probe", task="pydocs")["contrastive"]
    assert row.n == 100 and row.ci_low <= row.value <= row.ci_high


@pytest.mark.notebook
def test_any_model_by_its_folder_with_its_prompts_renewed_negatives_and_graded_pairs(tmp_path):
    model = tiny_model()
    model.prompts = {"query": "query: ", "document": "passage: "}
    model.save_pretrained(str(tmp_path / "prompted"))
    own = {"model_name": str(tmp_path / "prompted"), "matryoshka_dims": [32, 8], "linear_start": 0.0}
    renewed = execute(tmp_path / "runs", **own, negatives=["self", "expert"], batch_size=64, max_steps=5)
    graded = execute(tmp_path / "runs", **own, loss="cosent")
    for outcome in (renewed, graded):
        assert SentenceTransformer(str(outcome.folder / "model")).prompts["query"] == "query: "
        assert sizes(outcome)["trainable parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert renewed.record.run_id != graded.record.run_id
    assert list(renewed.record.notes["mining"]) == ["self"]
