"""The quickstart at smoke size: every system with its interval, the reading of this run, and a model that loads."""

from __future__ import annotations

import re

import nbformat
import numpy as np
import pandas as pd
import pytest
from sentence_transformers import SentenceTransformer

from embedlab import load_model, paths
from embedlab.runs import notebooks
from tests.notebooks.outcomes import smoke_run

NOTEBOOK = paths.notebooks_dir() / "00_quickstart.ipynb"


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return smoke_run(NOTEBOOK, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def outputs(outcome):
    """Every output of the executed notebook."""
    cells = nbformat.read(outcome.folder / "executed.ipynb", as_version=4).cells
    return [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.notebook
class TestQuickstart:
    def test_every_system_has_a_value_with_its_interval(self, outcome):
        rows = [r for r in outcome.record.metrics if r.metric == "ndcg@10" and r.statistic == "value"]
        assert [row.system for row in rows] == ["bm25", "base", "static", "base+static"]
        assert all(0 < row.ci_low <= row.value <= row.ci_high <= 1 and row.n == 63 for row in rows)
        assert [row.dim for row in rows] == [None, 384, 384, 768]

    def test_the_gain_over_the_base_model_is_kept_with_its_interval(self, outcome):
        (row,) = [
            row
            for row in outcome.record.metrics
            if (row.system, row.against, row.statistic) == ("base+static", "base", "difference")
        ]
        assert row.ci_low <= row.value <= row.ci_high

    def test_dev_chooses_the_share(self, outcome):
        on_dev = outcome.record.notes["dev_ndcg_by_static_share"]
        assert str(outcome.record.notes["static_share"]) == max(on_dev, key=on_dev.get)

    def test_prints_what_this_run_shows_and_no_warning(self, outputs):
        text = "".join(output.get("text", "") for output in outputs)
        assert re.search(r"ndcg@10 on 63 test queries: base 0\.\d+, base\+static 0\.\d+", text)
        assert "Warning" not in text and "huggingface" not in text.lower()

    def test_shows_queries_before_and_after(self, outputs):
        tables = [output["data"]["text/plain"] for output in outputs if "text/html" in output.get("data", {})]
        assert any("before" in table and "after" in table for table in tables)

    def test_files(self, outcome):
        files = {file.name for file in outcome.folder.iterdir()}
        assert {"executed.ipynb", "train_log.csv", "per_query.parquet", "model"} <= files
        assert len(pd.read_csv(outcome.folder / "quality_by_system.csv")) == 4

    def test_the_saved_model_is_the_measured_one_and_loads_without_this_package(self, outcome):
        model = SentenceTransformer(str(outcome.folder / "model"), device="cpu", trust_remote_code=True)
        (vector,) = model.encode(["cholera"])
        share = outcome.record.notes["static_share"]
        (base,) = load_model().encode(["cholera"], normalize_embeddings=True)
        assert vector.shape == (768,)
        np.testing.assert_allclose(vector[:384], np.sqrt(1 - share) * base, atol=1e-3)


@pytest.mark.notebook
def test_the_code_to_take_away_runs(tmp_path, monkeypatch):
    """The block in plain sentence-transformers, on eight pairs and with the model of this environment."""
    prose = "\n".join(cell.source for cell in notebooks.read(NOTEBOOK).cells if cell.cell_type == "markdown")
    (code,) = re.findall(r"## The same in plain sentence-transformers.*?```python\n(.*?)```", prose, re.DOTALL)
    assert len(code.strip().splitlines()) <= 30
    load_model().save_pretrained(str(tmp_path / "base"))
    rows = [f"what is sign {i},description of disorder {i}" for i in range(8)]
    (tmp_path / "pairs.csv").write_text("\n".join(["query,document", *rows]), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    exec(code.replace("sentence-transformers/all-MiniLM-L6-v2", "base"), namespace)
    vectors = namespace["encode"](["sign 1", "disorder 1"])
    assert vectors.shape == (2, 768)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-4)
