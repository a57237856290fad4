"""The arena: what recipes get, how their processes are measured, and how their results are counted."""

from __future__ import annotations

import re
import textwrap
import typing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from embedlab import paths
from embedlab.arena import contest, exchange, recipe, seeds
from embedlab.arena.contest import Contest, _ordered
from embedlab.arena.standings import verdict
from embedlab.data.dataset import Dataset
from embedlab.errors import DataError, ParameterError, RecipeError, RecordError
from embedlab.reporting import arena_report
from embedlab.runs.per_query import Measured
from embedlab.runs.records import MetricRow
from experiments.arena import datasets

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data():
    return Dataset(
        name="two",
        corpus={"d1": "first\tdocument", "d2": "second “document”", "d3": "third", "d4": "fourth", "d5": "fifth"},
        queries={"q1": "one", "q2": "two", "q3": "three", "q4": "four", "q5": "secret"},
        qrels={
            "train": {"q1": {"d1": 1}, "q2": {"d2": 2}, "q3": {"d3": 1}},
            "dev": {"q4": {"d4": 1}},
            "test": {"q5": {"d5": 1}},
        },
    )


class TestExchange:
    def test_round_trip_keeps_train_and_dev(self, data, tmp_path):
        exchange.write(data, tmp_path)
        again = exchange.read(str(tmp_path))
        assert again.corpus == data.corpus
        assert again.qrels == {**data.qrels, "test": {}}
        assert again.queries == {query: data.queries[query] for query in ("q1", "q2", "q3", "q4")}

    def test_test_queries_are_not_written(self, data, tmp_path):
        exchange.write(data, tmp_path)
        written = "".join(
            path.read_text() for path in tmp_path.rglob("*") if path.is_file() and path.name != "corpus.jsonl"
        )
        assert "secret" not in written and "q5" not in written and "fifth" not in written

    def test_pairs_are_texts(self, data, tmp_path):
        exchange.write(data, tmp_path)
        pairs = pd.read_json(tmp_path / "train.jsonl", lines=True).to_numpy().tolist()
        assert pairs == [["one", "first\tdocument"], ["two", "second “document”"], ["three", "third"]]

    def test_fingerprint_follows_the_content(self, data, tmp_path):
        exchange.write(data, tmp_path)
        before = exchange.fingerprint(tmp_path)
        exchange.write(data, tmp_path)
        assert exchange.fingerprint(tmp_path) == before
        (tmp_path / "train.jsonl").write_text("{}\n")
        assert exchange.fingerprint(tmp_path) != before


def written(folder: Path, source: str, name: str = "mine.py") -> recipe.Recipe:
    path = folder / name
    path.write_text(textwrap.dedent(source).strip(), encoding="utf-8")
    return recipe.find(str(path))


def test_a_recipe_of_this_package_changes_with_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe.paths, "notebooks_dir", lambda: tmp_path / "notebooks")
    (tmp_path / "notebooks").mkdir()
    own, other = (
        written(tmp_path, f'"""A recipe."""\n{line}', f"{line.split()[0]}.py")
        for line in ("from embedlab import paths", "pass")
    )
    before = own.digest, other.digest
    (tmp_path / "notebooks" / "03_contrastive.ipynb").write_text("other defaults")
    assert own.digest != before[0] and other.digest == before[1]


def test_a_recipe_depends_on_the_modules_that_it_imports_and_on_no_others():
    used = {
        name: {file.relative_to(ROOT / "src/embedlab").as_posix() for file in recipe.modules_of(recipe.find(name).path)}
        for name in ("embedlab-tune", "embedlab-linear", "stock-mnrl")
    }
    assert {"arena/script.py", "tuning/trials.py", "training/contrastive/train.py", "io.py"} <= used["embedlab-tune"]
    assert "evaluation/diagnose/probe.py" in used["embedlab-linear"]  # through `from embedlab import ...`, or directly
    assert "tuning/trials.py" not in used["embedlab-linear"]
    assert not {"arena/contest.py", "cli/main.py"} & used["embedlab-tune"] and not used["stock-mnrl"]


class TestFind:
    def test_committed_recipes_have_a_description_and_pinned_versions(self):
        lock = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
        for name in recipe.names():
            found = recipe.find(name)
            assert len(found.description) > 20
            source = found.path.read_text(encoding="utf-8")
            if name.startswith("embedlab"):
                assert "from embedlab" in source
                continue
            assert "embedlab" not in source  # it runs without this package
            pins = re.findall(r"\"([\w-]+)(?:\[\w+\])?==([\w.]+)\"", source)
            assert {package for package, _ in pins} >= {"sentence-transformers", "torch"}
            assert all(lock[package].partition("+")[0] == version for package, version in pins)

    def test_only_tune_takes_a_budget(self):
        assert [name for name in recipe.names() if recipe.find(name).takes_budget] == ["embedlab-tune"]

    def test_unknown_recipe(self):
        with pytest.raises(ParameterError, match=r"\[recipes\]: there is no recipe 'magic'. Take one of .*stock-mnrl"):
            recipe.find("magic")

    def test_file_without_docstring_or_not_python(self, tmp_path):
        with pytest.raises(DataError, match=r"mine.py: this recipe has no description"):
            written(tmp_path, "print(1)")
        with pytest.raises(DataError, match=r"mine.py:1: a recipe must be a Python file"):
            written(tmp_path, "print(")

    def test_order_puts_the_reference_first(self, tmp_path):
        names = ["embedlab-linear", "stock-mnrl", "model2vec"]
        ordered = _ordered([recipe.find(name) for name in names], "stock-mnrl")
        assert [entry.name for entry in ordered] == ["stock-mnrl", "embedlab-linear", "model2vec"]
        with pytest.raises(ParameterError, match="is not among the recipes"):
            _ordered(ordered, "stock-mined")
        with pytest.raises(ParameterError, match="named twice"):
            _ordered([*ordered, ordered[0]], "stock-mnrl")


GOOD = '''
"""Writes an empty model and burns CPU time."""
import pathlib, sys, time
start = time.process_time()
while time.process_time() - start < 0.5: pass
block = bytearray(b"x") * 120_000_000
time.sleep(0.5)
output = pathlib.Path(sys.argv[3]); output.mkdir()
(output / "modules.json").write_text("[]")
with (pathlib.Path(sys.argv[1]) / "runs").open("a") as file: file.write(" ".join(sys.argv[4:]) + "\\n")
'''


class TestRun:
    @pytest.fixture(autouse=True)
    def _own_cache(self, tmp_path, monkeypatch):
        monkeypatch.setattr(paths, "cache_dir", lambda: tmp_path / "cache")

    def run(self, entry, folder, **changes):
        return recipe.run(entry, folder, "base", **{"seed": 3, "facts": {"data": "x"}} | changes)

    def test_measures_the_process_and_keeps_its_result(self, tmp_path):
        entry = written(tmp_path, GOOD)
        cost, folder = self.run(entry, tmp_path)
        assert 0.4 < cost.cpu_seconds < 10 and cost.seconds > 0.4 and cost.peak_bytes > 100_000_000
        assert (folder / "modules.json").is_file()
        assert self.run(entry, tmp_path) == (cost, folder)
        assert (tmp_path / "runs").read_text() == "--seed 3 --max-steps -1\n"

    def test_the_memory_is_that_of_the_recipe_and_not_of_the_process_that_starts_it(self, tmp_path):
        ballast = bytearray(b"x") * 500_000_000
        cost, _ = self.run(written(tmp_path, GOOD), tmp_path)
        assert 100_000_000 < cost.peak_bytes < 300_000_000 < len(ballast)

    def test_what_decides_the_result_decides_the_key(self, tmp_path):
        entry = written(tmp_path, GOOD)
        folders = {
            self.run(entry, tmp_path)[1],
            self.run(entry, tmp_path, seed=4)[1],
            self.run(entry, tmp_path, max_steps=7)[1],
            self.run(entry, tmp_path, facts={"data": "y"})[1],
            self.run(entry, tmp_path, minutes=2.0)[1],  # takes no budget: the same as the first
            self.run(written(tmp_path, GOOD + "# changed"), tmp_path)[1],
        }
        assert len(folders) == 5

    def test_budget_is_passed_on(self, tmp_path):
        self.run(written(tmp_path, GOOD + "# --minutes"), tmp_path, minutes=1.5)
        assert (tmp_path / "runs").read_text() == "--seed 3 --max-steps -1 --minutes 1.50\n"

    def test_every_process_has_an_empty_cache_of_its_own(self, tmp_path):
        looks = (
            GOOD
            + """
import os
cache = pathlib.Path(os.environ["EMBEDLAB_CACHE"])
assert not cache.exists()
cache.mkdir(); (cache / "vectors").touch(); (output / "cache.txt").write_text(str(cache))
"""
        )
        caches = {
            (self.run(written(tmp_path, looks + more), tmp_path)[1] / "cache.txt").read_text() for more in ("", "#")
        }
        assert len(caches) == 2 and str(tmp_path / "cache") not in caches
        assert not any(Path(cache).exists() for cache in caches)

    def test_failure_says_the_last_line_and_is_tried_again(self, tmp_path):
        entry = written(tmp_path, '"""Fails."""\nprint("working")\nraise SystemExit("out of luck")')
        for _ in range(2):
            with pytest.raises(
                RecipeError, match=r"mine.py: the recipe mine ended with exit code 1.*: out of luck. Read "
            ):
                self.run(entry, tmp_path)

    def test_no_model_is_a_failure(self, tmp_path):
        entry = written(tmp_path, '"""Does nothing."""\nprint("done")')
        with pytest.raises(RecipeError, match=r"left no sentence-transformers model, and its last line was: done"):
            self.run(entry, tmp_path)

    def test_stopping_kills_the_process(self, tmp_path, monkeypatch):
        entry = written(tmp_path, '"""Waits."""\nimport time\ntime.sleep(60)')

        def stop(*_args):
            raise KeyboardInterrupt

        monkeypatch.setattr(recipe.progress, "report", stop)
        with pytest.raises(KeyboardInterrupt):
            self.run(entry, tmp_path)
        children = psutil.Process().children(recursive=True)
        assert not [child for child in children if "mine.py" in " ".join(child.cmdline())]


@pytest.mark.parametrize(
    ("difference", "p_value", "expected"),
    [(0.1, 0.01, "better"), (-0.1, 0.01, "worse"), (0.1, 0.05, "level"), (-0.1, 0.2, "level")],
)
def test_verdict(difference, p_value, expected):
    assert verdict(difference, p_value) == expected


class FakeRecord:
    """A record with two recipes, the base model, and stock-mined as reference."""

    def __init__(
        self, run_id, dataset, values, costs=None, forgetting=None, seconds=None, seed=0, reference="stock-mined"
    ):
        self.run_id, self.commit = run_id, "abc"
        self.parameters = {"dataset": dataset, "seed": seed, "reference": reference}
        labels = {
            "technique": "recipe",
            "stage": "retrieval",
            "metric": "ndcg@10",
            "split": "test",
            "task": "retrieval",
        }
        self.metrics = []
        for system, (value, p_value) in values.items():
            row = {"system": system, **labels, "n": 100}
            self.metrics.append(MetricRow(**row, statistic="value", value=value))
            if p_value is not None:
                against = {"against": reference}
                difference = value - values[reference][0]
                self.metrics.append(MetricRow(**row, **against, statistic="difference", value=difference))
                self.metrics.append(MetricRow(**row, **against, statistic="p_value", value=p_value))
        probe = {**labels, "stage": "probe", "task": "pydocs", "statistic": "difference", "against": "base"}
        for system, (value, low, high) in (forgetting or {}).items():
            self.metrics.append(MetricRow(**probe, system=system, value=value, ci_low=low, ci_high=high, n=9))
        for metric, of_systems in {"peak bytes": costs, "CPU seconds": seconds}.items():
            cost = {**labels, "stage": "footprint", "metric": metric, "split": "", "statistic": "value"}
            rows = [MetricRow(**cost, system=system, value=value) for system, value in (of_systems or {}).items()]
            self.metrics += rows


QUERIES = [f"q{number}" for number in range(20)]
NOISE = np.tile([0.9, -0.9], 10)  # too much for a test to see a difference of 0.3


def over_seeds(runs, noise=None):
    """Compare runs whose systems have the same value for every query, plus noise for those that a run calls level."""
    noise = noise or {run.run_id: NOISE for run in runs}

    def values_of(run_id, _metric):
        rows = [row for run in runs if run.run_id == run_id for row in run.metrics if row.task == "retrieval"]
        level = {row.system for row in rows if row.statistic == "p_value" and row.value >= 0.05}
        measured = {row.system: row.value for row in rows if row.statistic == "value" and row.metric == "ndcg@10"}
        return {
            Measured(system): pd.Series(value + noise[run_id] * (system in level), QUERIES)
            for system, value in measured.items()
        }

    results = arena_report.all_standings(runs)
    return seeds.with_best(seeds.over_seeds(results, values_of), results, values_of)


def test_leaderboard_by_hand():
    reference = {"stock-mined": (0.4, None)}
    runs = [
        FakeRecord("a", "icd10cm:mini", {"base": (0.2, 0.01), "mine": (0.5, 0.02), **reference}),
        FakeRecord("b", "pairs:x/faq.jsonl?repair=true", {"base": (0.4, 0.6), "mine": (0.1, 0.06), **reference}),
        FakeRecord("c", "pairs:x/faq.jsonl", {"base": (0.63, 0.3), **reference}, seed=1),
    ]
    found = arena_report.all_standings(runs)
    assert found[found["run"] == "a"]["p (Holm)"].tolist()[:2] == [0.02, 0.02]  # 2 · 0.01, then at least as much
    assert found[found["run"] == "b"]["p (Holm)"].tolist()[:2] == [0.6, 0.12]
    datasets = over_seeds(runs)
    assert datasets[datasets["system"] == "base"]["seeds"].tolist() == [1, 2]
    board = arena_report.leaderboard(datasets).set_index("system")
    assert board.index.tolist() == ["stock-mined", "base", "mine"]
    assert board.loc["base", ["better", "level", "worse"]].tolist() == [0, 1, 1]
    assert board.loc["mine", ["better", "level", "worse"]].tolist() == [1, 1, 0]
    assert datasets["to best"].tolist() == pytest.approx([-0.3, 0, -0.1, 0, -0.415, -0.115])
    assert board["best or level with it"].to_dict() == {"stock-mined": 1, "base": 1, "mine": 1}
    # base: (-0.2 + (0 + 0.23) / 2) / 2; mine: (0.1 - 0.3) / 2
    assert board["mean difference"].tolist() == pytest.approx([0, -0.0425, -0.1])
    assert board.loc["base", ["icd10cm:mini", "faq.jsonl"]].tolist() == pytest.approx([0.2, 0.515])


class TestOverSeeds:
    """Each query is averaged over seeds before the test."""

    REFERENCE: typing.ClassVar = {"stock-mined": (0.4, None)}

    def test_two_seeds_can_show_what_none_of_them_shows(self):
        values = {"mine": (0.5, 0.6), **self.REFERENCE}
        runs = [FakeRecord("a", "one", values), FakeRecord("b", "one", values, seed=1)]
        one_seed, two_seeds = over_seeds(runs[:1]), over_seeds(runs, {"a": NOISE, "b": -NOISE})
        assert one_seed.loc[0, "verdict"] == "level" and two_seeds.loc[0, "verdict"] == "better"
        assert two_seeds.loc[0, ["difference", "low", "high"]].tolist() == pytest.approx([0.1, 0.1, 0.1])

    def test_a_system_of_some_seeds_is_compared_with_the_reference_of_these(self):
        runs = [
            FakeRecord("a", "one", {"mine": (0.5, 0.01), "stock-mined": (0.4, None)}),
            FakeRecord("b", "one", {"stock-mined": (0.8, None)}, seed=1),
        ]
        table = over_seeds(runs).set_index("system")
        assert table["seeds"].to_dict() == {"mine": 1, "stock-mined": 2}
        assert table.loc["mine", "difference"] == pytest.approx(0.1)
        assert table.loc["stock-mined", "ndcg@10"] == pytest.approx(0.6)

    def test_holm_counts_the_systems_of_a_dataset(self):
        runs = [FakeRecord("a", "one", {"x": (0.5, 0.01), "y": (0.5, 0.01), "z": (0.4, 0.9), **self.REFERENCE})]
        single = [FakeRecord("b", "two", {"x": (0.5, 0.01), **self.REFERENCE})]
        table = over_seeds([*runs, *single]).set_index(["dataset", "system"])["p (Holm)"]
        assert table["one", "x"] == pytest.approx(3 * table["two", "x"])
        assert pd.isna(table["one", "stock-mined"])

    def test_one_run_keeps_what_it_recorded(self):
        runs = arena_report.all_standings([FakeRecord("a", "one", {"mine": (0.5, 0.03), **self.REFERENCE})])
        table = seeds.over_seeds(runs, lambda _run, _metric: {})
        assert table.loc[0, ["p (Holm)", "verdict"]].tolist() == [0.03, "better"]

    def two_runs(self, **queries):
        """Two runs with the seeds 0 and 1 of two systems, and the test queries of each."""
        values = {"mine": (0.5, 0.6), **self.REFERENCE}
        runs = [FakeRecord(run, "one", values, seed=seed) for seed, run in enumerate(queries)]
        kept = {run: {Measured(name): pd.Series(0.0, ids) for name in values} for run, ids in queries.items()}
        return arena_report.all_standings(runs), kept

    def test_runs_of_different_queries_are_refused(self):
        runs, kept = self.two_runs(a=["q1"], b=["q2"])
        with pytest.raises(RecordError, match="a, b have different test queries"):
            seeds.over_seeds(runs, lambda run, _metric: kept[run])

    def test_the_best_system_of_other_queries_is_refused(self):
        runs = [FakeRecord("a", "one", {"mine": (0.5, 0.6), **self.REFERENCE})]
        results = arena_report.all_standings(runs)
        ids = {"mine": ["q1"], "stock-mined": ["q2"]}
        kept = {Measured(name): pd.Series(0.0, queries) for name, queries in ids.items()}
        with pytest.raises(RecordError, match="different test queries"):
            seeds.with_best(seeds.over_seeds(results), results, lambda _run, _metric: kept)

    @pytest.mark.parametrize("system", ["mine", "stock-mined"])
    def test_a_run_without_values_per_query_is_named_with_the_system(self, system):
        runs, kept = self.two_runs(a=["q1"], b=["q1"])
        del kept["b"][Measured(system)]
        with pytest.raises(RecordError, match=f"b has no values per query of {system}"):
            seeds.over_seeds(runs, lambda run, _metric: kept[run])

    def test_runs_with_different_references_are_refused(self):
        runs = [
            FakeRecord("a", "one", {"mine": (0.5, 0.6), **self.REFERENCE}),
            FakeRecord("b", "one", {"mine": (0.5, None), "stock-mined": (0.4, 0.6)}, seed=1, reference="mine"),
        ]
        with pytest.raises(RecordError, match="one have different references: stock-mined, mine"):
            seeds.over_seeds(arena_report.all_standings(runs))

    def test_a_seed_that_is_there_twice_is_refused(self):
        runs = [FakeRecord(run, "one", {"mine": (0.5, 0.6), **self.REFERENCE}) for run in "ab"]
        with pytest.raises(RecordError, match="one: mine was measured twice with seed 0"):
            seeds.over_seeds(arena_report.all_standings(runs))


def test_costs_and_forgetting_are_means_over_the_runs_that_have_them():
    values = {"stock-mined": (0.4, None), "mine": (0.5, 0.02)}
    runs = [
        FakeRecord("a", "one", values, {"mine": 1e9, "stock-mined": 4e9}, {"mine": (-0.2, -0.3, -0.1)}),
        FakeRecord("b", "two", values, {"mine": 2e9, "stock-mined": 4e9}, {"mine": (0.1, 0.0, 0.2)}),
        FakeRecord("c", "three", values, {"mine": 6e9, "stock-mined": 4e9}),  # trained on the probe's documents
    ]
    table = arena_report.all_standings(runs)
    columns = ["forgetting", "forgetting low", "forgetting high", "commit"]
    assert table[table["system"] == "mine"][columns].head(2).to_numpy().tolist() == [
        [-0.2, -0.3, -0.1, "abc"],
        [0.1, 0.0, 0.2, "abc"],
    ]
    assert set(table[columns[:3]].dtypes) == {np.dtype(float)}  # so that they are rounded
    board = arena_report.leaderboard(over_seeds(runs)).set_index("system")
    assert board.loc["mine", "peak GB"] == pytest.approx(3) and board.loc["stock-mined", "peak GB"] == pytest.approx(4)
    assert board.loc["mine", "forgetting"] == pytest.approx(-0.05) and pd.isna(board.loc["stock-mined", "forgetting"])


def test_relative_time_is_the_geometric_mean_over_runs():
    values = {"base": (0.3, 0.01), "stock-mined": (0.4, None), "mine": (0.5, 0.02)}
    runs = [
        FakeRecord("a", "one", values, seconds={"mine": 100.0, "stock-mined": 50.0}),  # 2
        FakeRecord("b", "two", values, seconds={"mine": 500.0, "stock-mined": 4000.0}),  # 1 / 8
    ]
    board = arena_report.leaderboard(over_seeds(runs)).set_index("system")
    assert board.loc["mine", "relative CPU time"] == pytest.approx(0.5)  # the root of 2 / 8
    assert board.loc["stock-mined", "relative CPU time"] == 1 and pd.isna(board.loc["base", "relative CPU time"])


def test_every_recipe_has_a_row_with_a_command_that_runs_its_file():
    table = arena_report.recipe_table().set_index("recipe")
    assert list(table.index) == recipe.names()
    for name, command in table["command"].items():
        program, file, *arguments = command.split()
        assert (program, arguments) == ("python", ["DATA", "MODEL", "OUTPUT"])
        assert (ROOT / file).is_file() and table.loc[name, "what it does"]


class TestProbe:
    def test_data_with_documents_of_the_probe_has_none(self, data, monkeypatch):
        monkeypatch.setattr(contest, "load_dataset", lambda *_args, **_options: data)
        other = replace(data, corpus={"x": "of another domain"})
        assert contest._probe_for(other).qrels == {"test": {"q5": {"d5": 1}}}
        assert contest._probe_for(replace(data, corpus={"x": "third"})) is None


def results(best: str, hybrid: float) -> pd.DataFrame:
    rows = {
        "stock-mined": {"ndcg@10": 0.5, "CPU seconds": 300.0},
        "mine": {"ndcg@10": 0.6, "CPU seconds": 20.0, "difference": 0.1, "low": 0.05, "high": 0.15},
        "hybrid": {"ndcg@10": hybrid},
    }
    rows["mine"] |= {"p (Holm)": 0.01, "verdict": "better"}
    if best == "stock-mined":
        rows["stock-mined"]["ndcg@10"] = 0.7
    frame = pd.DataFrame([{"system": name, **row} for name, row in rows.items()])
    return frame.assign(ci_low=frame["ndcg@10"] - 0.1, ci_high=frame["ndcg@10"] + 0.1).sort_values(
        "ndcg@10", ascending=False, ignore_index=True
    )


class TestReading:
    def test_names_the_best_its_gain_and_the_cheapest(self):
        text = arena_report.reading(results("mine", 0.4), "stock-mined")
        assert text.splitlines() == [
            "mine has the best ndcg@10 of the recipes: 0.600 in 20 s.",
            "Against stock-mined that is +0.100 [+0.050, +0.150], p (Holm) 0.01: better.",
            "The cheapest is mine: 0.600 in 20 s.",
        ]

    def test_says_when_the_reference_wins_or_no_training_is_as_good(self):
        text = arena_report.reading(results("stock-mined", 0.8), "stock-mined")
        assert text.startswith("stock-mined has the best ndcg@10 of the recipes: 0.700 in 300 s.\nThe cheapest")
        assert text.endswith("No recipe beats hybrid (0.800), which needs no training.")

    def test_figure_has_a_point_per_recipe(self):
        figure, table = arena_report.quality_and_cost(results("mine", 0.4))
        assert len(table) == 3
        points = list(figure.axes[0].containers)
        assert len(points) == 2


class TestDatasets:
    def test_intents_share_no_query_between_splits(self):
        labelled = {
            "train": [(f"text {number}", "card_arrival") for number in range(20)] + [("text 0", "card_arrival")],
            "test": [(f"test {number}", "card_arrival") for number in range(9)],
        }
        pairs = datasets.intent_pairs(labelled)
        by_split = {split: [pair.query for pair in pairs if pair.split == split] for split in datasets.INTENTS}
        assert {split: len(queries) for split, queries in by_split.items()} == {"train": 10, "dev": 2, "test": 4}
        assert len({pair.query for pair in pairs}) == 16 and {pair.positive for pair in pairs} == {"card arrival"}

    def test_sample_keeps_splits_and_lengths(self, data, monkeypatch):
        monkeypatch.setitem(datasets.SIZES, "faq", (2, 1, 1))
        monkeypatch.setitem(datasets.WORDS, "faq", (1, 1))
        pairs = datasets.sample(data, "faq")
        assert sorted(pairs) == [("four", "fourth", "dev"), ("secret", "fifth", "test"), ("three", "third", "train")]

    def test_a_probe_with_test_queries_only_is_divided(self, data, monkeypatch):
        queries = {f"q{number}": f"query {number}" for number in range(6)}
        probe = Dataset(
            name="probe",
            corpus={f"d{number}": f"document {number}" for number in range(6)},
            queries=queries,
            qrels={"train": {}, "dev": {}, "test": {f"q{number}": {f"d{number}": 1} for number in range(6)}},
        )
        monkeypatch.setitem(datasets.SIZES, "docstrings", (3, 1, 2))
        pairs = datasets.sample(probe, "docstrings")
        assert [pair.split for pair in pairs] == ["train"] * 3 + ["dev"] + ["test"] * 2
        assert len({pair.query for pair in pairs}) == 6


def test_contest_refuses_before_it_computes(data):
    class Params:
        recipes, reference = ["stock-mnrl"], "stock-mined"

    with pytest.raises(ParameterError, match="not among the recipes"):
        Contest(None, Params(), None, "unused")
