"""Every notebook: in the house's shape, and executed through papermill at smoke size with its record read back."""

from __future__ import annotations

import ast
import re
import statistics

import pytest

from embedlab import paths
from embedlab.runs import notebooks
from embedlab.runs.execute import run_notebook
from tests.notebooks.outcomes import SMOKE
from tests.notebooks.outcomes import rows as read_rows

ALL = sorted(paths.notebooks_dir().glob("*.ipynb"))
CONTRASTIVE = [path for path in ALL if path.stem == "03_contrastive"]  # others: test_NN_*.py
COMMON = {"dataset", "model_name", "seed", "max_steps", "max_examples", "output_dir"}
SKELETON = ("**Question**", "**Cost**", "**Needs**", "## What this shows", "## Limits", "## Exercises", "## Papers")


def code_cells(path):
    return [cell for cell in notebooks.read(path).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
class TestShape:
    def test_committed_without_outputs(self, path):
        assert not [cell for cell in code_cells(path) if cell.outputs or cell.execution_count]

    def test_imports_then_parameters_then_resolve(self, path):
        sources = [cell.source for cell in code_cells(path)]
        tagged = [i for i, cell in enumerate(code_cells(path)) if "parameters" in cell.metadata.get("tags", ())]
        assert tagged == [1]
        assert all(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(sources[0]).body)
        assert ".resolve(globals())" in sources[2] and f'start_run("{path.stem}"' in sources[2]
        assert "run.finish()" in sources[-1]

    def test_parameters_are_few_and_explained(self, path):
        parameters = notebooks.parameters(path)
        assert {"dataset", "model_name", "seed", "max_steps", "max_examples", "output_dir"} <= {
            p.name for p in parameters
        }
        assert len([parameter for parameter in parameters if parameter.name not in ("engine", "output_dir")]) <= 15
        assert all(parameter.help for parameter in parameters)

    def test_cells_are_short_and_functions_only_where_they_are_the_lesson(self, path):
        lengths = [len(cell.source.splitlines()) for cell in code_cells(path)[3:]]
        assert statistics.median(lengths) <= 8
        for cell in code_cells(path):
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.FunctionDef):
                    assert node.end_lineno - node.lineno < 15 and "assert" in cell.source

    def test_reads_as_a_lesson(self, path):
        prose = "\n".join(cell.source for cell in notebooks.read(path).cells if cell.cell_type == "markdown")
        assert prose.startswith("# ") and "## The idea" in prose and "**Next**" in prose
        places = [prose.find(part) for part in SKELETON]
        assert -1 not in places and places == sorted(places)

    def test_next_leads_to_the_next_notebook_of_the_index(self, path):
        index = (paths.notebooks_dir() / "README.md").read_text("utf-8")
        order = re.findall(r"^\| \[\w+\]\((\w+\.ipynb)\)", index, re.MULTILINE)
        assert order == [notebook.name for notebook in ALL]
        (block,) = re.findall(r"\*\*Next\*\*(.+?)(?:\n\n|\Z)", notebooks.read(path).cells[0].source, re.DOTALL)
        following = order[order.index(path.name) + 1 :][:1]  # none after the last
        assert re.findall(r"\((\w+\.ipynb)\)", block)[:1] == following

    def test_index_names_it_with_its_minutes(self, path):
        (row,) = re.findall(rf"\({path.name}\).*\| (\d+) \|", (paths.notebooks_dir() / "README.md").read_text("utf-8"))
        cost = re.search(r"\*\*Cost\*\*: (?:about (\d+) minutes|seconds)", notebooks.read(path).cells[0].source)
        assert cost and row == (cost[1] or "1")


@pytest.mark.notebook
@pytest.mark.parametrize("path", CONTRASTIVE, ids=lambda path: path.stem)
def test_runs_at_smoke_size_and_its_numbers_are_read_back(path, tmp_path):
    outcome = run_notebook(path, SMOKE, output_dir=str(tmp_path), html=True)
    assert outcome.record is not None, outcome.detail
    files = {file.name for file in outcome.folder.iterdir()}
    assert {"executed.ipynb", "executed.html", "train_log.csv", "per_query.parquet", "model"} <= files
    assert {"quality_by_dimension.png", "quality_by_dimension.csv"} <= files
    values, gains = read_rows(outcome, "ndcg@10"), read_rows(outcome, "ndcg@10", "base", task="retrieval")
    alternatives = {"hybrid", "linear-probe", "contrastive+bm25"}
    assert set(values) == {"bm25", "base", "contrastive"} | alternatives and set(gains) == {"contrastive"}
    for row in [*values.values(), *gains.values()]:
        assert row.ci_low <= row.value <= row.ci_high and row.n == 63
    assert all(0 < row.value <= 1 for row in values.values())
    full, truncated = (read_rows(outcome, "ndcg@10", dim=dim)["base"].value for dim in (384, 32))
    assert full != truncated
    assert outcome.record.parameters["max_examples"] == 60 and outcome.record.data_fingerprint
