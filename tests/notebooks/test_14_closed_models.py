"""The notebook on closed models at smoke size: systems, costs, saved adapters, and no key anywhere."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest
from sentence_transformers import SentenceTransformer

from embedlab import paths
from embedlab.data.load import load_dataset
from embedlab.models.evidence import read, require_same_files
from embedlab.models.load import open_model
from tests.notebooks.outcomes import leaks, rows, smoke_run

KEY = "sk-SECRET-KEY-12345"
KINDS = ["query-linear", "mlp"]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    path = paths.notebooks_dir() / "14_closed_models.ipynb"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", KEY)
        # The closed model itself is the replacement: what survives must be what was measured before.
        changes = {"kinds": KINDS, "static_epochs": 1.0, "replacement": "all-MiniLM-L6-v2"}
        return smoke_run(path, tmp_path_factory.mktemp("runs"), **changes)


@pytest.mark.notebook
def test_every_system_is_measured_with_its_costs(outcome):
    systems = {"base", "adapter-query-linear", "adapter-mlp", "static-distilled", "static", "base+static"}
    measured = rows(outcome, "ndcg@10", split="test", task="retrieval")
    assert set(measured) == systems | {"bm25"} and all(row.n == 63 for row in measured.values())
    assert set(rows(outcome, "ndcg@10", against="base", task="retrieval")) == systems - {"base"}
    assert set(rows(outcome, "ndcg@10", against="base", stage="forgetting")) == systems - {"base"}
    rewritten = {system: row.value for system, row in rows(outcome, "documents rewritten").items()}
    assert rewritten["adapter-query-linear"] == 0 < rewritten["adapter-mlp"] == rewritten["base+static"]
    cost = {system: row.value for system, row in rows(outcome, "cost of 1,000 queries").items()}
    assert cost["static"] == 0 < cost["base"] == cost["adapter-mlp"]
    size = {system: row.value for system, row in rows(outcome, "bytes per document").items()}
    assert size["base+static"] == size["base"] + size["static"]
    assert len(pd.read_csv(outcome.folder / "closed_models.csv")) == len(systems)


@pytest.mark.notebook
def test_the_same_model_as_replacement_changes_nothing(outcome):
    before = rows(outcome, "ndcg@10", split="test", stage="retrieval")
    after = rows(outcome, "ndcg@10", split="test", stage="model change")
    assert set(after) == {"base", "adapter-query-linear", "adapter-mlp", "base+static"}
    assert all(row.value == pytest.approx(before[system].value, abs=1e-6) for system, row in after.items())
    gains = rows(outcome, "ndcg@10", against="base", stage="model change")
    assert set(gains) == set(after) - {"base"}


@pytest.mark.notebook
def test_what_is_saved_loads_and_holds_no_key(outcome):
    folder = outcome.folder / "model"
    for kind in KINDS:
        about = json.loads((folder / f"adapter-{kind}" / "adapter.json").read_text())
        assert about["kind"] == kind and open_model(str(folder / f"adapter-{kind}")).adapter.kind == kind
    assert SentenceTransformer(str(folder / "static"), device="cpu").get_embedding_dimension() == 384
    concatenated = open_model(str(folder / "base+static"))
    assert concatenated.static.share == outcome.record.notes["static_share"]
    assert concatenated.static.weights.shape[1] == 384
    gains = rows(outcome, "ndcg@10", against="base", stage="retrieval")
    for system in ("base+static", *(f"adapter-{kind}" for kind in KINDS)):
        evidence, card = read(folder / system), (folder / system / "README.md").read_text()
        require_same_files(evidence, folder / system)
        assert (
            evidence.model.kind == "ApiModel"
            and evidence.model.fingerprint == outcome.record.model_fingerprints[system]
        )
        assert evidence.gains[0].value == gains[system].value and any(
            task.task == "pydocs" for task in evidence.other_tasks
        )
        assert "AdaptedModel" in card and "embedlab verify" in card and "library_name" not in card
    card = (folder / "static" / "README.md").read_text()
    assert "was not measured" not in card and "pydocs" in card and "openai:" in card
    files = [file for file in outcome.folder.rglob("*") if file.is_file()]
    assert len(files) > 10 and not any(b"SECRET" in file.read_bytes() for file in files)


@pytest.mark.notebook
def test_a_planted_text_and_a_planted_key_are_found(outcome, tmp_path):
    run = shutil.copytree(outcome.folder, tmp_path / "run")
    assert leaks(run) == []
    text = max(load_dataset("icd10cm:smoke").corpus.values(), key=len)
    for name, content in {
        "record.json": text,
        "model/static/README.md": text,
        "executed.ipynb": "sk-abcdefghijklmnopqrst",
    }.items():
        (run / name).write_text(f"{(run / name).read_text()}{content}")
    assert [found.split(":")[0] for found in leaks(run)] == ["record.json", "model/static/README.md", "executed.ipynb"]
