"""Records of older notebook code stand for a sweep's runs, and are marked; whatever differs otherwise does not."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest

from embedlab import paths
from embedlab.runs import notebooks, records
from embedlab.runs.records import MetricRow, Record
from embedlab.sweeps import driver, planning
from embedlab.sweeps.spec import read_sweep
from tests.faults import tiny

DEFAULTS = {"x": 1.0, "what": "ok", "seconds": 0.0}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project whose notebook 01_tiny has no run of its own code."""
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    monkeypatch.delenv("EMBEDLAB_CACHE", raising=False)
    return tiny.make_project(tmp_path)


def commit(digest: str, *, seed: int = 0, notebook: str = "07_tiny", finished: str = "2026", data="", **values) -> str:
    """A record of a notebook that was called `notebook` then."""
    score = {"system": "contrastive", "technique": "contrastive", "metric": "ndcg@10", "value": 0.5}
    rows = [MetricRow(split=split, **score) for split in ("dev", "test")]
    run_id = f"{notebook}-{digest * 8}-s{seed}"
    record = Record(
        run_id=run_id,
        notebook=notebook,
        parameters={"seed": seed, **values},
        metrics=rows,
        data_fingerprint=data,
        finished=finished,
    )
    assert records.commit(record, paths.runs_dir() / run_id)
    return run_id


def plan(home, **spec) -> list[planning.Planned]:
    path = tiny.write_sweep(home, **spec)
    return planning.all_planned(read_sweep(path), path)


@pytest.mark.parametrize(
    "values",
    [
        DEFAULTS,
        {"x": 1, "what": "ok", "seconds": 0},  # whole numbers are the same numbers
        {"x": 1.0},  # it did not have the other parameters yet: they are at their default
        {**DEFAULTS, "dropped": 3},  # the notebook no longer has this one, which always had one value
    ],
)
def test_a_record_with_the_same_values_stands_for_the_run(home, values):
    older = commit("a", **values)
    (item,) = plan(home)
    assert item.is_older and item.run_id == older != item.plan.run_id
    assert item.folder == paths.runs_dir() / older and item.state() == f"finished (older code: {older})"


@pytest.mark.parametrize(
    "other",
    [
        {**DEFAULTS, "x": 2.0},
        {**DEFAULTS, "seed": 1},
        {**DEFAULTS, "seed": -1},
        {**DEFAULTS, "data": "other texts"},
        {**DEFAULTS, "notebook": "01_later"},
    ],
)
def test_a_record_that_differs_does_not(home, other):
    commit("a", **other)
    (item,) = plan(home)
    assert item.record is None and item.state() == "to do"


def test_a_parameter_that_was_dropped_and_had_several_values_decides_nothing(home):
    commit("a", **DEFAULTS, dropped=1)
    commit("b", **DEFAULTS, dropped=2)
    assert plan(home)[0].record is None
    plain = commit("c", **DEFAULTS, finished="2020")
    assert plan(home)[0].run_id == plain


def test_the_newest_counts_and_a_record_of_todays_code_before_all(home):
    commit("a", **DEFAULTS, finished="2025")
    newest = commit("b", **DEFAULTS, finished="2026")
    commit("c", **DEFAULTS, finished="2024")
    (item,) = plan(home)
    assert item.run_id == newest
    own = Record(run_id=item.plan.run_id, notebook="01_tiny", parameters={"seed": 0}, metrics=[])
    assert records.commit(own, item.plan.folder)
    (item,) = plan(home)
    assert not item.is_older and item.record == own and item.state() == "finished"


def test_later_stages_build_on_the_folder_of_the_older_run(home):
    older = [commit("a", seed=seed, **DEFAULTS) for seed in (0, 1)]
    stages = [
        {"name": "first", "notebook": "01_tiny", "seeds": [0, 1]},
        {"name": "second", "notebook": "02_later", "fixed": {"source": "{first.model}"}, "seeds": [0, 1]},
    ]
    later = [item for item in plan(home, stages=stages) if item.plan.notebook.stem == "02_later"]
    assert [item.plan.values["source"] for item in later] == [f"results/runs/{run_id}/model" for run_id in older]


class PretendEngine:
    """Commits an empty record for every run at once."""

    jobs, gpus = 1, None

    def __init__(self) -> None:
        self.done = []

    def submit(self, job) -> None:
        from embedlab.runs.execute import Outcome

        plan = job.plan
        record = Record(run_id=plan.run_id, notebook=plan.notebook.stem, parameters=plan.values, metrics=[])
        assert records.commit(record, plan.folder)
        self.done.append(Outcome(plan.run_id, plan.folder, record))

    def poll(self):
        finished, self.done = self.done, []
        return iter(finished)

    def reports(self):
        return iter(())

    def cancel(self, run_id: str) -> None: ...


@pytest.mark.parametrize("rerun_stale", [False, True])
def test_a_sweep_takes_older_records_unless_asked_to_run_again(home, rerun_stale):
    older = commit("a", **DEFAULTS)
    path = tiny.write_sweep(home)
    view = SimpleNamespace(begin=lambda *_: None, show=lambda *_: None, ended=lambda *_: None)
    options = driver.Options(rerun_stale=rerun_stale)
    result = driver.Driver(read_sweep(path), PretendEngine(), view, options, path).run()
    ((run_id, outcome),) = result.outcomes.items()
    assert outcome.skipped is not rerun_stale and (run_id == older) is not rerun_stale
    assert (paths.runs_dir() / older / records.FILE).is_file()  # never moved: it is another run's


def test_the_command_says_how_many_are_older(home):
    from typer.testing import CliRunner

    from embedlab.cli.main import app

    older = commit("a", **DEFAULTS)
    tiny.write_sweep(home)
    done = CliRunner().invoke(app, ["sweep", "s", "--dry-run"])
    output = " ".join(done.output.split())
    assert done.exit_code == 0 and "1 runs, 1 finished (1 by older code; --rerun-stale" in output
    assert older in output


def test_code_is_older_when_the_notebook_on_the_topic_has_changed(home):
    code = notebooks.source_hash(home / "notebooks" / "01_tiny.ipynb")
    assert not notebooks.is_older_code("01_tiny", code) and not notebooks.is_older_code("09_tiny", code)
    assert notebooks.is_older_code("01_tiny", "other") and notebooks.is_older_code("09_tiny", "other")
    assert not notebooks.is_older_code("01_gone", "other")  # nothing to compare with


def test_the_table_keeps_older_records_that_a_filter_leaves_out(home):
    from typer.testing import CliRunner

    from embedlab.cli.main import app

    older = [commit(digest, **{**DEFAULTS, "x": x}) for digest, x in (("a", 1.0), ("b", 2.0))]
    tiny.write_sweep(home, grid={"x": [1.0, 2.0]})
    done = CliRunner().invoke(app, ["sweep", "s", "--only", "x=1.0"])
    table = pd.read_csv(paths.my_tables_dir() / "sweep-s.csv")
    assert done.exit_code == 0 and sorted(table["runs"]) == older
