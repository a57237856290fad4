"""The arena at smoke size: recipes run in processes of their own, one fails, and all others are compared."""

from __future__ import annotations

import textwrap
from functools import partial

import pytest

from embedlab import paths
from embedlab.arena.seeds import over_seeds, with_best
from embedlab.reporting import arena_report
from embedlab.runs.per_query import query_values
from tests.notebooks.outcomes import rows, smoke_run

BROKEN = '''
"""A recipe that fails."""
raise SystemExit("no space left on the moon")
'''
LAZY = '''
"""A recipe that does nothing: it saves the base model."""
import sys
from sentence_transformers import SentenceTransformer
SentenceTransformer(sys.argv[2], device="cpu").save_pretrained(sys.argv[3])
'''
RECIPES = {"stock-mnrl", "stock-late-interaction", "embedlab-linear", "lazy"}  # those that do not fail


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    for name, source in {"broken": BROKEN, "lazy": LAZY}.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(source).strip(), encoding="utf-8")
    files = [str(folder / name) for name in ("broken.py", "lazy.py")]
    recipes = ["stock-mnrl", "stock-late-interaction", "embedlab-linear", *files]
    notebook = paths.notebooks_dir() / "16_arena.ipynb"
    return smoke_run(notebook, tmp_path_factory.mktemp("runs"), recipes=recipes, reference="stock-mnrl")


@pytest.mark.notebook
def test_systems_are_compared_with_the_reference(outcome):
    values = rows(outcome, "ndcg@10", split="test", task="retrieval")
    assert set(values) == {"bm25", "base", "hybrid", *RECIPES}
    against = rows(outcome, "ndcg@10", "stock-mnrl", split="test")
    assert set(against) == set(values) - {"stock-mnrl"}
    assert values["lazy"].value == values["base"].value
    assert outcome.record.systems["lazy"] == "A recipe that does nothing: it saves the base model."


@pytest.mark.notebook
def test_costs_are_measured_and_forgetting_of_an_unchanged_model_is_zero(outcome):
    for metric, least in {"seconds": 1, "CPU seconds": 1, "peak bytes": 1e8, "bytes per vector": 1536}.items():
        costs = rows(outcome, metric, stage="footprint")
        assert set(costs) == RECIPES
        assert all(row.value >= least for row in costs.values())
    assert rows(outcome, "bytes per vector")["stock-late-interaction"].value > 1536
    forgetting = rows(outcome, "ndcg@10", "base", stage="probe")
    assert set(forgetting) == RECIPES and forgetting["lazy"].value == 0


@pytest.mark.notebook
def test_a_recipe_that_fails_is_named_and_the_others_go_on(outcome):
    failures = outcome.record.notes["failures"]
    assert set(failures) == {"broken"} and "no space left on the moon" in failures["broken"]


@pytest.mark.notebook
def test_leaderboard_counts_each_system_once(outcome):
    found = arena_report.all_standings([outcome.record])
    values_of = partial(query_values, folder=outcome.folder.parent)
    board = arena_report.leaderboard(with_best(over_seeds(found), found, values_of)).set_index("system")
    assert set(board.index) == set(found["system"]) and len(board) == len(found)
    assert (board.loc[["bm25", "lazy"], ["better", "level", "worse"]].sum(axis=1) == 1).all()
    assert board.loc["stock-mnrl", ["better", "level", "worse"]].sum() == 0
    best = rows(outcome, "ndcg@10", split="test", task="retrieval")
    assert board.loc[max(best, key=lambda name: best[name].value), arena_report.NEAR_BEST] == 1
